"""Tasks, examples, adapters and generators on disk, with their provenance. Never imports torch."""
