"""Random streams that a name decides: the same on every run, and apart for each name."""

import hashlib

import torch


def named_source(*name: object) -> torch.Generator:
    """Return a torch generator on the CPU that only the name's parts decide, such as a seed and a module's name."""
    digest = hashlib.sha256(":".join(map(str, name)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
