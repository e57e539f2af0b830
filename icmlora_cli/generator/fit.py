"""Training a generator: in stages, resumable, exact by seed, the best by validation kept.

What is minimised on harvested adapters, and in which stages, the architecture says (``Network.losses``,
``Network.stages``). What else is minimised, such as episodes through a base model, comes as further terms.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from icmlora_cli.config.train import ObjectiveRecipe, OptimiserRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.conditions import Support
from icmlora_cli.generator.interface import Network, TrainStep
from icmlora_cli.generator.terms import ElboTerm, Term, TrainingData
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.schedules import set_rate, warm_cosine
from icmlora_cli.weights.training_state import load_state, save_state

BEST = "best."
REMEMBER = 25  # steps after which a prior of neighbours reads the training tasks again, as the reader has changed


@dataclass(frozen=True)
class StepLosses:
    """Losses of one step.

    Args:
        step: steps done, from 1.
        values: by name. CVAEs: ``reconstruction`` relative to predicting zero, ``kl`` in nats per latent number.
            P-DIFF: ``reconstruction`` in its first stage, ``diffusion`` (MSE of unit noise) in its second. Further
            terms add their own, and a step that validated adds ``validation``.
    """

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Validation:
    """How the best weights are told from others.

    Args:
        every: steps between validations.
        score: higher is better; sees the networks in eval mode, without gradients.
        from_stage: the first stage whose steps are validated.
    """

    every: int
    score: Callable[[Network], float]
    from_stage: int = 0


@dataclass(frozen=True)
class FitOptions:
    """What a training is told beside what it learns, and from what.

    Args:
        state: where the training state is saved.
        key: what the state must be of.
        on_step: told each step's losses.
        seed: of the order of the data and of the noise.
        reduce: averages gradients over processes, where there are several.
        keeps_state: this process writes the state.
        meter: of what it takes, which is kept in the state.
    """

    state: Path
    key: str
    on_step: Callable[[StepLosses], None]
    seed: int = 0
    reduce: Callable[[Sequence[torch.nn.Parameter]], None] | None = None
    keeps_state: bool = True
    meter: CostMeter = field(default_factory=CostMeter)


def fit(
    model: Network,
    data: TrainingData,
    objective: ObjectiveRecipe,
    optimiser: OptimiserRecipe,
    options: FitOptions,
    *,
    terms: Sequence[Term] = (),
    validation: Validation | None = None,
) -> tuple[StepLosses, ...]:
    """Train the networks over all tasks jointly, from the saved state where there is one of this very run.

    Args:
        model: the networks, initialised, on the device to train on; left with the best weights by validation, or with
            the last ones where nothing validates.
        data: the harvested tasks; there may be none.
        objective: what is minimised on them.
        optimiser: steps and rates.
        options: the seed, the saved state, and who is told.
        terms: what is minimised beside the architecture's own loss.
        validation: how the best weights are told from others.

    Returns:
        The losses of every tenth step of this run, and of those that validated.

    Raises:
        TrainingDivergedError: if a loss or its gradient is not finite; the state of the last good save is kept.
    """
    run = _Fit(model, data, optimiser, options, [*_elbo(model, data, objective, optimiser, terms), *terms])
    curve: list[StepLosses] = []
    for step in range(run.resume(), optimiser.steps):
        train_step = run.begin(step)
        values = run.learn(train_step, step)
        last = step + 1 == optimiser.steps
        due = validation is not None and ((step + 1) % validation.every == 0 or last)
        if due or last:
            run.remember(False)
        if validation is not None and due and train_step.stage >= validation.from_stage:
            values["validation"] = run.validate(validation)
        losses = StepLosses(step + 1, values)
        options.on_step(losses)
        if losses.step % 10 == 0 or last or "validation" in values:
            curve.append(losses)
        if losses.step % optimiser.save_every == 0 and not last and options.keeps_state:
            run.save(losses.step)
    if run.best.weights:
        model.load_state_dict(run.best.weights)
    return tuple(curve)


def _elbo(
    model: Network, data: TrainingData, objective: ObjectiveRecipe, optimiser: OptimiserRecipe, terms: Sequence[Term]
) -> list[Term]:
    """Return the term of the harvested adapters, if there are any; beside others it has the recipe's weight."""
    if not data.tasks:
        return []
    before = [1.0] if optimiser.pretrain_steps else []
    weights = [*before, objective.elbo_weight] if terms else [1.0]
    tokens = data.tokens().to(next(model.parameters()).device)
    return [ElboTerm.of(data, tokens, objective, optimiser.batch_size, *weights)]


class _Fit:
    """A training between two steps."""

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
        self.stages = model.stages(optimiser)
        self.stage: int | None = None
        self.remember = _rememberer(model, data)

    def resume(self) -> int:
        """Take over the saved state, if there is one of this very run; return the steps done."""
        resumed = load_state(self.options.state, self.saved, self.adamw, identity=self.options.key)
        if resumed is None:
            self.remember(True)
            return 0
        self.options.meter.resume(resumed.cost)
        self.rng.set_state(resumed.extra["source"])
        self.best = _Best.of(resumed.extra)
        return resumed.step

    def begin(self, step: int) -> TrainStep:
        """Begin a step, and a stage where it is the stage's first; return where the step falls."""
        train_step = _train_step(step, self.stages)
        if train_step.stage != self.stage:
            self.stage = train_step.stage
            self.model.begin(self.stage, self.tokens)
            if not train_step.step:
                self.adamw.state.clear()  # moments of one stage's small gradients make the next one's first steps huge
        if step % REMEMBER == 0:
            self.remember(False)
        return train_step

    def learn(self, train_step: TrainStep, step: int) -> dict[str, float]:
        """Take one step of the optimiser, and return the losses behind it.

        Raises:
            TrainingDivergedError: if a loss or the gradient is not finite.
        """
        self.adamw.zero_grad(set_to_none=True)  # so that networks of another stage have none, and stay as they are
        values: dict[str, float] = {}
        for term in self.terms:
            values |= term.backward(self.model, train_step, self.rng)
        if self.options.reduce is not None:
            self.options.reduce(self.parameters)  # what is not finite in one process is then so in all
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, 1.0))
        if not all(math.isfinite(value) for value in (*values.values(), norm)):
            raise TrainingDivergedError(
                f"the loss or its gradient is not finite at step {step + 1}",
                hint="lower learning_rate in the train recipe",
            )
        set_rate(self.adamw, warm_cosine(train_step.step, train_step.steps, _peak(self.optimiser, train_step)))
        self.adamw.step()
        return values

    @torch.no_grad()
    def validate(self, validation: Validation) -> float:
        """Return the score of the weights as they are, and keep them if they are the best so far."""
        self.model.eval()
        score = validation.score(self.model)
        self.model.train()
        self.best.offer(score, self.model)
        return score

    def save(self, step: int) -> None:
        """Save the training state after a step."""
        extra = {"source": self.rng.get_state()} | self.best.extra()
        identity, cost = self.options.key, self.options.meter.figures()
        save_state(self.options.state, self.saved, self.adamw, step=step, identity=identity, extra=extra, cost=cost)


def _peak(optimiser: OptimiserRecipe, train_step: TrainStep) -> float:
    """Return the highest learning rate of a stage."""
    before = optimiser.pretrain_steps and train_step.stage == 0
    return optimiser.pretrain_rate if before and optimiser.pretrain_rate is not None else optimiser.learning_rate


def _train_step(step: int, stages: Sequence[int]) -> TrainStep:
    """Return where a step (steps done before it) falls."""
    stage, first = 0, 0
    while step >= first + stages[stage]:
        first += stages[stage]
        stage += 1
    return TrainStep(stage, step - first, stages[stage])


@dataclass
class _Best:
    """The best weights so far by validation."""

    score: float = -math.inf
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def offer(self, score: float, model: Network) -> None:
        if score > self.score:
            self.score = score
            self.weights = {name: item.detach().clone() for name, item in model.state_dict().items()}

    def extra(self) -> dict[str, torch.Tensor]:
        kept = {f"{BEST}{name}": item for name, item in self.weights.items()}
        return kept | {"best_score": torch.tensor(self.score, dtype=torch.float64)}

    @classmethod
    def of(cls, extra: Mapping[str, torch.Tensor]) -> "_Best":
        weights = {name.removeprefix(BEST): item for name, item in extra.items() if name.startswith(BEST)}
        return cls(float(extra["best_score"]), weights)


def _rememberer(model: Network, data: TrainingData) -> Callable[[bool], None]:
    """Return what lets a prior of neighbours read the tasks: their texts, and at first their demonstrations."""
    if not model.config.remembered:
        return lambda first: None
    space = data.space
    texts = [Support.stack([space.support(item, None) for item in task.texts]) for task in data.tasks]
    shown = [
        Support.stack([space.support(None, item) for item in task.demonstrations]) if len(task.demonstrations) else None
        for task in data.tasks
    ]
    return lambda first: model.remember(texts, shown if first else None)
