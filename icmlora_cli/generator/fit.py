"""Training a generator on harvested adapters: in stages, resumable, exact by seed.

What is minimised, and in which stages, the architecture says (``Network.losses``, ``Network.stages``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.errors import TrainingDiverged
from icmlora_cli.generator.conditions import ConditionSpace
from icmlora_cli.generator.interface import Batch, Moment, Network, Objective
from icmlora_cli.weights.training_state import load_state, save_state


@dataclass(frozen=True)
class TaskData:
    """What the generator learns of one task.

    Args:
        tokens: its adapters' normalised cores, fp32 [checkpoints, modules, R, R].
        texts: vectors of its descriptions, fp32 [descriptions, hidden].
        demonstrations: vectors of draws of demonstrations, fp32 [draws, hidden].
    """

    tokens: torch.Tensor
    texts: torch.Tensor
    demonstrations: torch.Tensor


@dataclass(frozen=True)
class StepLosses:
    """Losses of one step.

    Args:
        step: steps done, from 1.
        values: by name. CVAEs: ``reconstruction`` relative to predicting zero, ``kl`` in nats per latent number.
            P-DIFF: ``reconstruction`` in its first stage, ``diffusion`` (MSE of unit noise) in its second.
    """

    step: int
    values: Mapping[str, float]


def _draw(
    tasks: Sequence[TaskData], tokens: torch.Tensor, space: ConditionSpace, recipe: TrainRecipe, source: torch.Generator
) -> Batch:
    """Return a batch in which every task is equally likely, then every one of its adapters."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=source))

    firsts = list(accumulate((len(task.tokens) for task in tasks), initial=0))
    rows, cs = [], []
    for _ in range(recipe.batch_size):
        own = pick(len(tasks))
        task = tasks[own]
        rows.append(firsts[own] + pick(len(task.tokens)))
        slots = pick(4)  # half of the time text alone: what users give most
        text = None if slots == 1 else task.texts[pick(len(task.texts))]
        shown = task.demonstrations[pick(len(task.demonstrations))] if slots in (1, 2) else None
        c = space.condition(text, shown)
        noise = torch.randn(c.shape, generator=source) * (recipe.condition_noise / math.sqrt(c.shape[0] / 2))
        cs.append(c + noise * (c != 0) * _slots_only(c))
    return Batch(tokens, torch.tensor(rows), torch.stack(cs))


def _slots_only(c: torch.Tensor) -> torch.Tensor:
    keep = torch.ones_like(c)
    keep[-2:] = 0.0
    return keep


def _rate(moment: Moment, peak: float) -> float:
    """Return the learning rate: within each stage a short rise, then a cosine to zero."""
    rising = max(1, moment.steps // 20)
    if moment.step < rising:
        return peak * (moment.step + 1) / rising
    share = (moment.step - rising) / max(1, moment.steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _moment(step: int, stages: Sequence[int]) -> Moment:
    """Return where a step (steps done before it) falls."""
    stage, first = 0, 0
    while step >= first + stages[stage]:
        first += stages[stage]
        stage += 1
    return Moment(stage, step - first, stages[stage])


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
) -> tuple[StepLosses, ...]:
    """Train the networks over all tasks jointly, from the saved state where there is one of this very run.

    Args:
        model: the networks, initialised.
        tasks: the data of each task; every task is equally likely.
        space: makes conditions of task vectors.
        mask: bool [modules, R, R], True where a core has numbers.
        recipe: steps, rates and weights.
        state: where the training state is saved.
        key: what the state must be of.
        on_step: told each step's losses.

    Returns:
        The losses of every tenth step of this run.

    Raises:
        TrainingDiverged: if a loss is not finite.
    """
    source = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    saved = model.state_dict(keep_vars=True)
    resumed = load_state(state, saved, optimizer, identity=key)
    if resumed is not None:
        source.set_state(resumed.extra["source"])
    tokens = torch.cat([task.tokens for task in tasks])
    objective = Objective(recipe, mask, tokens[:, mask].square().mean().clamp(min=1e-12))
    stages, stage = model.stages(recipe), None
    curve: list[StepLosses] = []
    for step in range(resumed.step if resumed else 0, recipe.steps):
        moment = _moment(step, stages)
        if moment.stage != stage:
            stage = moment.stage
            model.begin(stage, tokens)
        batch = _draw(tasks, tokens, space, recipe, source)
        losses = _learn(model, batch, objective, moment, source, optimizer, step)
        on_step(losses)
        if losses.step % 10 == 0 or losses.step == recipe.steps:
            curve.append(losses)
        if losses.step % recipe.save_every == 0 and losses.step < recipe.steps:
            extra = {"source": source.get_state()}
            save_state(state, saved, optimizer, step=losses.step, identity=key, extra=extra)
    return tuple(curve)


def _learn(
    model: Network,
    batch: Batch,
    objective: Objective,
    moment: Moment,
    source: torch.Generator,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> StepLosses:
    losses = model.losses(batch, objective, moment, source)
    values = {name: float(item.detach()) for name, item in losses.parts.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise TrainingDiverged(
            f"the loss is not finite at step {step + 1}", hint="lower learning_rate in the train recipe"
        )
    optimizer.zero_grad(set_to_none=True)  # so that networks of another stage have none, and stay as they are
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = _rate(moment, objective.recipe.learning_rate)
    optimizer.step()
    return StepLosses(step + 1, values)
