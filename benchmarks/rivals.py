"""What kept conv1d's reconstruction at that of predicting zero: train/conv1d, then with one thing as 0.1.0 had it.

Each row trains on all kept checkpoints of one harvested task, in so many steps of two adapters. ``reconstruction`` is
the loss over the last fifth of them, and ``from text`` the distance of the adapter that the prior's mean gives from
the last checkpoint; both are 1 for predicting zero. Readings are random: only the networks are compared here.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from icmlora_cli.config.recipes import resolve as resolve_recipe
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.generator.checkpoint import module_scales
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.fit import FitOptions, fit
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.generator.terms import TaskData, TrainingData
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.weights.frame import seeded_frame
from icmlora_cli.weights.layout import layout_of
from icmlora_cli.workflows.base.pull import resolve
from icmlora_cli.workflows.train.inputs import find_harvested, frame_of

HIDDEN = 576  # numbers of a reading
VARIANTS: dict[str, dict[str, float]] = {  # name: what differs from train/conv1d
    "train/conv1d": {},
    "layers not normalised": {"batch_norm": 0},
    "KL 0.005 on the mean": {"kl_weight": 0.005},
    "rate 2e-4": {"learning_rate": 2e-4},
    "all three, as in 0.1.0": {"batch_norm": 0, "kl_weight": 0.005, "learning_rate": 2e-4},
}


def problem(task: str, base_name: str) -> tuple[TrainingData, tuple[tuple[int, int], ...]]:
    """Return a task's kept checkpoints as training data, with readings of random numbers, and the modules' places."""
    home = Home.from_environment()
    store, base = AdapterStore(home), resolve(base_name, home)
    (harvested,) = find_harvested([TaskStore(home).get(task)], base, store, all_needed=True)
    spec, layout = frame_of(harvested.record), layout_of(harvested.adapters)
    assert spec is not None, f"{task} was not harvested in a frame"
    frame = seeded_frame(layout, spec, base.model_id)
    cores, mask = torch.stack([frame.encode(item) for item in harvested.adapters]), frame.mask()
    rng = torch.Generator().manual_seed(0)
    readings = torch.randn(2, 1, HIDDEN, generator=rng) + 0.3 * torch.randn(2, 8, HIDDEN, generator=rng)
    space = ConditionSpace(SlotStatistics.of(readings[0]), SlotStatistics.of(readings[1]))
    data = TaskData(cores / module_scales(cores, mask)[:, None, None], list(readings[0]), list(readings[1]))
    return TrainingData([data], space, mask, 0.1), layout.places()


def row(data: TrainingData, places: tuple[tuple[int, int], ...], recipe: TrainRecipe, changes: dict[str, float]) -> str:
    """Train one variant, and return its figures."""
    width, tokens = data.mask.shape[1], data.tasks[0].tokens
    kl, rate = changes.get("kl_weight"), changes.get("learning_rate")
    objective = recipe.objective if kl is None else recipe.objective.model_copy(update={"kl_weight": kl})
    optimiser = recipe.optimiser if rate is None else recipe.optimiser.model_copy(update={"learning_rate": rate})
    torch.manual_seed(recipe.seed)
    sizes = recipe.network
    model = build(
        NetworkConfig(
            "conv1d", places, width, HIDDEN, sizes.latent_dim, sizes.hidden_dim, sizes.code_dim,
            batch_norm=bool(changes.get("batch_norm", True)),
        )
    )  # fmt: skip
    begun, losses = time.process_time(), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        options = FitOptions(Path(folder, "state"), "k", lambda step: losses.append(step.values["reconstruction"]))
        fit(model, data, objective, optimiser, options)
    seconds = time.process_time() - begun
    last = losses[-max(1, len(losses) // 5) :]
    with torch.no_grad():
        c = model.eval().read(data.space.support(data.tasks[0].texts[0], None))
        made = model.decode(model.sample_latent(c, None), c)[0]
    error = float((made - tokens[-1]).norm() / tokens[-1].norm())
    return f"{sum(last) / len(last):.4f} | {error:.3f} | {seconds:.0f}"


def main() -> None:
    """Print a row for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="pick_last_of_3")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    data, places = problem(options.task, options.base)
    recipe = resolve_recipe(TrainRecipe, Path("conv1d"), "train", {"steps": options.steps})
    print(f"| {len(data.tokens())} checkpoints, {options.steps} steps | reconstruction | from text | CPU seconds |")
    print("|---|---|---|---|", flush=True)
    for name, changes in VARIANTS.items():
        print(f"| {name} | {row(data, places, recipe, changes)} |", flush=True)


if __name__ == "__main__":
    main()
