"""The tokenizer of a merged model: the base's, or the one that an adapter was trained with and saved beside it."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.registry.base_files import TOKENIZERS, beside_weights

VOCABULARY = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")
TEMPLATES = ("chat_template*",)


def files_beside(base: Path, adapters: Sequence[Path], rows: int) -> list[Path]:
    """Return what goes along with merged weights: the base's files, those of an adapter's own tokenizer before them.

    Args:
        base: the base's folder.
        adapters: the adapters' folders.
        rows: The rows of the input embedding; every token's id must be below.

    Raises:
        CorruptFileError: if a tokenizer cannot be read.
        UnsupportedAdapterError: if adapters have different tokenizers, or one has tokens that the base has no row for.
    """
    own: dict[str, list[Path]] = {}
    for folder in adapters:
        found = _of(folder, TEMPLATES)
        if any((folder / name).is_file() for name in TOKENIZERS):
            found += _of(folder, VOCABULARY)
        if found:
            own.setdefault(files.sha256_json([[path.name, files.sha256_file(path)] for path in sorted(found)]), found)
    if len(own) > 1:
        raise UnsupportedAdapterError(
            "the adapters were saved with different tokenizers or chat templates, and a model has one",
            where=", ".join(str(found[0].parent) for found in own.values()),
            hint="remove the tokenizer's files from all adapters but the one whose prompts are to be understood",
        )
    kept = beside_weights(base)
    for found in own.values():
        names = {path.name for path in found}
        if _says_template(found):
            kept = [path for path in kept if not any(path.match(pattern) for pattern in TEMPLATES)]
        if any(name in names for name in TOKENIZERS):
            _check_ids(found, rows)
            kept = [path for path in kept if not any(path.match(pattern) for pattern in VOCABULARY)]
        kept = [path for path in kept if path.name not in names] + found
    return kept


def _of(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _says_template(found: Sequence[Path]) -> bool:
    """Tell whether a tokenizer has a chat template; a file of its own would win over one in its configuration."""
    inline = [path for path in found if path.name == "tokenizer_config.json"]
    return any(path.match(pattern) for path in found for pattern in TEMPLATES) or any(
        files.read_json(path).get("chat_template") for path in inline
    )


def _check_ids(found: Sequence[Path], rows: int) -> None:
    path = next((path for path in found if path.name == "tokenizer.json"), None)
    if path is None:
        return
    try:
        largest = max(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values(), default=0)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise CorruptFileError(
            f"the adapter's {path.name} cannot be read: {str(error)[:200]}",
            where=str(path),
            hint="get the adapter again from where it came, or remove its tokenizer's files",
        ) from error
    if largest >= rows:
        raise UnsupportedAdapterError(
            f"the adapter's tokenizer has tokens up to {largest}, and the base has {rows} rows for them",
            where=str(path),
            hint="resize the base's embeddings (model.resize_token_embeddings), and --base that folder",
        )
