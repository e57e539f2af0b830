"""Answers requests with adapters: one base is in memory, and requests wait for it in a queue."""
