"""What a reading of a description says of its task: is its nearest neighbour another description of the same task?

Over the registered tasks and the built-in catalogue, pooled states against an attention reader that is trained for a
few hundred steps to tell tasks apart (InfoNCE). Tasks of split unseen and held-out combinations are not trained on.
"""

import argparse
import math
import random

import torch

from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics, Support
from icmlora_cli.generator.networks import contrast
from icmlora_cli.generator.reader import AttentionReader
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.builtin import builtin_names, builtin_task
from icmlora_cli.workflows.base import pull as base_workflow

TASKS = 48  # in one step, two descriptions each


def same_task(vectors: torch.Tensor, owners: list[str], asked: list[int]) -> float:
    """Return the share of the asked rows whose nearest other row, by standardised cosine, has the same owner."""
    scaled = (vectors - vectors.mean(0)) / vectors.std(0).clamp(min=1e-6)
    unit = torch.nn.functional.normalize(scaled, dim=1)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(-2.0)
    nearest = cosines.argmax(1).tolist()
    return sum(owners[nearest[index]] == owners[index] for index in asked) / len(asked)


def main() -> None:
    """Print a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--layers", type=float, nargs="+", default=[0.4, 0.53, 0.67, 0.73, 0.8])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Home.from_environment()
    loaded = load_base(base_workflow.resolve(options.base, home))
    tasks = {task.name: (task.descriptions, task.split == "train") for task in TaskStore(home).all()}
    for name in builtin_names():
        tasks.setdefault(name, (builtin_task(name).descriptions, not builtin_task(name).held_out))
    owners = [name for name, (texts, _) in tasks.items() for _ in texts]
    unseen = [index for index, name in enumerate(owners) if not tasks[name][1]]
    print(f"{len(tasks)} tasks, {len(owners)} descriptions, {len(unseen)} of unseen tasks; chance about 0.02")
    for layer in options.layers:
        reader = VectorReader(loaded, VectorRecipe(layer=layer, pooling="tokens"), home)
        states = reader.read_all([reader.text_states(text) for texts, _ in tasks.values() for text in texts])
        seen = torch.cat([state for state, name in zip(states, owners, strict=True) if tasks[name][1]])
        statistics = SlotStatistics.of(seen.float())
        space = ConditionSpace(statistics, statistics)
        pooled = torch.stack([statistics.apply(state).mean(0) for state in states])
        vectors = learned(states, owners, tasks, space, options.steps, options.seed)
        every = list(range(len(owners)))
        print(
            f"layer {reader.layer}: pooled {same_task(pooled, owners, every):.2f} (unseen "
            f"{same_task(pooled, owners, unseen):.2f}), reader {same_task(vectors, owners, every):.2f} (unseen "
            f"{same_task(vectors, owners, unseen):.2f})"
        )


def learned(
    states: list[torch.Tensor],
    owners: list[str],
    tasks: dict[str, tuple[tuple[str, ...], bool]],
    space: ConditionSpace,
    steps: int,
    seed: int,
) -> torch.Tensor:
    """Return the conditions of all descriptions, by a reader trained on those of seen tasks."""
    torch.manual_seed(seed)
    noise, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    model = AttentionReader(space.hidden, 128, 4, 1, 128)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(owners):
        if tasks[name][1]:
            rows.setdefault(name, []).append(index)
    names = [name for name, own in rows.items() if len(own) > 1]
    for step in range(steps):
        drawn = [index for name in rng.sample(names, min(TASKS, len(names))) for index in rng.sample(rows[name], 2)]
        support = Support.stack([space.support(states[index], None) for index in drawn])
        loss = contrast(model(support.disturbed(noise=0.3, drop=0.1, rng=noise)))
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    with torch.no_grad():
        supports = [space.support(state, None) for state in states]
        parts = [model(Support.stack(supports[start : start + 64])) for start in range(0, len(supports), 64)]
    return torch.cat(parts)


if __name__ == "__main__":
    main()
