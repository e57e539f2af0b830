"""The generator: its networks, losses, training and checkpoints. It handles tensors and knows no language model."""
