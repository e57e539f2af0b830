"""Does an adapter hold anything but LoRA matrices? Asked of its configuration and its tensors' names."""

from pathlib import Path

from icmlora_cli.errors import UnsupportedAdapterError
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.headers import read_header
from icmlora_cli.weights.foreign.keys import sorted_out
from icmlora_cli.weights.foreign.read import WEIGHTS

MORE = {
    "lora bias": "a bias beside lora_B (lora_bias)",
    "embedding A": "a LoRA of an embedding",
    "magnitude": "magnitudes (DoRA)",
    "tokens": "trained tokens (trainable_token_indices)",
}


def check_plain(folder: Path, *, what: str) -> None:
    """Check that an adapter is nothing but pairs of lora_A and lora_B.

    Args:
        folder: a PEFT folder.
        what: the thing that can hold no more, to begin the message with.

    Raises:
        CorruptFileError: if a file is damaged.
        UnsupportedAdapterError: if it holds more, naming the first of it.
    """
    path = folder / WEIGHTS
    settings = read_settings(folder)
    if not path.is_file():
        return  # reading it will say so
    parts = sorted_out(read_header(path), str(path))
    found = [f"{why}: {next(iter(parts.of(kind).values()))}" for kind, why in MORE.items() if parts.of(kind)]
    found += [f"whole parameters (modules_to_save, or bias): {next(iter(parts.whole.values()))}"] if parts.whole else []
    found += ["magnitudes (DoRA)"] if settings.use_dora and not found else []
    if found:
        raise UnsupportedAdapterError(
            f"{what} holds lora_A and lora_B alone, and this adapter has {found[0]}",
            where=str(folder),
            hint=f'icmlora adapter import {folder} --approximate --describe "..." fits a LoRA to it and says what is '
            "lost; then export that",
        )
