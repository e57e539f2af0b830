"""The methods that an evaluation compares: each is one way to serve a task."""
