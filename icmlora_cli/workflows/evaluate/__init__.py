"""Compare a generated adapter with everything that a user could do instead."""
