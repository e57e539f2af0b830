"""Adapters and merged models as GGUF files, for llama.cpp."""
