"""Tasks, base models, adapters and generators on disk. Never imports torch."""
