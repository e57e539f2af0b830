"""Adapters that others made: read with suspicion, checked against the base, held exactly where a LoRA can."""
