"""Fetch a base model, or find it on this machine."""
