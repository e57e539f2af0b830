"""Training the CVAE on harvested adapters: evidence lower bound with KL warm-up, resumable, exact by seed.

Loss = MSE of the cores (which, the basis being orthonormal, is that of delta-W) divided by the mean square of the
data, so that 1.0 is what predicting zero costs; plus kl_weight * KL(q(z | x, c) || p(z | c)) in nats a latent number.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.errors import TrainingDiverged
from icmlora_cli.generator.conditions import ConditionSpace
from icmlora_cli.generator.networks import CVAE, Gaussian
from icmlora_cli.registry import files


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
    """Losses of one step: ``reconstruction`` relative to predicting zero, ``kl`` in nats per latent number."""

    step: int
    reconstruction: float
    kl: float


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> torch.Tensor:
    """Return KL(q || p) of diagonal Gaussians, mean over batch and latent numbers, in nats."""
    (q_mean, q_log), (p_mean, p_log) = posterior, prior
    terms = p_log - q_log + (q_log.exp() + (q_mean - p_mean).square()) / p_log.exp() - 1.0
    return 0.5 * terms.mean()


def sample(gaussian: Gaussian, source: torch.Generator) -> torch.Tensor:
    """Draw z from a diagonal Gaussian by reparametrization, on the CPU's stream so that devices agree."""
    mean, log_variance = gaussian
    noise = torch.randn(mean.shape, generator=source).to(mean.device)
    return mean + noise * (0.5 * log_variance).exp()


def _draw(
    tasks: Sequence[TaskData], space: ConditionSpace, recipe: TrainRecipe, source: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of cores [B, modules, R, R] and conditions [B, condition_dim]."""

    def pick(count: int) -> int:
        return int(torch.randint(count, (1,), generator=source))

    xs, cs = [], []
    for _ in range(recipe.batch_size):
        task = tasks[pick(len(tasks))]
        xs.append(task.tokens[pick(len(task.tokens))])
        slots = pick(4)  # half of the time text alone: what users give most
        text = None if slots == 1 else task.texts[pick(len(task.texts))]
        shown = task.demonstrations[pick(len(task.demonstrations))] if slots in (1, 2) else None
        c = space.condition(text, shown)
        noise = torch.randn(c.shape, generator=source) * (recipe.condition_noise / math.sqrt(c.shape[0] / 2))
        cs.append(c + noise * (c != 0) * _slots_only(c))
    return torch.stack(xs), torch.stack(cs)


def _slots_only(c: torch.Tensor) -> torch.Tensor:
    keep = torch.ones_like(c)
    keep[-2:] = 0.0
    return keep


def _rate(step: int, recipe: TrainRecipe) -> float:
    rising = max(1, recipe.steps // 20)
    if step < rising:
        return recipe.learning_rate * (step + 1) / rising
    share = (step - rising) / max(1, recipe.steps - rising)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _save(
    path: Path, model: CVAE, optimizer: torch.optim.Optimizer, source: torch.Generator, step: int, key: str
) -> None:
    tensors = {f"model.{name}": item.detach().contiguous() for name, item in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{slot}.{name}"] = value.detach().clone().contiguous()
    tensors["generator"] = source.get_state()
    files.write_with(path, lambda temporary: save_file(tensors, temporary, metadata={"step": str(step), "key": key}))


def _load(path: Path, model: CVAE, optimizer: torch.optim.Optimizer, source: torch.Generator, key: str) -> int:
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as saved:
            metadata = saved.metadata() or {}
            if metadata.get("key") != key:
                return 0
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
    except SafetensorError:
        return 0
    model.load_state_dict({name[6:]: item for name, item in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"optimizer.step.{name}" in tensors:
            optimizer.state[parameter] = {
                slot: tensors[f"optimizer.{slot}.{name}"] for slot in ("step", "exp_avg", "exp_avg_sq")
            }
    source.set_state(tensors["generator"])
    return int(metadata["step"])


def fit(
    model: CVAE,
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
    first = _load(state, model, optimizer, source, key)
    scale = torch.cat([task.tokens for task in tasks])[:, mask].square().mean().clamp(min=1e-12)
    curve: list[StepLosses] = []
    for step in range(first, recipe.steps):
        x, c = _draw(tasks, space, recipe, source)
        posterior, prior = model.encode(x, c), model.prior(c)
        decoded = model.decode(sample(posterior, source), c)
        reconstruction = (decoded - x)[:, mask].square().mean() / scale
        kl = kl_divergence(posterior, prior)
        warm = min(1.0, (step + 1) / max(1.0, recipe.kl_warmup * recipe.steps))
        loss = reconstruction + recipe.kl_weight * warm * kl
        losses = StepLosses(step + 1, float(reconstruction.detach()), float(kl.detach()))
        if not math.isfinite(losses.reconstruction + losses.kl):
            raise TrainingDiverged(
                f"the loss is not finite at step {step + 1}", hint="lower learning_rate in the train recipe"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, recipe)
        optimizer.step()
        on_step(losses)
        if losses.step % 10 == 0 or losses.step == recipe.steps:
            curve.append(losses)
        if losses.step % recipe.save_every == 0 and losses.step < recipe.steps:
            _save(state, model, optimizer, source, losses.step, key)
    return tuple(curve)
