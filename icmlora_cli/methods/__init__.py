"""The ways to serve a task that an evaluation compares."""
