"""Answer requests with adapters: a queue of requests goes through one loaded base."""
