"""Train: the conditional VAE over the harvested adapters of many tasks, jointly, and in episodes through the base."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.generator.checkpoint import Generator, load_generator, read_config, save_generator, stored
from icmlora_cli.generator.fit import StepLosses
from icmlora_cli.lm.load import load_base
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.provenance.licences import hub_datasets, no_derivatives, of_manifest
from icmlora_cli.provenance.versions import command_line, now, versions
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import CARD, CONFIG, GeneratorStore
from icmlora_cli.registry.tasks import Task
from icmlora_cli.registry.upkeep import quarantine
from icmlora_cli.report.cards import CardData, generator_card
from icmlora_cli.workflows.progress import OnProgress, Progress, silent
from icmlora_cli.workflows.train.distributed import Distributed
from icmlora_cli.workflows.train.episode_tasks import EpisodeTask, builtin_pool
from icmlora_cli.workflows.train.training import Harvested, Training, find_harvested, known_names, make_basis

CURVE = 200  # points of the losses that are kept
VERSION = 4  # of the training procedure; part of every key


@dataclass(frozen=True)
class TrainResult:
    """A trained generator.

    Args:
        folder: where it is.
        tasks: what it learned from.
        harvested: how many of them had harvested adapters.
        builtin: how many built-in tasks the episodes drew from, beside them.
        left_out: examples of the episodes' tasks that were no queries: longer than the recipe's ``max_tokens``.
        trained: False where the very same generator was there already.
        width: R of the codec's basis.
        codec_error: mean relative error of delta-W that the basis alone costs.
        error: mean relative error of delta-W of the generated adapters, from the descriptions of the harvested tasks.
        validation: mean probability of the validation tasks' answers with the weights that were kept, of an answer the
            geometric mean over its tokens; None without.
        storage_error: relative change of generated delta-W that the stored form of the numbers costs.
        parameters: numbers in ``generator.safetensors``.
        bytes: of the generator's folder.
        seconds: wall time.
        no_derivatives: licences of what it learned from that forbid derivatives.
        replaced: where the generator is that had this name; None where there was none.
    """

    folder: Path
    tasks: tuple[str, ...]
    harvested: int
    builtin: int
    left_out: int
    trained: bool
    width: int
    codec_error: float
    error: float
    validation: float | None
    storage_error: float
    parameters: int
    bytes: int
    seconds: float
    no_derivatives: tuple[str, ...]
    replaced: Path | None = None


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: TrainRecipe,
    home: Home,
    *,
    name: str = "default",
    device: str | None = None,
    log_with: str | None = None,
    on_progress: OnProgress = silent,
) -> TrainResult:
    """Train a generator on the newest harvested adapters of the tasks, and in episodes if the recipe has them.

    Args:
        tasks: tasks of split ``train``; without episodes, each with a harvested adapter.
        base: the base model of the adapters.
        recipe: how to train.
        home: the registry.
        name: the generator's; one of the same name is replaced once the new one is whole.
        device: where the base runs, and with episodes the generator too; without, that trains on the CPU.
        log_with: one of accelerate's trackers (``tensorboard``, ``trackio``, ``wandb`` ...) to log losses with.
        on_progress: told of each task's vectors and each step.

    Raises:
        UsageError: if a task is of split ``unseen``, there is no task, or the recipe does not fit together.
        NotFoundError: if a task has no adapter and the recipe no episodes.
        CorruptFileError: if an adapter is broken.
        TrainingDivergedError: if a loss is not finite.
    """
    started = time.monotonic()
    _check(tasks, recipe)
    harvested = find_harvested(tasks, base, AdapterStore(home), recipe)
    _check_idle(tasks, harvested, recipe)
    key = _key(tasks, [(item.task, item.record) for item in harvested], base, recipe, home)
    target = GeneratorStore(home).folder(name)
    if (target / CONFIG).is_file() and read_config(target).get("key") == key:
        load_generator(target)  # a broken one says so
        return _result(target, trained=False, seconds=time.monotonic() - started)
    meter, replaced = CostMeter(), None

    def report(progress: Progress) -> None:
        meter.sample()
        on_progress(progress)

    with Distributed(log_with, home.root / "logs" / name, name, recipe.model_dump(mode="json")) as distributed:
        loaded = load_base(base, device=distributed.device or device)
        basis = make_basis(harvested, loaded, recipe)
        training = Training(tasks, harvested, basis, loaded, recipe, home, name, key, distributed, meter, report)
        generator, curve = training.fit()
        if distributed.main:
            kept = stored(generator, recipe.storage)
            figures = training.figures(generator, kept)
            figures |= meter.figures()
            if left_out := sum(item.left_out for item in (*training.pool, *training.held)):
                figures["left_out"] = left_out
            about = _about(tasks, harvested, base, recipe, key, figures, curve, training.builtin)
            if (target / CONFIG).is_file():
                replaced = quarantine.keep(home, target, "replaced by another training of this name")
            _save(target, kept, about, recipe)
            training.state.unlink(missing_ok=True)
        distributed.wait()
    return replace(_result(target, trained=True, seconds=time.monotonic() - started), replaced=replaced)


def key_of(tasks: Sequence[Task], base: Base, recipe: TrainRecipe, home: Home) -> str:
    """Return the key that a training would have: the hash of adapters, tasks and recipe.

    Raises:
        NotFoundError: if a task has no adapter.
        CorruptFileError: if a manifest is broken.
    """
    store = AdapterStore(home)
    return _key(tasks, [(task, store.latest(base, task)) for task in tasks], base, recipe, home)


def _check(tasks: Sequence[Task], recipe: TrainRecipe) -> None:
    episodic = recipe.episodes is not None
    if not tasks and not (recipe.episodes and recipe.episodes.builtin != "none"):
        raise UsageError("there is no task to learn from", hint="icmlora task add ..., then icmlora harvest")
    if episodic and recipe.arch == "p-diff":
        raise UsageError("p-diff has no episodes", hint="take episodes out of the recipe, or arch: token")
    if episodic and recipe.steps <= recipe.pretrain_steps:
        raise UsageError(
            f"steps ({recipe.steps}) leaves none for episodes after pretrain_steps ({recipe.pretrain_steps})",
            hint="raise --steps, or lower pretrain_steps in the recipe",
        )
    if recipe.reader == "mean" and recipe.vectors.pooling == "tokens":
        raise UsageError(
            "reader: mean reads one vector a slot, and vectors.pooling: tokens gives many",
            hint="set reader: attention, or vectors.pooling: mean, in the recipe",
        )
    unseen = [task.name for task in tasks if task.split != "train"]
    if unseen:
        raise UsageError(
            f"{', '.join(unseen)}: of split 'unseen', which a generator must not learn from",
            hint="leave them out of --tasks, or change their split in the task file and add it again",
        )


def _check_idle(tasks: Sequence[Task], harvested: Sequence[Harvested], recipe: TrainRecipe) -> None:
    learned = {item.task.name for item in harvested}
    if not recipe.queries_base and not learned:
        raise UsageError(
            "episodes.weight is 0, and no adapter is harvested: there is nothing to learn", hint="icmlora harvest"
        )
    if recipe.prior == "neighbours" and not learned:
        raise UsageError(
            "prior: neighbours is made of harvested adapters, and there is none",
            hint="icmlora harvest, or prior: learned in the recipe",
        )
    mute = [task for task in tasks if task.template.kind == "text" or not task.has_examples]
    idle = [task.name for task in mute if task.name not in learned]
    if idle:
        raise UsageError(
            f"{', '.join(idle)}: plain text or a bare description has no questions for episodes, and no adapter is "
            "harvested",
            hint=f"icmlora harvest --tasks {idle[0]}",
        )


def _key(
    tasks: Sequence[Task], harvested: Sequence[tuple[Task, AdapterRecord]], base: Base, recipe: TrainRecipe, home: Home
) -> str:
    """Return the hash that makes a training what it is: tasks, adapters, recipe, and the built-in tasks of episodes."""
    values = recipe.model_dump(mode="json")
    values.pop("save_every")
    items = [
        [task.name, *task.descriptions, task.data_hash, *(c.sha256 for c in record.checkpoints)]
        for task, record in harvested
    ]
    if recipe.episodes is not None:
        pools = builtin_pool(recipe.episodes, recipe.seed, known_names(tasks, home))
        items += [[task.name, *task.descriptions, task.data_hash] for task in tasks] + [[base.weight_hash]]
        items += [[task.name for task in pool] for pool in pools]
        items += [[item] for item in base.encoding]
    return files.sha256_json([VERSION, values, items])[:16]


def _about(
    tasks: Sequence[Task],
    harvested: Sequence[Harvested],
    base: Base,
    recipe: TrainRecipe,
    key: str,
    figures: dict[str, float],
    curve: Sequence[StepLosses],
    builtin: Sequence[EpisodeTask],
) -> dict[str, object]:
    imported = {item.task.name: item.record.about.get("licence") for item in harvested}
    named = [task.licence for task in tasks] + [*imported.values()]
    licences = sorted({str(licence) for licence in named if licence})
    every = max(1, -(-len(curve) // CURVE))
    points = [losses for index, losses in enumerate(curve) if index % every == 0 or index == len(curve) - 1]
    return {
        "key": key,
        "base": {
            "name": base.name,
            "revision": base.revision,
            "weight_hash": base.weight_hash,
            "licence": base.licence,
        },
        "tasks": {task.name: task.descriptions[0] for task in tasks},
        "builtin_tasks": [item.name for item in builtin],
        "adapters": {item.task.name: item.record.key for item in harvested},
        "sources": [_source(item.record) for item in harvested],
        "cost": _cost([item.record.figures for item in harvested], figures),
        "licences": licences,
        "unlicensed": sum(not (task.licence or imported.get(task.name)) for task in tasks),
        "datasets": list(hub_datasets(task.source for task in tasks)),
        "recipe": recipe.model_dump(mode="json"),
        "figures": figures,
        "curve": [
            [losses.step, {loss: float(f"{value:.4g}") for loss, value in losses.values.items()}] for losses in points
        ],
        "versions": versions(),
        "command": command_line(),
        "created": now(),
    }


def _source(record: AdapterRecord) -> dict[str, object]:
    """Return where an adapter that was learned from came from, as the generator's manifest holds it."""
    about = {name: record.about.get(name) for name in ("licence", "source", "device", "dtype", "recipe", "versions")}
    figures = {name: record.figures[name] for name in ("seconds", "joules") if name in record.figures}
    imported = {} if record.imported is None else {"imported": record.imported.get("from")}
    own = {"task": record.task, "key": record.key, "data_hash": record.data_hash, "created": record.created}
    return own | about | figures | imported


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


def _save(target: Path, generator: Generator, about: dict[str, object], recipe: TrainRecipe) -> None:
    whole = replace(generator, about=about)
    tasks, figures = about["tasks"], about["figures"]
    assert isinstance(tasks, dict) and isinstance(figures, dict)
    with files.new_folder(target) as folder:
        card = generator_card(
            name=target.name,
            base_model=generator.codec.base_model,
            tasks=tasks,
            numbers=_numbers(whole),
            error=figures["error"],
            data=CardData.of_manifest(about),
        )
        files.write_text(folder / CARD, card)
        hashed = dict(about) | {"card_sha256": files.sha256_file(folder / CARD)}
        save_generator(folder, replace(whole, about=hashed), recipe.storage)


def _numbers(generator: Generator) -> int:
    return sum(item.numel() for item in generator.tensors().values())


def _result(target: Path, *, trained: bool, seconds: float) -> TrainResult:
    generator = load_generator(target)
    about = generator.about
    tasks, figures, adapters, builtin = about["tasks"], about["figures"], about["adapters"], about["builtin_tasks"]
    assert isinstance(tasks, dict) and isinstance(figures, dict)
    assert isinstance(adapters, dict) and isinstance(builtin, list)
    return TrainResult(
        folder=target,
        tasks=tuple(tasks),
        harvested=len(adapters),
        builtin=len(builtin),
        left_out=int(figures.get("left_out", 0)),
        trained=trained,
        width=generator.codec.width,
        codec_error=float(figures["codec_error"]),
        error=float(figures["error"]),
        validation=float(figures["validation"]) if "validation" in figures else None,
        storage_error=float(figures["storage_error"]),
        parameters=_numbers(generator),
        bytes=files.folder_bytes(target),
        seconds=seconds,
        no_derivatives=no_derivatives(of_manifest(about.get("licences"))),
    )
