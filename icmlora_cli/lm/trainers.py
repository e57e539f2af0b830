"""What is trained for a task: a LoRA (from zero or from another), the B of one with a seeded A, or cores in a frame.

All of them are ordinary PEFT LoRAs once they are trained.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.targets import target_layout, target_modules
from icmlora_cli.lm.task_training import TrainedAdapter
from icmlora_cli.weights.adapter import Adapter, Factors, config_dict
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.weights.merge import check_fits
from icmlora_cli.weights.seeds import named_source

PEFT_NAME = "base_model.model.{}.lora_{}.default.weight"  # of a module's A or B, as PEFT names the parameter


class AdapterTrainer(TrainedAdapter, Protocol):
    """The base with one adapter on it, which is set anew for each task."""

    @property
    def loaded(self) -> LoadedBase:
        """The frozen base."""

    @property
    def model(self) -> torch.nn.Module:
        """The base with the adapter, for forward passes."""

    def close(self) -> None:
        """Take the adapter off, which leaves the base as it was."""


def make_trainer(loaded: LoadedBase, recipe: HarvestRecipe) -> AdapterTrainer:
    """Return the trainer of the recipe's parametrization.

    Raises:
        UsageError: if the recipe's target modules are not in the base.
    """
    return FrameTrainer(loaded, recipe) if recipe.parametrization == "frame" else LoraTrainer(loaded, recipe)


@contextmanager
def trainer_of(loaded: LoadedBase, recipe: HarvestRecipe) -> Iterator[AdapterTrainer]:
    """Yield a trainer, and take its adapter off afterwards."""
    trainer = make_trainer(loaded, recipe)
    try:
        yield trainer
    finally:
        trainer.close()


@dataclass
class LoraTrainer:
    """The base with one PEFT LoRA on it; with ``frozen-a``, ``lora_A`` keeps the values of the seed.

    Args:
        loaded: the frozen base.
        recipe: how to train.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    model: PeftModel = field(init=False)
    parameters: dict[str, torch.nn.Parameter] = field(init=False)
    fan_in_fan_out: bool = field(init=False)

    def __post_init__(self) -> None:
        """Put the LoRA on the base and draw its first values from the recipe's seed."""
        endings = target_modules(self.loaded.model, self.recipe.target_modules)
        leaves = {name.rsplit(".", 1)[-1]: type(module).__name__ for name, module in self.loaded.model.named_modules()}
        self.fan_in_fan_out = any(leaves.get(ending.rsplit(".", 1)[-1]) == "Conv1D" for ending in endings)
        config = LoraConfig(
            r=self.recipe.rank,
            lora_alpha=self.recipe.alpha,
            target_modules=list(endings),
            lora_dropout=0.0,
            bias="none",
            task_type=self.loaded.family.task_type,
            fan_in_fan_out=self.fan_in_fan_out,
        )
        self.model = _with_lora(self.loaded, config)
        self._all = {name: item for name, item in self.model.named_parameters() if item.requires_grad}
        if self.recipe.parametrization == "frozen-a":
            for name, parameter in self._all.items():
                parameter.requires_grad_(".lora_B." in name)
        self.parameters = {name: item for name, item in self._all.items() if item.requires_grad}

    def close(self) -> None:
        """Take the LoRA off, which leaves the base as it was."""
        self.model.unload()

    def reset(self) -> None:
        """Set lora_A to the values that the recipe's seed gives for every task, and lora_B to zero."""
        lora_start(self._all, self.recipe.seed)

    def adapter(self) -> Adapter:
        """Return a copy of the LoRA as it is now, fp32 on the CPU."""
        factors = _factors(self._all)
        return Adapter(self.loaded.base.model_id, self.recipe.alpha, factors, fan_in_fan_out=self.fan_in_fan_out)


@torch.no_grad()
def lora_start(parameters: Mapping[str, torch.nn.Parameter], seed: int) -> None:
    """Set each lora_A to the values that a seed gives for every task, and each lora_B to zero.

    Args:
        parameters: The parameters by PEFT's names.
        seed: The recipe's seed.
    """
    for name, parameter in parameters.items():
        if ".lora_B." in name:
            parameter.zero_()
            continue
        source = named_source(seed, name)
        bound = 1.0 / math.sqrt(parameter.shape[1])  # as PEFT's kaiming_uniform_(a=sqrt(5))
        parameter.copy_(torch.rand(parameter.shape, generator=source) * 2 * bound - bound)


def core_squares(frame: Codec, cores: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the mean squared gradient of each module's core, fp32 [R, R], as Adam estimates it.

    Args:
        frame: The frame of the cores.
        cores: The cores, [1, modules, R, R].
        optimizer: The Adam that has trained them for a step or more.
    """
    squares: torch.Tensor = optimizer.state[cores]["exp_avg_sq"]
    return {item.name: _copy(square) for item, square in zip(frame.layout.modules, squares[0], strict=True)}


def _with_lora(loaded: LoadedBase, config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what PEFT still calls in transformers
        return get_peft_model(loaded.model, config)


def _place(name: str) -> tuple[str, str]:
    """Return the module of a parameter of PEFT's, and the name of its factor here: ``lora_a`` or ``lora_b``."""
    module, side, _ = re.split(r"\.(lora_[AB])\.", name.removeprefix("base_model.model."))
    return module, side.lower()


def _factors(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Factors]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, item in parameters.items():
        module, side = _place(name)
        sides.setdefault(module, {})[side] = _copy(item)
    return {module: Factors(**pair) for module, pair in sides.items()}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu().clone()


LIKE = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "use_rslora")


@dataclass
class ContinuedTrainer:
    """The base with a given LoRA on it, of which A and B are trained on: its modules, ranks and scalings stay.

    Args:
        loaded: the frozen base.
        recipe: how to train; its rank, alpha, target modules and parametrization do not count.
        start: where it starts.

    Raises:
        CorruptFileError: if the LoRA does not fit the base.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    start: Adapter
    model: PeftModel = field(init=False)
    parameters: dict[str, torch.nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        """Put the given LoRA on the base."""
        check_fits(self.loaded.model, self.start)
        given = config_dict(self.start)
        config = LoraConfig(task_type=self.loaded.family.task_type, **{name: given[name] for name in LIKE})
        self.model = _with_lora(self.loaded, config)
        self.parameters = {name: item for name, item in self.model.named_parameters() if item.requires_grad}

    def close(self) -> None:
        """Take the LoRA off, which leaves the base as it was."""
        self.model.unload()

    def reset(self) -> None:
        """Set A and B to those that it starts from."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                module, side = _place(name)
                parameter.copy_(getattr(self.start.factors[module], side))

    def adapter(self) -> Adapter:
        """Return a copy of the LoRA as it is now, fp32 on the CPU."""
        factors = _factors(self.parameters)
        ordered = {module: factors[module] for module in self.start.factors}
        return replace(self.start, base_model=self.loaded.base.model_id, factors=ordered)


@dataclass
class FrameTrainer:
    """The base with a core in a seeded frame on each module; only the cores are trained, R x R numbers a module.

    Args:
        loaded: the frozen base.
        recipe: how to train; ``rank`` is R, ``seed`` gives the frame.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    frame: Codec = field(init=False)
    parameters: dict[str, torch.nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        """Put a core of zeros in its frame on each module."""
        layout = target_layout(self.loaded.model, self.recipe.target_modules)
        spec = FrameSpec(self.recipe.seed, self.recipe.rank)
        self.frame = seeded_frame(layout, spec, self.loaded.base.model_id)
        names = [item.name for item in layout.modules]
        width = self.frame.width
        cores = torch.nn.Parameter(torch.zeros(1, len(names), width, width, device=self.loaded.device))
        self.parameters = {"cores": cores}
        self._stack = ExitStack()
        rows = RowCores(self.loaded.model, names, self.frame.left, self.frame.right)
        self._stack.enter_context(rows.applied(cores))

    @property
    def model(self) -> torch.nn.Module:
        """The base, whose modules add their cores until the trainer is closed."""
        model: torch.nn.Module = self.loaded.model
        return model

    def close(self) -> None:
        """Take the cores off, which leaves the base as it was."""
        self._stack.close()

    def reset(self) -> None:
        """Set the cores to zero."""
        with torch.no_grad():
            self.parameters["cores"].zero_()

    def mean_squares(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Return the mean squared gradient of each module's core, fp32 [R, R], as Adam estimates it.

        Args:
            optimizer: the Adam that has trained the cores for a step or more.
        """
        return core_squares(self.frame, self.parameters["cores"], optimizer)

    def adapter(self) -> Adapter:
        """Return a copy of the adapter as it is now, fp32 on the CPU: ``lora_A`` is V, ``lora_B`` is U C."""
        return framed_adapter(self.frame, _copy(self.parameters["cores"])[0])
