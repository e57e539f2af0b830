"""What a foreign ``adapter_config.json`` says, once it has been doubted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, UnsupportedAdapterError
from icmlora_cli.weights.foreign.headers import SAVE_AGAIN
from icmlora_cli.weights.patterns import Patterns

CONFIG = "adapter_config.json"
LARGEST_CONFIG = 4 << 20  # bytes
LARGEST_RANK = 16384
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


@dataclass(frozen=True)
class LoraSettings:
    """What of PEFT's LoRA configuration decides the weights' meaning.

    Args:
        base_model: ``base_model_name_or_path``; empty where it does not say.
        revision: of the base, if said.
        rank: ``r``.
        alpha: ``lora_alpha``.
        ranks: ``rank_pattern``.
        alphas: ``alpha_pattern``.
        use_rslora: scaling is alpha / sqrt(r).
        use_dora: each row of the changed weight has a norm of its own.
        modules_to_save: endings of modules that the adapter holds whole.
        peft_version: that wrote it, if said.
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

    def rank_of(self, module: str) -> int:
        """Return a module's rank."""
        return int(self.ranks.value(module, self.rank))

    def alpha_of(self, module: str) -> float:
        """Return a module's alpha."""
        return self.alphas.value(module, self.alpha)

    def scaling(self, module: str) -> float:
        """Return what a module's ``lora_B @ lora_A`` is multiplied by."""
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
    if kind.upper() != "LORA":
        raise UnsupportedAdapterError(
            f"this is a {kind[:40]} adapter, and icmlora holds LoRAs",
            where=str(path),
            hint="where PEFT can, it turns it into a LoRA: peft.save_as_lora(folder, model, rank=16)",
        )
    _check_kind(value, str(path))
    return LoraSettings(
        base_model=str(value.get("base_model_name_or_path") or ""),
        revision=str(value["revision"]) if value.get("revision") else None,
        rank=_rank(value.get("r", 8), "r", str(path)),  # PEFT's default
        alpha=_number(value.get("lora_alpha", 8), "lora_alpha", str(path)),
        ranks=_ranks(value.get("rank_pattern"), str(path)),
        alphas=Patterns.of(value.get("alpha_pattern"), "alpha_pattern", str(path)),
        use_rslora=bool(value.get("use_rslora")),
        use_dora=bool(value.get("use_dora")),
        modules_to_save=_names(value.get("modules_to_save"), "modules_to_save", str(path)),
        peft_version=str(value["peft_version"]) if value.get("peft_version") else None,
    )


def _read(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    if size > LARGEST_CONFIG:
        raise CorruptFileError(
            f"{CONFIG} has {size:,} bytes, and at most {LARGEST_CONFIG:,} are read",
            where=str(path),
            hint="give a folder that PEFT's save_pretrained wrote",
        )
    try:
        return files.read_json(path)
    except RecursionError as error:
        raise CorruptFileError(
            f"{CONFIG} is nested too deep to be a configuration", where=str(path), hint=SAVE_AGAIN
        ) from error
    except CorruptFileError as error:
        raise CorruptFileError(error.message, where=error.where, hint=SAVE_AGAIN) from error


def _check_kind(value: Mapping[str, object], where: str) -> None:
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
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CorruptFileError(f"{name} is not a list of names", where=where, hint=SAVE_AGAIN)
    return tuple(value)


def _number(value: object, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CorruptFileError(f"{name} is {str(value)[:40]}, not a finite number", where=where, hint=SAVE_AGAIN)
    return float(value)


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
    for pattern, number in found.items:
        _rank(number, f"rank_pattern: {pattern.pattern[:80]}", where)
    return found
