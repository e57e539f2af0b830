"""A model's files as they lie on disk, merged block by block without loading the model."""
