"""Generate adapters from a task text and, optionally, examples."""
