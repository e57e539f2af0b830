"""Merge adapters into their base, file by file."""
