"""What a base model's folder holds: the files that belong to the model, their hashes, and whether they are a model."""

import re
from pathlib import Path

from icmlora_cli.disk.files import read_json, sha256_file, sha256_json
from icmlora_cli.disk.safetensors_header import check_safetensors
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError
from icmlora_cli.manifests.foreign import SafetensorsIndex
from icmlora_cli.provenance.front_matter import front_matter
from icmlora_cli.registry.bases import Base, BaseFile, folder_id

WEIGHTS = "*.safetensors"
INDEX = "model.safetensors.index.json"
# the files that are hashed and recorded
COUNTED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "processor_config.json",
    "preprocessor_config.json",
    WEIGHTS,
    INDEX,
)
TERMS = ("LICENSE*", "NOTICE*")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
PICKLES = ("*.bin", "*.pt", "*.pth")


def describe(
    path: Path,
    *,
    name: str,
    origin: str,
    model_id: str | None = None,
    revision: str | None = None,
    licence: str | None = None,
) -> Base:
    """Check a model's folder, hash its files, and return the base model that it holds.

    Args:
        path: the folder; files in folders within it do not count.
        name: the canonical name of the base model.
        origin: where it comes from: ``hub``, ``folder`` or the wheel.
        model_id: the hub id; None for a folder, which gets its ``folder_id``.
        revision: the commit on the hub; None for other sources.
        licence: the licence of the model; None takes the one that ``README.md`` names in its front matter.

    Raises:
        BaseUnavailableError: If the folder is not that of a language model with safetensors and a tokenizer.
        CorruptFileError: If a weight file is cut short or a shard is missing.
    """
    architecture = _architecture(path)
    _check_weights(path)
    if not any((path / file).is_file() for file in TOKENIZERS):
        raise BaseUnavailableError(
            f"{path.name} has no tokenizer",
            where=str(path),
            hint=f"copy one of {', '.join(TOKENIZERS)} into it",
        )
    names = sorted({file.name for pattern in COUNTED for file in path.glob(pattern) if file.is_file()})
    files = tuple(BaseFile(file, (path / file).stat().st_size, sha256_file(path / file)) for file in names)
    weights = [[file.name, file.sha256] for file in files if file.name.endswith(WEIGHTS[1:])]
    weight_hash = sha256_json(weights)
    return Base(
        name=name,
        model_id=model_id or folder_id(path, weight_hash),
        revision=revision,
        path=path,
        weight_hash=weight_hash,
        origin=origin,
        licence=licence or licence_of(path),
        bytes=sum(file.bytes for file in files),
        architecture=architecture,
        files=files,
    )


def beside_weights(path: Path) -> list[Path]:
    """Return the files of a model's folder that are copied with its weights: configuration, tokenizer, licence."""
    patterns = [pattern for pattern in (*COUNTED, *TERMS) if pattern not in (WEIGHTS, INDEX)]
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def _architecture(path: Path) -> str:
    if not (path / "config.json").is_file():
        raise BaseUnavailableError(
            f"{path.name} is not a model folder: it has no config.json",
            where=str(path),
            hint="name a folder as save_pretrained writes it, or: icmlora base pull smollm2-135m",
        )
    config = read_json(path / "config.json")
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    raise CorruptFileError("config.json does not name an architecture", where=str(path / "config.json"))


def _check_weights(path: Path) -> None:
    weights = sorted(path.glob(WEIGHTS))
    if not weights:
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if pickles:
            raise BaseUnavailableError(
                f"{path.name} has only pickled weights ({pickles[0]}), which can run code when they are read",
                where=str(path),
                hint="convert it once to safetensors: AutoModelForCausalLM.from_pretrained(folder)"
                ".save_pretrained(new_folder), then copy the tokenizer files along",
            )
        raise BaseUnavailableError(
            f"{path.name} has no *.safetensors", where=str(path), hint="icmlora base pull smollm2-135m"
        )
    for file in weights:
        check_safetensors(file)
    if (path / INDEX).is_file():
        missing = [shard for shard in SafetensorsIndex.read(path / INDEX).shards if not (path / shard).is_file()]
        if missing:
            raise CorruptFileError(f"{path.name} lacks {missing[0]}, which its index names", where=str(path))


def licence_of(path: Path) -> str | None:
    """Return the licence that a folder's ``README.md`` names in its front matter, in lower case; None if none."""
    match = re.search(r"^license: *['\"]?([\w.+-]+)", front_matter(path / "README.md"), re.MULTILINE)
    return match.group(1).lower() if match else None
