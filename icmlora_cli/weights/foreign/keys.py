"""What the tensors of a foreign adapter are, by their names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.weights.foreign.headers import SAVE_AGAIN

PREFIX = "base_model.model."
MODULE = re.compile(r"\w+(\.\w+)*", re.ASCII)
LONGEST = 1000  # characters of a tensor's name
# older PEFT kept the adapter's name before ".weight": lora_A.default.weight; AdaLoRA's factors have no ".weight"
NAMED = r"(\.(?!(weight|bias)$)\w+)?"
KINDS = (
    ("A", re.compile(rf"(?P<module>.+)\.lora_A{NAMED}(\.weight)?", re.ASCII)),
    ("B", re.compile(rf"(?P<module>.+)\.lora_B{NAMED}(\.weight)?", re.ASCII)),
    ("lora bias", re.compile(rf"(?P<module>.+)\.lora_B{NAMED}\.bias", re.ASCII)),
    ("embedding A", re.compile(rf"(?P<module>.+)\.lora_embedding_A{NAMED}", re.ASCII)),
    ("embedding B", re.compile(rf"(?P<module>.+)\.lora_embedding_B{NAMED}", re.ASCII)),
    ("magnitude", re.compile(rf"(?P<module>.+)\.lora_magnitude_vector{NAMED}(\.weight)?", re.ASCII)),
    ("tokens", re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_\w+")),
    ("E", re.compile(rf"(?P<module>.+)\.lora_E{NAMED}", re.ASCII)),
    ("ranknum", re.compile(rf"(?P<module>.+)\.ranknum{NAMED}", re.ASCII)),
)
SAVED = re.compile(r"\.modules_to_save(\.\w+)?(?=\.(weight|bias)$)", re.ASCII)
WHOLE = re.compile(r"(?P<module>.+?)(\.modules_to_save(\.\w+)?)?(\.base_layer)?\.(?P<name>weight|bias)", re.ASCII)
MERGE = "merge it into its base with the tool that made it, and take the LoRA out with mergekit-extract-lora"
FORMATS = (
    (
        re.compile(r"^lora_(unet|te\d?|transformer)_|\.lora_(down|up)\."),
        "a Kohya or ComfyUI LoRA",
        "PEFT's examples/lora_dreambooth/convert_kohya_ss_sd_lora_to_peft.py converts it; most of them are for image "
        "models, which icmlora does not serve",
    ),
    (
        re.compile(r"^(diffusion_model|unet|text_encoder(_2)?|transformer\.(single_)?transformer_blocks)\."),
        "a LoRA of an image model (diffusers or ComfyUI)",
        "icmlora serves causal language models; diffusers' load_lora_weights reads it",
    ),
    (re.compile(r"\.lora_[ab]$"), "an MLX adapter", MERGE),
    (re.compile(r"\.lora_[ab]\.weight$|^blk\.\d+\..*\.lora_"), "another tool's LoRA", MERGE),
)


@dataclass(frozen=True)
class KeyParts:
    """Names of tensors, sorted by what they are.

    Args:
        modules: kind (``A``, ``B``, ``lora bias``, ``embedding A``, ``embedding B``, ``magnitude``, ``tokens``, ``E``,
            ``ranknum``) to module name to tensor name.
        whole: parameter of the base (``lm_head.weight``) to the tensor that replaces it.
    """

    modules: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]

    def of(self, kind: str) -> Mapping[str, str]:
        """Return module name to tensor name."""
        return self.modules.get(kind, {})


def sorted_out(names: Iterable[str], where: str) -> KeyParts:
    """Return what the tensors of a file are.

    Args:
        names: The names of all tensors.
        where: the file, for messages.

    Raises:
        CorruptFileError: if there is none, one is not of a LoRA, or half of a pair is missing.
        UnsupportedAdapterError: if the names are those of another format or kind of adapter.
    """
    ordered = sorted(names)
    too_long = next((name for name in ordered if len(name) > LONGEST), None)
    if too_long is not None:
        raise CorruptFileError(f"{too_long[:80]!r}... is too long for a tensor's name", where=where, hint=SAVE_AGAIN)
    if not ordered:
        raise CorruptFileError("the adapter holds no tensors", where=where, hint="it was saved before it was trained")
    modules: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    there = frozenset(ordered)
    for name in ordered:
        if _again(name, there):
            continue
        kind, module = _kind(name, ordered, where)
        group = whole if kind == "whole" else modules.setdefault(kind, {})
        if kind != "tokens" and module in group:
            raise CorruptFileError(
                f"{group[module]} and {name} are the same part of the adapter", where=where, hint=SAVE_AGAIN
            )
        group[module] = name
    parts = KeyParts(modules, whole)
    _check_halves(parts, where)
    return parts


def _again(name: str, there: frozenset[str]) -> bool:
    """Tell whether a tensor is a second copy, as PEFT saves with ``bias: all`` of modules in ``modules_to_save``."""
    return ".original_module." in name or (".modules_to_save." in name and SAVED.sub("", name) in there)


def _kind(name: str, ordered: list[str], where: str) -> tuple[str, str]:
    if not name.startswith(PREFIX):
        raise _other_format(name, ordered, where)
    rest = name.removeprefix(PREFIX)
    for kind, pattern in KINDS:
        found = pattern.fullmatch(rest)
        if found:
            return kind, _checked(found["module"], name, where)
    if "lora_" in rest or "lokr_" in rest or "hada_" in rest or "oft_" in rest:
        raise UnsupportedAdapterError(
            f"{name[:200]} belongs to a variant of LoRA that icmlora does not know",
            where=where,
            hint="where PEFT can, it turns it into a LoRA: peft.save_as_lora(folder, model, rank=16)",
        )
    found = WHOLE.fullmatch(rest)
    if found:
        return "whole", f"{_checked(found['module'], name, where)}.{found['name']}"
    raise CorruptFileError(f"{name[:200]!r} is not a part of a LoRA", where=where, hint=SAVE_AGAIN)


def _checked(module: str, name: str, where: str) -> str:
    """Return a module's name, unless it is one that no module can have, such as a path."""
    if len(module) > 500 or not MODULE.fullmatch(module):
        raise CorruptFileError(
            f"{name[:200]!r} does not name a module (letters, digits and '_', joined by dots)",
            where=where,
            hint="such a name is damaged, or meant to reach outside of the folder: do not trust this file",
        )
    return module


def _other_format(name: str, ordered: list[str], where: str) -> UnsupportedAdapterError | CorruptFileError:
    for pattern, what, hint in FORMATS:
        if any(pattern.search(item) for item in ordered):
            return UnsupportedAdapterError(f"this is {what}, not PEFT's format", where=where, hint=hint)
    return CorruptFileError(
        f"{name[:200]!r} does not begin with {PREFIX!r}, as PEFT's tensors do",
        where=where,
        hint="give a folder that PEFT's save_pretrained wrote",
    )


def _check_halves(parts: KeyParts, where: str) -> None:
    for first, second in (("A", "B"), ("embedding A", "embedding B")):
        one, two = parts.of(first), parts.of(second)
        for module in sorted({*one, *two}):
            lacking = first if module not in one else second
            if module not in one or module not in two:
                raise CorruptFileError(
                    f"{module} has no lora_{lacking.replace(' ', '_')}: half of a pair is missing",
                    where=where,
                    hint="the adapter was not saved whole (ZeRO-3 and FSDP need their weights gathered): save it again",
                )
    for kind in ("lora bias", "magnitude", "E"):
        for module, name in parts.of(kind).items():
            if module not in parts.of("A") and module not in parts.of("embedding A"):
                raise CorruptFileError(
                    f"{name} is there, and no lora_A and lora_B of {module}", where=where, hint=SAVE_AGAIN
                )
    if not parts.of("A") and not parts.of("embedding A"):
        raise CorruptFileError("the adapter holds no pair of LoRA factors", where=where, hint=SAVE_AGAIN)
