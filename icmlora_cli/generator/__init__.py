"""The conditional VAE: modules, losses, training, checkpoints. It knows tensors, not language models."""
