"""What each phase takes: its passes are run on torch's meta device, with the very code that trains."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.generator.networks import build
from icmlora_cli.lm.batching import TokenBatch
from icmlora_cli.lm.checkpointing import checkpointed
from icmlora_cli.lm.cost import META, PassCost, meta_rows, pass_cost, reading_cost, training_cost, weight_bytes
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.load_options import BITS
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.weights.layout import Layout
from icmlora_cli.workflows.train.training import network_config

FLOAT = 4  # bytes of an fp32 number
MOMENTS = 2 * FLOAT  # bytes that AdamW keeps of each number that is trained
TEXTS = 3  # descriptions of a task that are read, about
STATE = 2  # bytes of a number in a reading, which is kept in half precision


@dataclass(frozen=True)
class PlanOptions:
    """What a plan takes for granted.

    Args:
        tasks: The number of tasks.
        tokens: The tokens of the longest rows, padding and answer among them.
        answer: The tokens of the longest answers.
        device_memory: The bytes of the device's memory.
        dtype: The name of the base's dtype.
        tflops: What the device computes at its best in that dtype, in TFLOP/s.
        utilisation: The share of it that is reached, 0 to 1.
    """

    tasks: int
    tokens: int
    answer: int
    device_memory: int
    dtype: str
    tflops: float
    utilisation: float

    @property
    def room(self) -> int:
        """The bytes that may be used: nine tenths, since driver, allocator and gaps between tensors take the rest."""
        return self.device_memory * 9 // 10

    def hours(self, flops: float) -> float:
        """Return how many hours so many floating-point operations take."""
        return flops / (self.tflops * 1e12 * self.utilisation) / 3600


@dataclass(frozen=True)
class Phase:
    """What one of harvest, training and generation takes.

    Args:
        name: ``harvest``, ``train`` or ``gen``.
        numbers: How many numbers are trained; of ``gen``, how many the generator has.
        rows: How many rows go through the base at once.
        weights: The bytes of the base's weights.
        cores: The bytes of what stands beside the base: a LoRA, or a frame and its cores; of ``train`` and ``gen`` also
            the generator, and the adapters that it learns from or makes.
        optimiser: The bytes of gradients and of AdamW's moments.
        activations: The most bytes that a pass holds at once.
        readings: The bytes of hidden states that a training keeps in main memory, beside those of the device.
        flops: The floating-point operations of the whole phase; of ``gen``, of one adapter.
        hours: How long they take.
        fits: Whether the device's memory suffices.
        most_rows: How many rows at once would fit; 0 where not even one does.
    """

    name: str
    numbers: int
    rows: int
    weights: int
    cores: int
    optimiser: int
    activations: int
    readings: int
    flops: float
    hours: float
    fits: bool
    most_rows: int

    @property
    def bytes(self) -> int:
        """The bytes that the device has to hold at once."""
        return self.weights + self.cores + self.optimiser + self.activations


@dataclass(frozen=True)
class _Held:
    """The bytes of a phase that do not depend on how many rows go through the base at once."""

    cores: int
    optimiser: int
    other: int = 0


class Planner:
    """Finds out what the phases take on a base.

    Args:
        loaded: The base, on the meta device.
        harvest: How adapters are harvested.
        train: How the generator is trained.
        options: What the plan takes for granted.

    Raises:
        UsageError: If the recipes' target modules are not in the base.
    """

    def __init__(self, loaded: LoadedBase, harvest: HarvestRecipe, train: TrainRecipe, options: PlanOptions) -> None:
        """Find the modules and build the generator's networks."""
        self.loaded, self.harvest, self.train, self.options = loaded, harvest, train, options
        self.weights = weight_bytes(loaded)
        learned = train.episodes is None and harvest.parametrization != "frame"
        framed = train.data.basis == "frame" or (train.data.basis == "auto" and not learned)
        wanted = harvest.target_modules if train.episodes is None else train.data.target_modules
        self.layout: Layout = target_layout(loaded.model, wanted)
        if not framed:
            self.width = train.data.max_width  # at most: the adapters' energy decides
        else:
            self.width = harvest.rank if harvest.parametrization == "frame" else train.data.frame_width
        self.hidden = int(loaded.model.config.get_text_config().hidden_size)
        sizes = network_config(
            train.network, self.layout, width=self.width, framed=framed, hidden=self.hidden, harvested=options.tasks
        )
        with torch.random.fork_rng(devices=[]):
            self.network = build(sizes)
        self.generator = sum(item.numel() for item in self.network.parameters())

    def harvesting(self) -> Phase:
        """Return what the harvest of all tasks takes."""
        recipe, tasks = self.harvest, self.options.tasks
        micro = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)
        layout = target_layout(self.loaded.model, recipe.target_modules)
        sides = recipe.rank * sum(item.in_features + item.out_features for item in layout.modules)
        on = recipe.gradient_checkpointing
        with trainer_of(self.loaded, recipe) as trainer, checkpointed(self.loaded.model, on=on):
            numbers = sum(item.numel() for item in trainer.parameters.values())
            model = trainer.model
            passes = {rows: training_cost(model, self._rows(rows)) for rows in {1, micro}}
        frame = recipe.parametrization == "frame"
        cores = sides * self.loaded.dtype.itemsize + numbers * FLOAT if frame else sides * FLOAT
        step = passes[micro].flops * recipe.batch_size / micro
        flops = tasks * (recipe.steps * step + recipe.validate_on * self._reading.flops)
        held = _Held(cores, passes[micro].gradients + MOMENTS * numbers)
        bits = None if recipe.quantise is None else BITS[recipe.quantise]
        return self._phase("harvest", numbers, passes, held, flops, weights=weight_bytes(self.loaded, bits=bits))

    def training(self) -> Phase:
        """Return what the training of a generator takes, from the reading of its tasks to the last step."""
        recipe, tasks, episodes = self.train, self.options.tasks, self.train.episodes
        vectors = recipe.data.vectors
        steps = recipe.optimiser.resolved(tasks * self.harvest.keep).steps
        core = len(self.layout.modules) * self.width**2 * FLOAT
        texts, demonstrations = TEXTS, vectors.draws
        states = self.options.tokens if vectors.pooling == "tokens" else 1
        readings = tasks * (texts + demonstrations) * states * self.hidden * STATE
        flops = float(tasks) * (texts + demonstrations * vectors.shots) * self._reading.flops
        optimiser = (FLOAT + MOMENTS) * self.generator
        if episodes is None or not episodes.weight:
            network = self._network(recipe.optimiser.batch_size)
            kept = tasks * self.harvest.keep * core
            flops += 2.0 * steps * network.flops  # the encoder has about as many products as the decoder
            held = _Held(FLOAT * self.generator + kept, optimiser, network.activations)
            passes = {1: replace(self._reading, gradients=0)}
            return replace(self._phase("train", self.generator, passes, held, flops), readings=readings)
        micro = min(episodes.micro_batch or episodes.rows, episodes.rows)
        network = self._network(episodes.rows)
        with checkpointed(self.loaded.model, on=episodes.gradient_checkpointing):
            passes = {rows: self._episode(rows) for rows in {1, micro}}
        sides = self.width * sum(item.in_features + item.out_features for item in self.layout.modules)
        # the cores that the generator gives, the same scaled, their gradient, and the leaf of the pass
        cores = FLOAT * self.generator + sides * self.loaded.dtype.itemsize + 4 * episodes.rows * core
        through_base = (2 if episodes.swap_weight else 1) * passes[micro].flops * episodes.rows / micro
        flops += max(0, steps - recipe.optimiser.pretrain_steps) * (through_base + network.flops)
        held = _Held(cores, optimiser, network.activations)
        return replace(self._phase("train", self.generator, passes, held, flops), readings=readings)

    def generating(self) -> Phase:
        """Return what the adapter of one text takes."""
        network = self._network(1, backward=False)
        sides = self.width * sum(item.in_features + item.out_features for item in self.layout.modules)
        held = _Held(FLOAT * (self.generator + sides), 0, network.activations)
        flops = float(self._reading.flops + network.flops)
        return self._phase("gen", self.generator, {1: self._reading}, held, flops)

    def _phase(
        self,
        name: str,
        numbers: int,
        passes: dict[int, PassCost],
        held: _Held,
        flops: float,
        *,
        weights: int | None = None,
    ) -> Phase:
        """Return a phase whose passes of 1 row, and of as many as the recipe says, take so much."""
        rows = max(passes)
        weights = self.weights if weights is None else weights
        room = self.options.room - weights - held.cores - held.optimiser - held.other
        first, last = passes[1].activations, passes[rows].activations
        each = max(1, (last - first) // (rows - 1) if rows > 1 else first)
        return Phase(
            name=name,
            numbers=numbers,
            rows=rows,
            weights=weights,
            cores=held.cores,
            optimiser=held.optimiser,
            activations=last + held.other,
            readings=0,
            flops=flops,
            hours=self.options.hours(flops),
            fits=room >= last,
            most_rows=0 if room < first else 1 + (room - first) // each,
        )

    @cached_property
    def _reading(self) -> PassCost:
        return reading_cost(self.loaded.model, self._rows(1))

    def _rows(self, rows: int) -> TokenBatch:
        tokens = min(self.options.tokens, self.harvest.max_length or self.options.tokens)
        return meta_rows(self.loaded, rows=rows, tokens=tokens, answer=min(self.options.answer, tokens - 1))

    def _network(self, rows: int, *, backward: bool = True) -> PassCost:
        """Return what it takes to decode the latents of some rows, with a backward pass or without.

        The networks are small, and are run with one row and with data, on which their indices depend.
        """
        z, c = torch.zeros(1, self.train.network.latent_dim), torch.zeros(1, self.network.reader.size)

        def run() -> None:
            with torch.set_grad_enabled(backward):
                cores = self.network.decode(z, c)
                if backward:
                    torch.autograd.backward(cores.sum())

        cost = pass_cost(run)
        self.network.zero_grad(set_to_none=True)
        return PassCost(rows * cost.activations, cost.gradients, rows * cost.flops)

    def _episode(self, rows: int) -> PassCost:
        """Return what queries take through the base and back, each with a core of its own."""
        modules = self.layout.modules
        left = [torch.zeros(item.out_features, min(self.width, item.out_features), device=META) for item in modules]
        right = [torch.zeros(min(self.width, item.in_features), item.in_features, device=META) for item in modules]
        row_cores = RowCores(self.loaded.model, [item.name for item in modules], left, right)
        cores = torch.zeros(rows, len(modules), self.width, self.width, device=META, requires_grad=True)
        with row_cores.applied(cores):
            return training_cost(self.loaded.model, self._rows(rows))
