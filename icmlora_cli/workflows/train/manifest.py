"""What is recorded of a trained generator: the content of ``generator.json``, the sources, the cost, and the card."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk import files
from icmlora_cli.generator.checkpoint import Generator, save_generator
from icmlora_cli.generator.fit import StepLosses
from icmlora_cli.manifests.generator import GeneratorAbout, GeneratorBase
from icmlora_cli.manifests.parts import SourceAdapter
from icmlora_cli.provenance import local_paths
from icmlora_cli.provenance.licences import hub_datasets
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.adapters import AdapterRecord
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import CARD
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report.cards import CardData, generator_card
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask
from icmlora_cli.workflows.train.inputs import Harvested

CURVE = 200  # the most points of the loss curve that are recorded, besides the last one


def about_of(
    tasks: Sequence[Task],
    harvested: Sequence[Harvested],
    base: Base,
    recipe: TrainRecipe,
    key: str,
    figures: dict[str, float],
    curve: Sequence[StepLosses],
    builtin: Sequence[EpisodeTask],
) -> GeneratorAbout:
    """Return what ``generator.json`` says of a training.

    Args:
        tasks: The registered tasks that it learned from.
        harvested: Those of the tasks that had harvested adapters.
        base: The base model.
        recipe: How it was trained.
        key: The hash of all that decides the training.
        figures: The errors, and the cost in seconds and joules.
        curve: The losses of the steps; about CURVE of them are recorded, and the last one.
        builtin: The built-in tasks that episodes drew from.
    """
    imported = {item.task.name: item.record.about.licence for item in harvested}
    named = [task.licence for task in tasks] + [*imported.values()]
    licences = sorted({str(licence) for licence in named if licence})
    every = max(1, -(-len(curve) // CURVE))
    points = [losses for index, losses in enumerate(curve) if index % every == 0 or index == len(curve) - 1]
    return GeneratorAbout(
        key=key,
        base=GeneratorBase(
            name=base.public_name, revision=base.revision, weight_hash=base.weight_hash, licence=base.licence
        ),
        tasks={task.name: task.descriptions[0] for task in tasks},
        builtin_tasks=tuple(item.name for item in builtin),
        adapters={item.task.name: item.record.key for item in harvested},
        sources=tuple(_source(item.record) for item in harvested),
        cost=_cost([item.record.figures for item in harvested], figures),
        licences=tuple(licences),
        unlicensed=sum(not (task.licence or imported.get(task.name)) for task in tasks),
        datasets=hub_datasets(task.source for task in tasks),
        recipe=recipe.model_dump(mode="json"),
        figures=figures,
        curve=tuple(
            (losses.step, {loss: float(f"{value:.4g}") for loss, value in losses.values.items()}) for losses in points
        ),
        versions=versions(),
        command=command_line(),
        created=now(),
    )


def _source(record: AdapterRecord) -> SourceAdapter:
    """Return where an adapter that was learned from came from, as the generator's manifest holds it."""
    about = record.about
    source = SourceAdapter(
        task=record.task,
        key=record.key,
        data_hash=record.data_hash,
        created=record.created,
        licence=about.licence,
        source=about.source and local_paths.shortened(about.source),  # earlier versions wrote paths
        device=about.device,
        dtype=about.dtype,
        recipe=about.recipe,
        versions=about.versions,
    )
    cost = {name: record.figures[name] for name in ("seconds", "joules") if name in record.figures}
    origin = {} if record.imported is None else {"imported": local_paths.shortened(record.imported.source)}
    return source.model_copy(update=cost | origin)


def _cost(adapters: Sequence[Mapping[str, float]], figures: Mapping[str, float]) -> dict[str, float]:
    """Return what the adapters and the training on them took: seconds, and joules where all are known."""
    cost = {"train_seconds": figures["seconds"]}
    if "joules" in figures:
        cost["train_joules"] = figures["joules"]
    for name in ("seconds", "joules"):
        known = [item[name] for item in adapters if name in item]
        if known and len(known) == len(adapters):
            cost[f"harvest_{name}"] = sum(known)
    return cost


def save(target: Path, generator: Generator, about: GeneratorAbout, recipe: TrainRecipe) -> None:
    """Write the generator's folder as a whole: its card, its weights, and what is recorded of it."""
    with files.new_folder(target) as folder:
        card = generator_card(
            name=target.name,
            base_model=generator.codec.base_model,
            tasks=about.tasks,
            numbers=count_numbers(generator),
            error=about.figures["error"],
            data=CardData.of(about),
        )
        files.write_text(folder / CARD, card)
        hashed = about.model_copy(update={"card_sha256": files.sha256_file(folder / CARD)})
        save_generator(folder, generator, recipe.storage, about=hashed)


def count_numbers(generator: Generator) -> int:
    """Return how many numbers ``generator.safetensors`` holds."""
    return sum(item.numel() for item in generator.tensors().values())
