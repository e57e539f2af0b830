"""icmlora: LoRA adapters generated from a task in words (In-Context Meta LoRA Generation)."""

__version__ = "0.2.0"
