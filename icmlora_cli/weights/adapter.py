"""A LoRA adapter as data, and the PEFT folder that holds it.

Source of the format: PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, whose keys are
``base_model.model.{module}.lora_A.weight`` [r, in] and ``...lora_B.weight`` [out, r].
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.weights.foreign.check import BaseShapes
from icmlora_cli.weights.patterns import Patterns, exactly

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


@dataclass(frozen=True)
class Factors:
    """The two factors of one module's update, delta-W = scaling * ``lora_b @ lora_a``.

    Args:
        lora_a: [r, in], any float dtype.
        lora_b: [out, r], same dtype.
    """

    lora_a: torch.Tensor
    lora_b: torch.Tensor

    @property
    def rank(self) -> int:
        """The inner dimension r."""
        return int(self.lora_a.shape[0])


@dataclass(frozen=True)
class Adapter:
    """A LoRA over some modules of a base model.

    Args:
        base_model: what the adapter was trained for, as PEFT's ``base_model_name_or_path``.
        alpha: ``lora_alpha``.
        factors: full module name (``model.layers.0.self_attn.q_proj``) to its factors.
        fan_in_fan_out: the base keeps these weights as [in, out] (GPT-2's Conv1D).
        use_rslora: scaling is alpha / sqrt(r) instead of alpha / r.
        alphas: modules whose alpha is another one (PEFT's ``alpha_pattern``). Ranks may differ without being said.
    """

    base_model: str
    alpha: float
    factors: Mapping[str, Factors]
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    alphas: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The rank of its modules (the largest, where they differ)."""
        return max(item.rank for item in self.factors.values())

    def scaling(self, module: str) -> float:
        """Return alpha / r, or alpha / sqrt(r) with rsLoRA; alpha and r are the module's own."""
        rank = self.factors[module].rank
        return self.alphas.get(module, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def delta(self, module: str) -> torch.Tensor:
        """Return delta-W of a module in fp32, [out, in]."""
        item = self.factors[module]
        return self.scaling(module) * (item.lora_b.float() @ item.lora_a.float())

    def numbers(self) -> int:
        """Return how many numbers the factors hold."""
        return sum(item.lora_a.numel() + item.lora_b.numel() for item in self.factors.values())


def state_dict(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under PEFT's keys."""
    tensors: dict[str, torch.Tensor] = {}
    for module, item in adapter.factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = item.lora_a.contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = item.lora_b.contiguous()
    return tensors


def config_dict(adapter: Adapter, *, revision: str | None = None, task_type: str = "CAUSAL_LM") -> dict[str, object]:
    """Return what ``adapter_config.json`` holds, with PEFT's keys.

    Args:
        adapter: The adapter.
        revision: The revision of the base.
        task_type: What PEFT calls the task: ``SEQ_2_SEQ_LM`` where the base has an encoder.
    """
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": adapter.base_model,
        "revision": revision,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "rank_pattern": {
            exactly(name): item.rank for name, item in adapter.factors.items() if item.rank != adapter.rank
        },
        "alpha_pattern": {
            exactly(name): alpha
            for name, alpha in adapter.alphas.items()
            if name in adapter.factors and alpha != adapter.alpha
        },
        "lora_dropout": 0.0,
        "target_modules": sorted(adapter.factors),
        "fan_in_fan_out": adapter.fan_in_fan_out,
        "use_rslora": adapter.use_rslora,
        "use_dora": False,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def check_fits(adapter: Adapter, base: BaseShapes, where: str | None = None) -> None:
    """Check that a base has an adapter's modules, in its shapes.

    Args:
        adapter: A plain LoRA.
        base: The shapes of the base's modules.
        where: A file or folder for the message.

    Raises:
        CorruptFileError: if the base lacks a module, or has it in another shape.
    """
    hint = "name the base that it was made for with --base"
    for name, item in adapter.factors.items():
        module = base.modules.get(name)
        if module is None:
            raise CorruptFileError(
                f"the base model has no module {name}: the adapter is of another base", where=where, hint=hint
            )
        wanted, shape = (module.out_features, module.in_features), (item.lora_b.shape[0], item.lora_a.shape[1])
        if shape != wanted:
            raise CorruptFileError(f"{name} is {wanted} in the base and {shape} in the adapter", where=where, hint=hint)


def check_writable(adapter: Adapter, base: BaseShapes, folder: Path) -> None:
    """Check that an adapter is one that can be read again and used with its base, before it gets a name.

    Args:
        adapter: to be written.
        base: The shapes of the base that it is for.
        folder: where, for messages.

    Raises:
        CorruptFileError: if a number is not finite, the factors of a module do not fit together, or the base lacks a
            module or has it in another shape.
    """
    if not adapter.factors or not all(map(math.isfinite, (adapter.alpha, *adapter.alphas.values()))):
        raise CorruptFileError("the adapter has no factors, or an alpha that is not finite", where=str(folder))
    for module, item in adapter.factors.items():
        if item.lora_a.ndim != 2 or item.lora_b.ndim != 2 or item.lora_a.shape[0] != item.lora_b.shape[1]:
            raise CorruptFileError(f"{module}: lora_A and lora_B do not fit together", where=str(folder))
        if not (torch.isfinite(item.lora_a).all() and torch.isfinite(item.lora_b).all()):
            raise CorruptFileError(
                f"{module}: a number is not finite, and nothing is written",
                where=str(folder),
                hint="--dtype fp32 or bf16, where fp16 overflowed; else what made it diverge: a lower learning rate",
            )
    check_fits(adapter, base, str(folder))


def write_adapter(folder: Path, adapter: Adapter, base: BaseShapes, *, revision: str | None = None) -> None:
    """Write a PEFT folder: the weights first, the configuration last.

    Args:
        folder: to write; made if it is not there.
        adapter: The adapter.
        base: The shapes of the base that it is for.
        revision: The revision of the base, for the configuration.

    Raises:
        CorruptFileError: if ``check_writable`` refuses it; nothing is written.
        OutOfSpaceError: if the disk is full; neither file is then half written.
    """
    check_writable(adapter, base, folder)
    tensors = state_dict(adapter)
    files.write_with(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    files.write_json(folder / CONFIG, config_dict(adapter, revision=revision, task_type=base.task_type))


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        NotFoundError: if there is no such file.
        CorruptFileError: if it is truncated or not safetensors.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no {path.name}", where=str(path.parent))
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise CorruptFileError(
            f"{path.name} is not a readable safetensors file: {error}",
            where=str(path),
            hint="restore the file, or make it again with the command in the folder's README.md",
        ) from error


def _pairs(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, Factors]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = KEY.match(key)
        if match is None:
            raise CorruptFileError(f"{path.name} holds {key!r}, which is not a lora_A or lora_B", where=str(path))
        if tensor.ndim != 2 or not torch.isfinite(tensor).all():
            raise CorruptFileError(f"{key} is not a finite matrix", where=str(path))
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    for module, pair in sides.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise CorruptFileError(f"{module}: lora_A and lora_B do not fit together", where=str(path))
    if not sides:
        raise CorruptFileError(f"{path.name} holds no LoRA factors", where=str(path))
    return {module: Factors(lora_a=pair["A"], lora_b=pair["B"]) for module, pair in sides.items()}


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT LoRA folder.

    Raises:
        NotFoundError: if a file is missing.
        CorruptFileError: if a file is broken, a factor is missing or not finite, or the kind of adapter is not plain
            LoRA.
    """
    if not (folder / CONFIG).is_file():
        raise NotFoundError(f"there is no {CONFIG}", where=str(folder), hint="give the folder that PEFT saved")
    config = files.read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise CorruptFileError("the adapter is not a plain LoRA", where=str(folder / CONFIG))
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, (int, float)):
        raise CorruptFileError("lora_alpha is missing or not a number", where=str(folder / CONFIG))
    factors = _pairs(read_safetensors(folder / WEIGHTS), folder / WEIGHTS)
    own = Patterns.of(config.get("alpha_pattern"), "alpha_pattern", str(folder / CONFIG))
    return Adapter(
        base_model=str(config.get("base_model_name_or_path") or ""),
        alpha=float(alpha),
        factors=factors,
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        use_rslora=bool(config.get("use_rslora")),
        alphas={name: value for name in factors if (value := own.value(name, float(alpha))) != alpha},
    )


def weighted_sum(adapters: Sequence[Adapter], weights: Sequence[float]) -> Adapter:
    """Return the adapter whose delta-W is the weighted sum of theirs, exactly, by stacking the factors.

    Args:
        adapters: one or more adapters of one base; a module that one of them lacks is zero there.
        weights: as many numbers.

    Raises:
        ValueError: if the list is empty.
    """
    if not adapters:
        raise ValueError("no adapters to sum")
    first = adapters[0]
    factors: dict[str, Factors] = {}
    for module in dict.fromkeys(module for adapter in adapters for module in adapter.factors):
        pairs = [
            (item.factors[module], item.scaling(module) * weight)
            for item, weight in zip(adapters, weights, strict=True)
            if module in item.factors
        ]
        lora_a = torch.cat([pair.lora_a.float() for pair, _ in pairs])  # (sum of r, in)
        lora_b = torch.cat([pair.lora_b.float() * scale for pair, scale in pairs], dim=1)  # (out, sum of r)
        factors[module] = Factors(lora_a=lora_a, lora_b=lora_b)
    rank = max(item.rank for item in factors.values())
    return at_rank(Adapter(first.base_model, float(rank), factors, fan_in_fan_out=first.fan_in_fan_out), rank)


def at_rank(adapter: Adapter, rank: int) -> Adapter:
    """Return an adapter whose delta-W is ``lora_b @ lora_a``, with all modules at one rank, filled up with zeros.

    Args:
        adapter: one whose factors hold all of delta-W: each module's scaling would be 1 at its own rank.
        rank: no less than any module's; it becomes alpha too.
    """
    whole = {module: _padded(item, rank) for module, item in adapter.factors.items()}
    return Adapter(adapter.base_model, float(rank), whole, fan_in_fan_out=adapter.fan_in_fan_out)


def _padded(item: Factors, rank: int) -> Factors:
    """Return factors of the given rank, with rows and columns of zeros where there were fewer."""
    missing = rank - item.rank
    if missing == 0:
        return item
    pad = torch.nn.functional.pad
    return Factors(lora_a=pad(item.lora_a, (0, 0, 0, missing)), lora_b=pad(item.lora_b, (0, missing)))


def average(adapters: Sequence[Adapter]) -> Adapter:
    """Return the adapter whose delta-W is the mean of theirs ("model soup").

    Raises:
        ValueError: if the list is empty.
    """
    return weighted_sum(adapters, [1.0 / max(1, len(adapters))] * len(adapters))
