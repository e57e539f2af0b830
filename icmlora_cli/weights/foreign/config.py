"""What a foreign ``adapter_config.json`` says, once it has been doubted."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError, UnsupportedAdapterError
from icmlora_cli.weights.foreign.headers import SAVE_AGAIN
from icmlora_cli.weights.patterns import Patterns, finite

CONFIG = "adapter_config.json"
LARGEST_CONFIG = 4 << 20  # bytes
LARGEST_RANK = 16384
MOST_NAMES = 1000  # of modules_to_save
BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that alter the base's own weights
OTHER_KINDS = {
    "use_qalora": "QALoRA pools its inputs",
    "alora_invocation_tokens": "aLoRA switches on at an invocation",
    "layer_replication": "it repeats layers of its base",
    "target_parameters": "it targets bare parameters (experts)",
    "monteclora_config": "MonteCLoRA samples its weights",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "arrow_config": "Arrow routes between several adapters",
    "kasa_config": "KaSA truncates the base's weights",
    "megatron_config": "it is of Megatron's parallel layers",
}
CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
KNOWN = frozenset(
    {
        *("peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "r"),
        *("target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora"),
        *("modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern"),
        *("alpha_pattern", "megatron_core", "trainable_token_indices", "loftq_config", "eva_config", "corda_config"),
        *("lora_ga_config", "use_dora", "velora_config", "qalora_group_size", "runtime_config", "lora_bias"),
        *("ensure_weight_tying", "peft_version", "unsloth_fixed", *OTHER_KINDS),
        # AdaLoRA's, all but init_r of its training alone
        *("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
    }
)
ADALORA_EPSILON = 1e-5  # PEFT's tuners/adalora/layer.py divides by ranknum + 1e-5


@dataclass(frozen=True)
class LoraSettings:
    """What of PEFT's LoRA configuration decides the weights' meaning.

    Args:
        base_model: ``base_model_name_or_path``; empty where it does not say.
        revision: The revision of the base, if the configuration says one.
        rank: ``r``.
        alpha: ``lora_alpha``.
        ranks: ``rank_pattern``.
        alphas: ``alpha_pattern``.
        use_rslora: scaling is alpha / sqrt(r).
        use_dora: each row of the changed weight has a norm of its own.
        modules_to_save: endings of modules that the adapter holds whole.
        peft_version: that wrote it, if said.
        fan_in_fan_out: the base keeps its weights as [in, out] (GPT-2's Conv1D).
        init_rank: AdaLoRA's ``init_r``, by which it divides alpha; None of a LoRA.
        factor_ranks: module to its factors' rank, of AdaLoRA, which prunes ranks by the module.
        former: a module's name in the base to its name in the adapter, where the two differ.
        notes: what of the configuration is not looked at, in sentences.
    """

    base_model: str
    revision: str | None
    rank: int
    alpha: float
    ranks: Patterns
    alphas: Patterns
    use_rslora: bool
    use_dora: bool
    modules_to_save: tuple[str, ...]
    peft_version: str | None
    fan_in_fan_out: bool = False
    init_rank: int | None = None
    factor_ranks: Mapping[str, int] = field(default_factory=dict)
    former: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rank_of(self, module: str) -> int:
        """Return a module's rank."""
        if self.init_rank is not None:
            return self.factor_ranks.get(module, self.init_rank)
        return int(self.ranks.value(self.former.get(module, module), self.rank))

    def alpha_of(self, module: str) -> float:
        """Return a module's alpha."""
        if self.init_rank is not None:
            return self.scaling(module) * self.rank_of(module)
        return self.alphas.value(self.former.get(module, module), self.alpha)

    def scaling(self, module: str) -> float:
        """Return what a module's ``lora_B @ lora_A`` is multiplied by."""
        if self.init_rank is not None:
            return (self.alpha if self.alpha > 0 else self.init_rank) / (self.init_rank + ADALORA_EPSILON)
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.use_rslora else rank)


def read_settings(folder: Path) -> LoraSettings:
    """Read the configuration of a foreign LoRA.

    Args:
        folder: holds ``adapter_config.json``.

    Raises:
        CorruptFileError: if it is no JSON object of sane size, or a value cannot be.
        UnsupportedAdapterError: if the adapter is of another kind than LoRA.
    """
    path = folder / CONFIG
    value = _read(path)
    kind = value.get("peft_type")
    if not isinstance(kind, str):
        if "fine_tune_type" in value or "lora_parameters" in value:
            raise UnsupportedAdapterError(
                f"{CONFIG} is that of an MLX adapter, not PEFT's",
                where=str(path),
                hint="fuse it with mlx_lm.fuse, then take the LoRA out of the fused model with mergekit-extract-lora",
            )
        raise CorruptFileError(
            f"{CONFIG} names no peft_type", where=str(path), hint="give a folder that PEFT's save_pretrained wrote"
        )
    adaptive = kind.upper() == "ADALORA"
    if kind.upper() != "LORA" and not adaptive:
        raise UnsupportedAdapterError(
            f"this is a {kind[:40]} adapter, and icmlora holds LoRAs",
            where=str(path),
            hint="where PEFT can, it turns it into a LoRA: peft.save_as_lora(folder, model, rank=16)",
        )
    _check_kind(value, str(path))
    return LoraSettings(
        base_model=_text(value.get("base_model_name_or_path")),
        revision=_text(value.get("revision")) or None,
        rank=_rank(8 if adaptive else value.get("r", 8), "r", str(path)),  # PEFT's default; AdaLoRA has no use for it
        alpha=_number(value.get("lora_alpha", 8), "lora_alpha", str(path)),
        ranks=_ranks(None if adaptive else value.get("rank_pattern"), str(path)),  # AdaLoRA's factors are pruned
        alphas=Patterns.of(value.get("alpha_pattern"), "alpha_pattern", str(path)),
        use_rslora=bool(value.get("use_rslora")),
        use_dora=bool(value.get("use_dora")),
        modules_to_save=_names(value.get("modules_to_save"), "modules_to_save", str(path)),
        peft_version=_text(value.get("peft_version")) or None,
        fan_in_fan_out=bool(value.get("fan_in_fan_out")),
        init_rank=_rank(value.get("init_r", 12), "init_r", str(path)) if adaptive else None,
        notes=_notes(value),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _notes(value: Mapping[str, object]) -> tuple[str, ...]:
    """Return a note on the keys that are set and unknown; a key that changes the maths and is known was refused."""
    unknown = sorted(key for key, item in value.items() if item and key not in KNOWN)
    if not unknown:
        return ()
    named = ", ".join(key[:40] for key in unknown[:5])
    return (f"{CONFIG} sets {named}, which icmlora does not know: it is taken for a LoRA without",)


def _read(path: Path) -> dict[str, object]:
    size = path.stat().st_size if path.is_file() else 0
    if size > LARGEST_CONFIG:
        raise CorruptFileError(
            f"{CONFIG} has {size:,} bytes, and at most {LARGEST_CONFIG:,} are read",
            where=str(path),
            hint="give a folder that PEFT's save_pretrained wrote",
        )
    try:
        value = files.read_json(path)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no {CONFIG}", where=str(path.parent), hint="give the folder that PEFT's save_pretrained wrote"
        ) from error
    except CorruptFileError as error:
        raise CorruptFileError(error.message, where=error.where, hint=SAVE_AGAIN) from error
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:  # halves of surrogate pairs, which no terminal can show
        raise CorruptFileError(f"{CONFIG} holds text that is not Unicode", where=str(path), hint=SAVE_AGAIN) from error
    return value


def _check_kind(value: Mapping[str, object], where: str) -> None:
    task = _text(value.get("task_type")).upper()
    if task in CLASSIFIERS:
        raise UnsupportedAdapterError(
            f"this is a classifier's adapter (task_type {task}): its answers come from a head that no causal language "
            "model has",
            where=where,
            hint="train a LoRA on the same data with labels as texts: icmlora harvest",
        )
    init = str(value.get("init_lora_weights")).lower()
    changing = next((name for name in BASE_CHANGING if init.startswith(name)), None)
    if changing is not None:
        raise UnsupportedAdapterError(
            f"init_lora_weights is {init!r}: its LoRA is relative to a base that {changing} altered, not to the model",
            where=where,
            hint="save it with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes "
            "a plain LoRA of it",
        )
    for key, why in OTHER_KINDS.items():
        if value.get(key):
            raise UnsupportedAdapterError(
                f"{key} is set: {why}, which delta-W cannot say",
                where=where,
                hint="train a plain LoRA of the same task, and import that",
            )


def _names(value: object, name: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or len(value) > MOST_NAMES:
        raise CorruptFileError(f"{name} is not a list of at most {MOST_NAMES} names", where=where, hint=SAVE_AGAIN)
    return tuple(value)


def _number(value: object, name: str, where: str) -> float:
    number = finite(value)
    if number is None:
        raise CorruptFileError(f"{name} is {str(value)[:40]}, not a finite number", where=where, hint=SAVE_AGAIN)
    return number


def _rank(value: object, name: str, where: str) -> int:
    number = _number(value, name, where)
    if number != int(number) or not 1 <= number <= LARGEST_RANK:
        raise CorruptFileError(
            f"{name} is {str(value)[:40]}: a LoRA's rank is a whole number from 1 to {LARGEST_RANK}",
            where=where,
            hint="the configuration is damaged or not of this adapter; get it again from where it came",
        )
    return int(number)


def _ranks(value: object, where: str) -> Patterns:
    found = Patterns.of(value, "rank_pattern", where)
    for text, number in found.items.items():
        _rank(number, f"rank_pattern: {text[:80]}", where)
    return found
