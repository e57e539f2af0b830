"""A byte-level BPE tokenizer as llama.cpp reads it: tokens, their kinds, merges, and the name of its pre-tokenizer.

GGUF names a pre-tokenizer, and llama.cpp has its regular expressions built in. So the name is only given where the
tokenizer's own rules are those; every other tokenizer is refused, because it would silently cut text otherwise.
"""

from collections.abc import Mapping
from pathlib import Path

import gguf

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError

TOKENIZER = "tokenizer.json"
DEEPEST = 8  # sequences of pre-tokenizers within each other
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = ("ByteLevel", False, True)  # no blank put before the text; cut by GPT-2's expression
_JOINED = ("ByteLevel", False, False)  # cut by what came before it
PRE_TOKENIZERS: dict[tuple[object, ...], str] = {
    (_BYTES,): "gpt-2",
    (("Digits", True), _BYTES): "smollm",
    (("Split", _WORDS + r"\p{N}{1,3}" + _REST, "Isolated", False), _JOINED): "llama-bpe",
    (("Split", _WORDS + r"\p{N}" + _REST, "Isolated", False), _JOINED): "qwen2",
}
WHOLE_WORDS = ("llama-bpe",)  # a word that is a token is taken as it is, whatever the merges say
NORMALIZERS = {"qwen2": "NFC"}  # llama.cpp leaves it out, as its own conversion does


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    """Add a tokenizer's keys to a file that is being made.

    Args:
        writer: The writer of the GGUF file.
        folder: the model's, with ``tokenizer.json`` and ``tokenizer_config.json``.
        size: rows of the embedding; ids that the tokenizer lacks are marked as unused.

    Raises:
        CorruptFileError: if ``tokenizer.json`` is missing, damaged or larger than the embedding.
        UnsupportedAdapterError: if llama.cpp would read text otherwise than this tokenizer.
    """
    value, name = _read(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    tokens, kinds = _tokens(value, size, str(folder / TOKENIZER))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    special.add_special_token.setdefault("bos", False)  # unless the tokenizer puts one before a text
    special.add_to_gguf(writer, quiet=True)


def check_tokenizer(folder: Path) -> None:
    """Check that a model's tokenizer can be written; see ``add_tokenizer``.

    Raises:
        CorruptFileError: if ``tokenizer.json`` is missing or damaged.
        UnsupportedAdapterError: if it cannot.
    """
    _read(folder)


def _read(folder: Path) -> tuple[dict[str, object], str]:
    """Return what ``tokenizer.json`` holds, and the name of its pre-tokenizer."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise CorruptFileError(f"there is no {TOKENIZER}", where=str(folder), hint="save the tokenizer as a fast one")
    value = files.read_json(path)
    return value, pre_tokenizer(value, where=str(path))


def pre_tokenizer(value: Mapping[str, object], *, where: str | None = None) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a ``tokenizer.json``.

    Raises:
        UnsupportedAdapterError: if it has none for just these rules.
    """
    model, normalizer = files.as_object(value.get("model")), value.get("normalizer")
    name = PRE_TOKENIZERS.get(_rules(value.get("pre_tokenizer")))
    plain = (
        model.get("type") == "BPE"
        and not model.get("byte_fallback")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and bool(model.get("ignore_merges")) == (name in WHOLE_WORDS)
    )
    kind = files.as_object(normalizer).get("type")
    normal = normalizer is None or (kind is not None and kind == NORMALIZERS.get(name or ""))
    if name is None or not plain or not normal:
        raise UnsupportedAdapterError(
            f"a GGUF model needs a byte-level BPE tokenizer that cuts text as {', '.join(PRE_TOKENIZERS.values())} do; "
            "this one does not",
            where=where,
            hint="write a LoRA (--format gguf without --merge), and convert the base with llama.cpp's "
            "convert_hf_to_gguf.py",
        )
    return name


def _rules(value: object, depth: int = 0) -> tuple[object, ...]:
    """Return what decides how a pre-tokenizer cuts, step by step; values that no rule has become text."""
    rule = files.as_object(value)
    if not rule:
        return ()
    if rule.get("type") == "Sequence" and depth < DEEPEST:
        steps = rule.get("pretokenizers")
        return tuple(inner for step in steps for inner in _rules(step, depth + 1)) if isinstance(steps, list) else ()
    known: dict[str, tuple[object, ...]] = {
        "ByteLevel": (rule.get("add_prefix_space"), rule.get("use_regex", True)),
        "Digits": (rule.get("individual_digits"),),
        "Split": (
            files.as_object(rule.get("pattern")).get("Regex"),
            rule.get("behavior"),
            rule.get("invert"),
        ),
    }
    kind = str(rule.get("type"))
    decides = known.get(kind, ("unknown",))
    return ((kind, *(item if isinstance(item, str | bool | None) else str(type(item)) for item in decides)),)


def _tokens(value: Mapping[str, object], size: int, where: str) -> tuple[list[str], list[gguf.TokenType]]:
    """Return each id's text, and what kind of token it is."""
    added = value.get("added_tokens")
    vocabulary = files.as_object(files.as_object(value.get("model")).get("vocab"))
    tokens = [f"[PAD{index}]" for index in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    try:
        assert vocabulary and isinstance(added, list)
        for text, index in vocabulary.items():
            tokens[index], kinds[index] = text, gguf.TokenType.NORMAL
        for item in added:
            kind = gguf.TokenType.CONTROL if item["special"] else gguf.TokenType.USER_DEFINED
            tokens[item["id"]], kinds[item["id"]] = item["content"], kind
    except (AssertionError, IndexError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{TOKENIZER} is damaged, or has more tokens than the model's {size:,}",
            where=where,
            hint="give the base's whole folder, as save_pretrained wrote it",
        ) from error
    return tokens, kinds
