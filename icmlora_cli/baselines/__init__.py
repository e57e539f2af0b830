"""The rungs of the evaluation ladder: ways to get an adapter (or only a prompt) for a task."""
