"""Adapters as data: PEFT folders, the layout of a base's modules, the codec, merging. torch and safetensors only."""
