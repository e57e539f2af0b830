"""The base language model: load it, prompt it, read task vectors from it, fine-tune it, score with it."""
