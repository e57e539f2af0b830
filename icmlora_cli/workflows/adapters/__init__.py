"""Import, export, describe and compare adapters."""
