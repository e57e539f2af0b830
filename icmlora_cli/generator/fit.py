"""Training a generator: in stages, resumable, and repeatable by its seed; the best weights by validation are kept.

The architecture decides what is minimised on harvested adapters, and in which stages (``Network.losses``,
``Network.stages``). Whatever else is minimised, such as episodes through a base model, is passed in as further terms.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from icmlora_cli.config.train import ObjectiveRecipe, OptimiserRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.conditions import Support
from icmlora_cli.generator.interface import Network, TrainStep
from icmlora_cli.generator.noise import AtOnce, all_at_once
from icmlora_cli.generator.plateau import Plateau
from icmlora_cli.generator.terms import ElboTerm, Term, TrainingData
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.schedules import set_rate, warm_constant, warm_cosine
from icmlora_cli.weights.training_state import load_state, save_state

CURVE = "curve"  # the name of the training curve in the training state
STAGES, PLATEAU = "stages", "plateau"  # the steps of each stage, and how flat its loss is, in the training state
BEST = "best."  # what the names of the best weights begin with in the training state
REMEMBER = 25  # steps after which a prior of neighbours reads the training tasks again, since the reader changes


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step of training, for progress display and the training curve.

    Args:
        step: how many steps are done, this one included.
        values: the losses by name. Those of CVAEs are ``reconstruction``, relative to predicting zero, and ``kl``, in
            nats per latent number. Those of P-DIFF are ``reconstruction`` in its first stage and ``diffusion`` (the
            MSE of unit noise) in its second. Further terms add their losses. A step after which the weights were
            validated adds the score ``validation``, and one after which they were watched the figures of ``Watch``.
            ``flat``, which is 1, says that the loss was flat after this step, so that a stage ended.
        steps: how many steps there are in all, at most.
    """

    step: int
    values: Mapping[str, float]
    steps: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Validation:
    """How the best weights of a training are found.

    Args:
        every: the number of steps between two validations.
        score: the function that scores the networks, which are then in eval mode and without gradients; higher is
            better.
        from_stage: the index of the first stage in which the weights are validated.
    """

    every: int
    score: Callable[[Network], float]
    from_stage: int = 0


@dataclass(frozen=True)
class Watch:
    """Figures of a training that decide nothing, and change nothing; they go into the curve beside the losses.

    Args:
        every: the number of steps between two looks; there is one after the last step too.
        figures: the function that returns the figures of the networks by name, in eval mode and without gradients.
        from_stage: the index of the first stage in which the networks are looked at.
    """

    every: int
    figures: Callable[[Network], Mapping[str, float]]
    from_stage: int = 0


@dataclass(frozen=True)
class FitOptions:
    """The settings of a run of ``fit`` beyond data, objective and optimiser.

    Args:
        state: the file in which the training state is saved.
        key: the identity of this training; a saved state with another key is not resumed.
        on_step: the function that is called with the losses after each step.
        seed: the seed of the order of the data and of the noise.
        reduce: the function that averages the gradients over processes; None if there is one process alone.
        keeps_state: whether this process writes the training state.
        meter: the meter of the time and energy spent, whose figures are saved in the training state.
        at_once: runs a step on harvested adapters on as many rows at once as memory suffices for.
    """

    state: Path
    key: str
    on_step: Callable[[StepLosses], None]
    seed: int = 0
    reduce: Callable[[Sequence[torch.nn.Parameter]], None] | None = None
    keeps_state: bool = True
    meter: CostMeter = field(default_factory=CostMeter)
    at_once: AtOnce = all_at_once


def fit(
    model: Network,
    data: TrainingData,
    objective: ObjectiveRecipe,
    optimiser: OptimiserRecipe,
    options: FitOptions,
    *,
    terms: Sequence[Term] = (),
    validation: Validation | None = None,
    watch: Watch | None = None,
) -> tuple[StepLosses, ...]:
    """Train the networks over all tasks jointly, from the saved state if there is one with this run's key.

    Args:
        model: the initialised networks, on the device to train on. They end with the best weights by validation, or
            with the last ones if there is no validation.
        data: the harvested tasks; there may be none.
        objective: the weights of the parts of the loss on harvested adapters.
        optimiser: the steps and the learning rates; epochs are counted in ``steps``, as ``resolved`` does.
        options: the seed, the file of the saved state, and the function that is called after each step.
        terms: what is minimised beside the architecture's loss on harvested adapters.
        validation: how the best weights are found; None keeps the last ones.
        watch: what is watched beside the losses; None watches nothing.

    Returns:
        The losses of every tenth step, of the last one, and of those after which there was a validation or a look, or
        a stage ended since its loss was flat; those of the steps before an interruption too.

    Raises:
        TrainingDivergedError: If a loss, its gradient or a validation score is not finite; the last saved state stays
            on disk.
    """
    elbo = _elbo(model, data, objective, optimiser, options, alone=not terms)
    run = _Fit(model, data, optimiser, options, [*elbo, *terms])
    step = run.resume()
    while step < sum(run.stages):
        train_step = run.begin(step)
        values = run.learn(train_step, step)
        if run.is_flat(train_step, values):
            values["flat"] = 1.0
        last = step + 1 == sum(run.stages)
        due = validation is not None and ((step + 1) % validation.every == 0 or last)
        if due or last:
            run.remember(False)
        if validation is not None and due and train_step.stage >= validation.from_stage:
            values["validation"] = run.validate(validation, step)
        looked = watch is not None and ((step + 1) % watch.every == 0 or last)
        if watch is not None and looked and train_step.stage >= watch.from_stage:
            values |= run.look(watch)
        losses = StepLosses(step + 1, values, sum(run.stages))
        options.on_step(losses)
        if losses.step % 10 == 0 or last or looked or not values.keys().isdisjoint(("validation", "flat")):
            run.curve.append(losses)
        if losses.step % optimiser.save_every == 0 and not last and options.keeps_state:
            run.save(losses.step)
        step += 1
    if run.best.weights:
        model.load_state_dict(run.best.weights)
    return tuple(run.curve)


def _elbo(
    model: Network,
    data: TrainingData,
    objective: ObjectiveRecipe,
    optimiser: OptimiserRecipe,
    options: FitOptions,
    *,
    alone: bool,
) -> list[Term]:
    """Return the term of the harvested adapters in a list, which is empty if there are no adapters.

    Its weight is 1 if it is the only term or in the stage before episodes, and the recipe's ``elbo_weight`` otherwise.
    """
    if not data.tasks:
        return []
    before = [1.0] if optimiser.pretrain_steps else []
    weights = [1.0] if alone else [*before, objective.elbo_weight]
    tokens = data.tokens().to(next(model.parameters()).device)
    term = ElboTerm.of(data, tokens, objective, optimiser.batch_size, *weights)
    order = None if optimiser.epochs is None else options.seed
    return [replace(term, order=order, at_once=options.at_once)]


class _Fit:
    """The state of a training between two steps: weights, optimizer, random numbers, best weights and curve so far."""

    def __init__(
        self,
        model: Network,
        data: TrainingData,
        optimiser: OptimiserRecipe,
        options: FitOptions,
        terms: Sequence[Term],
    ) -> None:
        self.model = model
        self.optimiser = optimiser
        self.options = options
        self.terms = terms
        self.tokens = data.tokens().to(next(model.parameters()).device)
        self.rng = torch.Generator().manual_seed(options.seed)
        self.parameters = list(model.parameters())
        self.adamw = torch.optim.AdamW(self.parameters, lr=optimiser.learning_rate, weight_decay=optimiser.weight_decay)
        self.saved = model.state_dict(keep_vars=True)
        self.best = _Best()
        self.curve: list[StepLosses] = []
        self.stages = list(model.stages(optimiser))  # their steps; a stage that ends early becomes shorter
        self.stage: int | None = None
        self.plateau = self._plateau()
        self.remember = _rememberer(model, data)

    def resume(self) -> int:
        """Load the saved state, if there is one with this run's key, and return how many steps are done."""
        resumed = load_state(self.options.state, self.saved, self.adamw, identity=self.options.key)
        if resumed is None:
            self.model.start(self.tokens)
            self.remember(True)
            return 0
        self.options.meter.resume(resumed.cost)
        self.rng.set_state(resumed.extra["source"])
        self.best = _Best.of(resumed.extra)
        if CURVE in resumed.extra:  # states of earlier versions have none
            self.curve = _curve_of(resumed.extra[CURVE])
        if STAGES in resumed.extra:
            self.stages = resumed.extra[STAGES].tolist()
            self.plateau = Plateau.of(self.plateau.window, resumed.extra[PLATEAU])
        return resumed.step

    def _plateau(self) -> Plateau:
        """Return a plateau at the start of a stage."""
        return Plateau((self.optimiser.patience or 1) * self.optimiser.epoch_steps(len(self.tokens)))

    def begin(self, step: int) -> TrainStep:
        """Prepare for a step, and for its stage if this run enters one; return where the step falls."""
        train_step = _train_step(step, self.stages)
        if train_step.stage != self.stage:
            self.stage = train_step.stage
            self.model.begin(self.stage, self.tokens)
            if not train_step.step:
                self.adamw.state.clear()  # moments of one stage would make the next one's first steps huge
                self.plateau = self._plateau()
        if step % REMEMBER == 0:
            self.remember(False)
        return train_step

    def learn(self, train_step: TrainStep, step: int) -> dict[str, float]:
        """Take one step of the optimiser, and return the losses that its gradients come from, by name.

        Raises:
            TrainingDivergedError: If a loss or the gradient is not finite.
        """
        self.adamw.zero_grad(set_to_none=True)  # None, not 0: networks of other stages then stay as they are
        losses: dict[str, torch.Tensor] = {}
        for term in self.terms:
            losses |= term.backward(self.model, train_step, self.rng)
        if self.options.reduce is not None:
            self.options.reduce(self.parameters)  # what is not finite in one process is then so in every one
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        *read, size = torch.stack([*losses.values(), norm]).tolist()  # all at once: the host waits here, and only here
        values = dict(zip(losses, read, strict=True))
        if not all(math.isfinite(value) for value in (*read, size)):
            raise TrainingDivergedError(
                f"the loss or its gradient is not finite at step {step + 1}",
                hint="lower learning_rate in the train recipe",
            )
        set_rate(self.adamw, self._rate(train_step))
        self.adamw.step()
        return values

    def _rate(self, train_step: TrainStep) -> float:
        """Return the learning rate of a step."""
        peak = _peak(self.optimiser, train_step)
        if self.optimiser.patience is None:
            return warm_cosine(train_step.step, train_step.steps, peak)
        rising = self.optimiser.epoch_steps(len(self.tokens))
        return warm_constant(train_step.step, rising, peak) * self.plateau.factor

    def is_flat(self, train_step: TrainStep, values: Mapping[str, float]) -> bool:
        """Return whether the loss is flat after a step, by the recipe's ``patience``; its stage then ends with it."""
        if self.optimiser.patience is None:
            return False
        flat = self.plateau.add(values["diffusion" if "diffusion" in values else "reconstruction"])
        if flat:
            self.stages[train_step.stage] = train_step.step + 1
        return flat

    @torch.no_grad()
    def validate(self, validation: Validation, step: int) -> float:
        """Return the validation score of the present weights, and keep a copy of them if it is the best so far.

        Raises:
            TrainingDivergedError: If the score is not finite.
        """
        self.model.eval()
        score = validation.score(self.model)
        self.model.train()
        if not math.isfinite(score):
            raise TrainingDivergedError(
                f"the validation score is not finite at step {step + 1}",
                hint="lower learning_rate in the train recipe",
            )
        self.best.offer(score, self.model)
        return score

    @torch.no_grad()
    def look(self, watch: Watch) -> dict[str, float]:
        """Return the figures of the present weights by name; those that are not finite are left out."""
        self.model.eval()
        found = watch.figures(self.model)
        self.model.train()
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def save(self, step: int) -> None:
        """Save the training state; ``step`` is how many steps are done."""
        extra = {"source": self.rng.get_state(), CURVE: _as_bytes(self.curve)} | self.best.extra()
        extra |= {STAGES: torch.tensor(self.stages), PLATEAU: self.plateau.numbers()}
        identity, cost = self.options.key, self.options.meter.figures()
        save_state(self.options.state, self.saved, self.adamw, step=step, identity=identity, extra=extra, cost=cost)


def _as_bytes(curve: Sequence[StepLosses]) -> torch.Tensor:
    """Return a training curve as the bytes of its JSON, uint8 [bytes]; its numbers are read back as they are."""
    raw = json.dumps([[losses.step, dict(losses.values)] for losses in curve]).encode()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _curve_of(raw: torch.Tensor) -> list[StepLosses]:
    """Return the training curve that ``_as_bytes`` made into bytes."""
    return [StepLosses(step, values) for step, values in json.loads(bytes(raw.tolist()))]


def _peak(optimiser: OptimiserRecipe, train_step: TrainStep) -> float:
    """Return the peak of the learning rate in the stage that a step is in."""
    pretraining = optimiser.pretrain_steps and train_step.stage == 0
    return optimiser.pretrain_rate if pretraining and optimiser.pretrain_rate is not None else optimiser.learning_rate


def _train_step(step: int, stages: Sequence[int]) -> TrainStep:
    """Return where a step falls.

    Args:
        step: how many steps are done before it, over all stages.
        stages: the number of steps of each stage.
    """
    stage, first = 0, 0
    while step >= first + stages[stage]:
        first += stages[stage]
        stage += 1
    return TrainStep(stage, step - first, stages[stage])


@dataclass
class _Best:
    """The best weights so far by validation, and their score."""

    score: float = -math.inf
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, score: float, model: Network) -> None:
        """Copy the network's weights if the score is higher than the best so far."""
        if score > self.score:
            self.score = score
            self.weights = {name: item.detach().clone() for name, item in model.state_dict().items()}

    def extra(self) -> dict[str, torch.Tensor]:
        """Return the weights and the score as named tensors for the training state."""
        weights = {f"{BEST}{name}": item for name, item in self.weights.items()}
        return weights | {"best_score": torch.tensor(self.score, dtype=torch.float64)}

    @classmethod
    def of(cls, extra: Mapping[str, torch.Tensor]) -> "_Best":
        """Return the weights and the score that ``extra`` wrote into a training state."""
        weights = {name.removeprefix(BEST): item for name, item in extra.items() if name.startswith(BEST)}
        return cls(float(extra["best_score"]), weights)


def _rememberer(model: Network, data: TrainingData) -> Callable[[bool], None]:
    """Return a function that lets a prior of neighbours read the training tasks; for other priors it does nothing.

    Its argument says whether this is the first time, when the demonstrations are read as well as the descriptions.
    """
    if not model.config.remembered:
        return lambda first: None
    space = data.space
    texts = [Support.stack([space.support(item, None) for item in task.texts]) for task in data.tasks]
    demonstrations = [
        Support.stack([space.support(None, item) for item in task.demonstrations]) if len(task.demonstrations) else None
        for task in data.tasks
    ]
    return lambda first: model.remember(texts, demonstrations if first else None)
