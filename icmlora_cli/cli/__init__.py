"""Typer commands, one file per noun: the only layer that prints. Workflows are imported inside the commands."""
