"""Verify, repair, free, export and import the registry, and count its bytes."""
