"""Several adapters on one frozen base at once: the rows of each pass are of several tasks, each with its own adapter.

A pass holds as many rows of each task as of the others, one task after the other, so that a module adds to what it
gives the batched products (x A^T) B^T of all tasks (as batched LoRA serving does: Chen et al., Punica, MLSys 2024; here
with gradients). In a frame, rows have cores of their own (``lm.row_cores``). No task's numbers touch another's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import answer_log_probs
from icmlora_cli.lm.compiling import bucket, compiled
from icmlora_cli.lm.devices import upload
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.task_training import TrainedAdapter
from icmlora_cli.lm.trainers import PEFT_NAME, core_squares, lora_start
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.codec import Codec
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.weights.layout import Layout


class Slot(TrainedAdapter, Protocol):
    """One of the adapters; its parameters have the names and shapes that the trainer of a single one gives them."""

    def mean_squares(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor] | None:
        """Return the mean squared gradient of each module's core, fp32 [R, R]; None where there are no cores."""


class SideBySide(Protocol):
    """The base with several adapters."""

    @property
    def loaded(self) -> LoadedBase:
        """The frozen base."""

    @property
    def recipe(self) -> HarvestRecipe:
        """How to train."""

    @property
    def slots(self) -> Sequence[Slot]:
        """The adapters."""

    def applied(self, slots: Sequence[int], rows: int) -> AbstractContextManager[None]:
        """Return a context in which passes have ``rows`` rows of each of the slots, one slot after the other."""

    def close(self) -> None:
        """Take the adapters off, which leaves the base as it was."""


@dataclass
class _LoraSlot:
    recipe: HarvestRecipe
    layout: Layout
    base_model: str
    everything: dict[str, torch.nn.Parameter]

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return {name: item for name, item in self.everything.items() if item.requires_grad}

    def reset(self) -> None:
        lora_start(self.everything, self.recipe.seed)

    def adapter(self) -> Adapter:
        factors = {}
        for module in self.layout.modules:
            a, b = (self.everything[PEFT_NAME.format(module.name, side)] for side in "AB")
            factors[module.name] = Factors(a.detach().float().cpu().clone(), b.detach().float().cpu().clone())
        return Adapter(self.base_model, self.recipe.alpha, factors, fan_in_fan_out=self.layout.fan_in_fan_out)

    def mean_squares(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor] | None:
        return None


class LoraSlots:
    """The base with several LoRAs, of all of which A and B, or with ``frozen-a`` B alone, are trained.

    Args:
        loaded: the frozen base.
        recipe: how to train.
        count: how many LoRAs.

    Raises:
        UsageError: if the recipe's target modules are not in the base.
    """

    def __init__(self, loaded: LoadedBase, recipe: HarvestRecipe, count: int) -> None:
        """Put hooks on the modules, which add nothing until adapters are applied."""
        self.loaded, self.recipe = loaded, recipe
        self.layout = target_layout(loaded.model, recipe.target_modules)
        self.slots = [self._slot() for _ in range(count)]
        self._factors: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._stack = ExitStack()
        for index, item in enumerate(self.layout.modules):
            handle = loaded.model.get_submodule(item.name).register_forward_hook(self._hook(index))
            self._stack.callback(handle.remove)

    def _slot(self) -> _LoraSlot:
        everything: dict[str, torch.nn.Parameter] = {}
        for item in self.layout.modules:
            device = self.loaded.model.get_submodule(item.name).weight.device
            shapes = {"A": (self.recipe.rank, item.in_features), "B": (item.out_features, self.recipe.rank)}
            for side, shape in shapes.items():  # fp32, as PEFT keeps them beside a base in half precision
                parameter = torch.nn.Parameter(torch.zeros(shape, device=device))
                parameter.requires_grad_(side == "B" or self.recipe.parametrization == "lora")
                everything[PEFT_NAME.format(item.name, side)] = parameter
        return _LoraSlot(self.recipe, self.layout, self.loaded.base.model_id, everything)

    @contextmanager
    def applied(self, slots: Sequence[int], rows: int) -> Iterator[None]:
        """Add the LoRAs of the slots to the passes within the body.

        Args:
            slots: the slots whose rows are in a pass, in order.
            rows: how many rows of each; a pass of one slot alone may have any number.
        """
        self._factors = [
            (self._stacked(slots, item.name, "A"), self._stacked(slots, item.name, "B")) for item in self.layout.modules
        ]
        try:
            yield
        finally:
            self._factors = []

    def _stacked(self, slots: Sequence[int], module: str, side: str) -> torch.Tensor:
        return torch.stack([self.slots[slot].everything[PEFT_NAME.format(module, side)] for slot in slots])

    def close(self) -> None:
        """Take the LoRAs off, which leaves the base as it was."""
        self._stack.close()

    def _hook(self, index: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
        scaling = self.recipe.alpha / self.recipe.rank

        def add(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if not self._factors:
                return output
            a, b = self._factors[index]  # (N, r, in), (N, out, r)
            x = args[0].to(a.dtype).reshape(len(a), -1, a.shape[2])  # (N, rows * T, in)
            update = torch.bmm(torch.bmm(x, a.transpose(1, 2)), b.transpose(1, 2)) * scaling  # (N, rows * T, out)
            return (output + update.reshape(output.shape)).to(output.dtype)

        return add


@dataclass
class _CoreSlot:
    recipe: HarvestRecipe
    frame: Codec
    parameters: dict[str, torch.nn.Parameter]

    def reset(self) -> None:
        with torch.no_grad():
            self.parameters["cores"].zero_()

    def adapter(self) -> Adapter:
        return framed_adapter(self.frame, self.parameters["cores"].detach().float().cpu().clone()[0])

    def mean_squares(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor] | None:
        return core_squares(self.frame, self.parameters["cores"], optimizer)


@dataclass
class FrameSlots:
    """The base with the cores of several tasks in one seeded frame.

    Args:
        loaded: the frozen base.
        recipe: how to train; ``rank`` is R, ``seed`` gives the frame.
        count: how many tasks.

    Raises:
        UsageError: if the recipe's target modules are not in the base.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    count: int
    slots: list[_CoreSlot] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the frame and make cores of zeros."""
        layout = target_layout(self.loaded.model, self.recipe.target_modules)
        frame = seeded_frame(layout, FrameSpec(self.recipe.seed, self.recipe.rank), self.loaded.base.model_id)
        names, width, device = [item.name for item in layout.modules], frame.width, self.loaded.device
        self.slots = [
            _CoreSlot(
                self.recipe,
                frame,
                {"cores": torch.nn.Parameter(torch.zeros(1, len(names), width, width, device=device))},
            )
            for _ in range(self.count)
        ]
        self._rows = RowCores(self.loaded.model, names, frame.left, frame.right)

    @contextmanager
    def applied(self, slots: Sequence[int], rows: int) -> Iterator[None]:
        """Add the cores of the slots to the passes within the body, as ``LoraSlots.applied`` does with LoRAs."""
        cores = torch.cat([self.slots[slot].parameters["cores"] for slot in slots])  # (N, modules, R, R)
        with self._rows.applied(cores if len(slots) == 1 else cores.repeat_interleave(rows, dim=0)):
            yield

    def close(self) -> None:
        """Do nothing: cores are on the base only while they are applied."""


def make_slots(loaded: LoadedBase, recipe: HarvestRecipe, count: int) -> SideBySide:
    """Return several adapters of the recipe's parametrization on one base.

    Args:
        loaded: the frozen base.
        recipe: how to train.
        count: how many adapters.

    Raises:
        UsageError: if the recipe packs rows, or its target modules are not in the base.
    """
    if recipe.packing:
        raise UsageError(
            "packing puts the rows of one task in a sequence, and several tasks are to share a pass",
            hint="--tasks-per-batch 1, or packing: false in the harvest recipe",
        )
    kind = FrameSlots if recipe.parametrization == "frame" else LoraSlots
    return kind(loaded, recipe, count)


class SharedPasses:
    """The passes of the steps of several adapters.

    Args:
        side: the base with the adapters.
    """

    def __init__(self, side: SideBySide) -> None:
        """Compile the base, where the recipe says so, once its first pass is run."""
        self.side = side
        self._model = compiled(side.loaded.model, on=side.recipe.compile)

    def gradients(self, batches: Mapping[int, Sequence[Encoded]]) -> dict[int, torch.Tensor]:
        """Give each adapter the gradients of its own task's loss, and return the losses, nats per answer token.

        Where memory does not suffice for the rows of a pass, each task's go through the base in several.

        Args:
            batches: The rows of a task's next step by its slot; each loss is the mean over all tokens of the answers of
                its own rows, as it is for a task alone.

        Raises:
            DeviceMemoryError: If memory does not suffice for one row of each task.
        """
        recipe = self.side.recipe
        longest = recipe.batch_size if recipe.compile else max(map(len, batches.values()))
        limit = min(recipe.micro_batch or longest, longest)
        work = f"training of {len(batches)} tasks"
        return self.side.loaded.micro_batch.whole(work, limit, lambda size: self._gradients(batches, longest, size))

    def _gradients(self, batches: Mapping[int, Sequence[Encoded]], longest: int, size: int) -> dict[int, torch.Tensor]:
        loaded, recipe = self.side.loaded, self.side.recipe
        slots = range(len(self.side.slots)) if recipe.compile else list(batches)  # all of them: the shapes stay
        for slot in slots:
            for parameter in self.side.slots[slot].parameters.values():
                parameter.grad = None
        given = [batches.get(slot, ()) for slot in slots]
        tokens = [max(1, sum(len(row.answer_ids) for row in rows)) for rows in given]
        totals = torch.zeros(len(given), device=loaded.device)
        for start in range(0, longest, size):
            parts = [rows[start : start + size] for rows in given]
            nothing = replace(next(row for rows in given for row in rows), answer_ids=())  # nothing is learned of it
            filled = [row for part in parts for row in (*part, *[nothing] * (size - len(part)))]
            batch = loaded.batch(filled, size=bucket if recipe.compile else int)
            with self.side.applied(list(slots), size):
                log_probs, _ = answer_log_probs(self._model, batch)
                counts = upload(torch.tensor(tokens), log_probs.device)
                losses = -log_probs.reshape(len(given), -1).sum(1) / counts  # (slots,)
                losses.sum().backward()  # within: checkpointed blocks run again
            totals = totals + losses.detach().to(totals.device)
        return {slot: loss for slot, loss in zip(slots, totals.unbind(), strict=True) if slot in batches}
