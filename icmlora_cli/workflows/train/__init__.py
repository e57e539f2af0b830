"""Train the generator on harvested adapters and in episodes through the frozen base."""
