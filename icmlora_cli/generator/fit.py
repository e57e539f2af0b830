"""Training a generator: in stages, resumable, exact by seed, the best by validation kept.

What is minimised on harvested adapters, and in which stages, the architecture says (``Network.losses``,
``Network.stages``). What else is minimised, such as episodes through a base model, comes as further terms.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import torch

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.generator.conditions import ConditionSpace, Support
from icmlora_cli.generator.interface import Batch, Network, Objective, TrainStep
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.weights.training_state import load_state, save_state

BEST = "best."
REMEMBER = 25  # steps after which a prior of neighbours reads the training tasks again, as the reader has changed


@dataclass(frozen=True)
class TaskData:
    """What the generator learns of one task.

    Args:
        tokens: its adapters' normalised cores, fp32 [checkpoints, modules, R, R].
        texts: readings of its descriptions, each [hidden] or [T, hidden].
        demonstrations: readings of draws of demonstrations, each [hidden] or [T, hidden].
    """

    tokens: torch.Tensor
    texts: Sequence[torch.Tensor]
    demonstrations: Sequence[torch.Tensor]


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


class Term(Protocol):
    """Something to minimise beside what the architecture makes of harvested adapters."""

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, float]:
        """Add a step's gradients to the model's, and return the losses behind them by name.

        Args:
            model: the networks.
            train_step: where in the training this is.
            rng: what randomness is drawn from.
        """


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
class ElboTerm:
    """The architecture's own loss on harvested adapters, each task equally likely.

    Args:
        tasks: the data of each task that has adapters.
        space: makes supports of readings.
        objective: what losses are measured with.
        tokens: their cores, one after the other, fp32 [adapters, modules, R, R].
        owners: the task that each of these is of, int64 [adapters].
        weights: of the loss, in each stage; the last one holds from there on.
    """

    tasks: Sequence[TaskData]
    space: ConditionSpace
    objective: Objective
    tokens: torch.Tensor
    owners: torch.Tensor
    weights: tuple[float, ...]

    def backward(self, model: Network, train_step: TrainStep, rng: torch.Generator) -> dict[str, float]:
        """Add the gradients of one batch."""
        weight = self.weights[min(train_step.stage, len(self.weights) - 1)]
        if not weight:
            return {}
        batch = self._draw(rng)
        losses = model.losses(batch, self.objective, train_step, rng)
        (weight * losses.total).backward()
        return {name: float(item.detach()) for name, item in losses.parts.items()}

    def _draw(self, rng: torch.Generator) -> Batch:
        """Return a batch in which every task is equally likely, then every one of its adapters."""
        recipe, device = self.objective.recipe, self.tokens.device
        firsts = list(accumulate((len(task.tokens) for task in self.tasks), initial=0))
        rows, supports = [], []
        for _ in range(recipe.batch_size):
            own = pick(len(self.tasks), rng)
            task = self.tasks[own]
            rows.append(firsts[own] + pick(len(task.tokens), rng))
            supports.append(draw_support(task.texts, task.demonstrations, self.space, rng))
        support = Support.stack(supports).disturbed(noise=recipe.condition_noise, drop=recipe.token_dropout, rng=rng)
        return Batch(self.tokens, self.owners, torch.tensor(rows, device=device), support.to(device))


def draw_support(
    texts: Sequence[torch.Tensor],
    demonstrations: Sequence[torch.Tensor],
    space: ConditionSpace,
    rng: torch.Generator,
) -> Support:
    """Return a support of a task with its slots drawn: half of the time text alone, which is what users give most.

    Of the other half, a part has demonstrations alone and a part both; a task that lacks one has the other.
    """
    slots = pick(4, rng)
    text, shown = None, None
    if len(texts) and (slots != 1 or not len(demonstrations)):
        text = texts[pick(len(texts), rng)]
    if len(demonstrations) and (slots in (1, 2) or text is None):
        shown = demonstrations[pick(len(demonstrations), rng)]
    return space.support(text, shown)


def pick(count: int, rng: torch.Generator) -> int:
    """Return a number below count."""
    return int(torch.randint(count, (1,), generator=rng))


def _rate(train_step: TrainStep, peak: float) -> float:
    """Return the learning rate: within each stage a short rise, then a cosine to zero."""
    rising = max(1, train_step.steps // 20)
    if train_step.step < rising:
        return peak * (train_step.step + 1) / rising
    share = (train_step.step - rising) / max(1, train_step.steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _peak(recipe: TrainRecipe, train_step: TrainStep) -> float:
    """Return the highest learning rate of a stage."""
    before = recipe.pretrain_steps and train_step.stage == 0
    return recipe.pretrain_rate if before and recipe.pretrain_rate is not None else recipe.learning_rate


def _moment(step: int, stages: Sequence[int]) -> TrainStep:
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


def fit(
    model: Network,
    tasks: Sequence[TaskData],
    space: ConditionSpace,
    mask: torch.Tensor,
    recipe: TrainRecipe,
    *,
    state: Path,
    key: str,
    on_step: Callable[[StepLosses], None],
    terms: Sequence[Term] = (),
    validation: Validation | None = None,
    reduce: Callable[[Sequence[torch.nn.Parameter]], None] | None = None,
    keeps_state: bool = True,
    meter: CostMeter | None = None,
) -> tuple[StepLosses, ...]:
    """Train the networks over all tasks jointly, from the saved state where there is one of this very run.

    Args:
        model: the networks, initialised, on the device to train on; left with the best weights by validation, or with
            the last ones where nothing validates.
        tasks: the data of each harvested task; every task is equally likely.
        space: makes supports of readings.
        mask: bool [modules, R, R], True where a core has numbers.
        recipe: steps, rates and weights.
        state: where the training state is saved.
        key: what the state must be of.
        on_step: told each step's losses.
        terms: what is minimised beside the architecture's own loss.
        validation: how the best weights are told from others.
        reduce: averages gradients over processes, where there are several.
        keeps_state: this process writes the state.
        meter: of what it takes, which is kept in the state; None where nobody asks.

    Returns:
        The losses of every tenth step of this run, and of those that validated.

    Raises:
        TrainingDivergedError: if a loss is not finite; the state of the last good save is kept.
    """
    device = next(model.parameters()).device
    rng = torch.Generator().manual_seed(recipe.seed)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    saved = model.state_dict(keep_vars=True)
    resumed, best = load_state(state, saved, optimizer, identity=key), _Best()
    meter = meter or CostMeter()
    if resumed is not None:
        meter.resume(resumed.cost)
        rng.set_state(resumed.extra["source"])
        best = _Best.of(resumed.extra)
    tokens = torch.cat([task.tokens for task in tasks]).to(device) if tasks else torch.zeros(0, *mask.shape)
    everything = list(terms)
    if tasks:
        objective = Objective(recipe, mask.to(device), tokens[:, mask].square().mean().clamp(min=1e-12))
        weights = (1.0,) if not terms else (*([1.0] if recipe.pretrain_steps else []), recipe.elbo_weight)
        owners = torch.tensor([own for own, task in enumerate(tasks) for _ in task.tokens], device=device)
        everything.insert(0, ElboTerm(tasks, space, objective, tokens, owners, weights))
    stages, stage = model.stages(recipe), None
    remember = _rememberer(model, tasks, space)
    if resumed is None:
        remember(True)
    curve: list[StepLosses] = []
    for step in range(resumed.step if resumed else 0, recipe.steps):
        train_step = _moment(step, stages)
        if train_step.stage != stage:
            stage = train_step.stage
            model.begin(stage, tokens)
            if not train_step.step:
                optimizer.state.clear()  # moments of one stage's small gradients make the next one's first steps huge
        if step % REMEMBER == 0:
            remember(False)
        values = _learn(model, everything, recipe, train_step, rng, optimizer, step, reduce)
        due = (step + 1) % validation.every == 0 or step + 1 == recipe.steps if validation is not None else False
        if due or step + 1 == recipe.steps:
            remember(False)
        if validation is not None and due and train_step.stage >= validation.from_stage:
            values["validation"] = _validate(model, validation)
            best.offer(values["validation"], model)
        losses = StepLosses(step + 1, values)
        on_step(losses)
        if losses.step % 10 == 0 or losses.step == recipe.steps or "validation" in values:
            curve.append(losses)
        if losses.step % recipe.save_every == 0 and losses.step < recipe.steps and keeps_state:
            extra = {"source": rng.get_state()} | best.extra()
            cost = meter.figures()
            save_state(state, saved, optimizer, step=losses.step, identity=key, extra=extra, cost=cost)
    if best.weights:
        model.load_state_dict(best.weights)
    return tuple(curve)


def _rememberer(model: Network, tasks: Sequence[TaskData], space: ConditionSpace) -> Callable[[bool], None]:
    """Return what lets a prior of neighbours read the tasks: their texts, and at first their demonstrations."""
    if not model.config.remembered:
        return lambda first: None
    texts = [Support.stack([space.support(item, None) for item in task.texts]) for task in tasks]
    shown = [
        Support.stack([space.support(None, item) for item in task.demonstrations]) if len(task.demonstrations) else None
        for task in tasks
    ]
    return lambda first: model.remember(texts, shown if first else None)


@torch.no_grad()
def _validate(model: Network, validation: Validation) -> float:
    model.eval()
    score = validation.score(model)
    model.train()
    return score


def _learn(
    model: Network,
    terms: Sequence[Term],
    recipe: TrainRecipe,
    train_step: TrainStep,
    rng: torch.Generator,
    optimizer: torch.optim.Optimizer,
    step: int,
    reduce: Callable[[Sequence[torch.nn.Parameter]], None] | None,
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)  # so that networks of another stage have none, and stay as they are
    values: dict[str, float] = {}
    for term in terms:
        values |= term.backward(model, train_step, rng)
    parameters = list(model.parameters())
    if reduce is not None:
        reduce(parameters)  # what is not finite in one process is then so in all
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
    if not all(math.isfinite(value) for value in (*values.values(), norm)):
        raise TrainingDivergedError(
            f"the loss or its gradient is not finite at step {step + 1}",
            hint="lower learning_rate in the train recipe",
        )
    for group in optimizer.param_groups:
        group["lr"] = _rate(train_step, _peak(recipe, train_step))
    optimizer.step()
    return values
