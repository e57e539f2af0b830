"""The ``train`` workflow: one conditional VAE learns from many tasks, by their adapters and in episodes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.generator.checkpoint import load_generator, read_config, stored
from icmlora_cli.lm.load import load_base
from icmlora_cli.provenance.energy import CostMeter
from icmlora_cli.provenance.licences import no_derivatives
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import CONFIG, GeneratorStore
from icmlora_cli.registry.tasks import Task
from icmlora_cli.registry.upkeep import quarantine
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, silent
from icmlora_cli.workflows.train import manifest, sensitivity
from icmlora_cli.workflows.train.distributed import Distributed
from icmlora_cli.workflows.train.episode_tasks import builtin_pool
from icmlora_cli.workflows.train.inputs import Harvested, find_harvested, known_names, make_basis
from icmlora_cli.workflows.train.training import Training

VERSION = 4  # of the training procedure; part of every key
NORMALISED = 5  # the same of conv1d, since its layers are normalised


@dataclass(frozen=True)
class TrainResult:
    """A trained generator and its figures, as ``run`` returns them.

    Args:
        folder: The folder of the generator.
        tasks: The names of the registered tasks that it learned from.
        harvested: How many of these had harvested adapters.
        builtin: How many built-in tasks the episodes drew from.
        left_out: How many examples of the episodes' tasks were no queries, since they are longer than the recipe's
            ``max_tokens``.
        trained: Whether this run trained it; False where the very same generator was there already.
        width: R, the width of the codec's basis.
        codec_error: The mean relative error in delta-W of writing the harvested adapters in the basis.
        error: The mean relative error in delta-W of the adapters generated from the harvested tasks' descriptions.
        epochs: How many passes over the adapters it took; None where the recipe counts steps.
        flat: Whether its loss was flat at the end, by the recipe's ``patience``; None without that.
        validation: The mean probability of the validation tasks' answers with the weights that were kept, where an
            answer counts with the geometric mean over its tokens; None without validation tasks.
        storage_error: The mean relative change of generated delta-W from storing the weights in fewer bits.
        parameters: How many numbers ``generator.safetensors`` holds.
        bytes: The size of the generator's folder in bytes.
        seconds: The wall time of this run in seconds.
        no_derivatives: The licences of what it learned from that forbid derivatives.
        replaced: The folder to which an earlier generator of this name was moved; None where there was none.
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
    epochs: float | None
    flat: bool | None
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
        tasks: The tasks to learn from, of split ``train``; without episodes, each must have a harvested adapter.
        base: The base model of the adapters.
        recipe: How to train.
        home: The registry.
        name: The name of the generator; an earlier one of this name is replaced once the new one is whole.
        device: The torch device on which the base runs and the generator trains; None takes a GPU where there is one.
        log_with: The tracker of accelerate's, such as ``tensorboard``, that logs the losses; None logs nothing.
        on_progress: Called for each task that is read, and after each step.

    Raises:
        UsageError: If a task is of split ``unseen``, there is no task, or parts of the recipe contradict each other.
        NotFoundError: If a task has no adapter and the recipe no episodes.
        CorruptFileError: If an adapter is broken.
        TrainingDivergedError: If a loss is not finite.
    """
    started = time.monotonic()
    _check(tasks, recipe)
    harvested = find_harvested(tasks, base, AdapterStore(home), all_needed=recipe.episodes is None)
    _check_idle(tasks, harvested, recipe)
    if recipe.objective.sensitivity:
        sensitivity.check(harvested, recipe)
    key = _key(tasks, [(item.task, item.record) for item in harvested], base, recipe, home)
    target = GeneratorStore(home).folder(name)
    if (target / CONFIG).is_file() and read_config(target).key == key:
        load_generator(target)  # raises where it is broken
        return _result(target, trained=False, seconds=time.monotonic() - started)
    meter, replaced = CostMeter(), None

    def report(progress: Progress) -> None:
        meter.sample()
        on_progress(progress)

    with Distributed(log_with, home.root / "logs" / name, name, recipe.flat()) as distributed:
        loaded = load_base(base, device=distributed.device or device, on_note=notes_of_memory(on_progress))
        basis = make_basis(harvested, loaded, recipe.data)
        training = Training(tasks, harvested, basis, loaded, recipe, home, name, key, distributed, meter, report)
        generator, curve = training.fit()
        if distributed.main:
            as_stored = stored(generator, recipe.storage)
            figures = training.figures(generator, as_stored) | meter.figures()
            about = manifest.about_of(tasks, harvested, base, recipe, key, figures, curve, training.builtin)
            if (target / CONFIG).is_file():
                replaced = quarantine.keep(home, target, "replaced by another training of this name")
            manifest.save(target, as_stored, about, recipe)
            training.state.unlink(missing_ok=True)
        distributed.wait()
    return replace(_result(target, trained=True, seconds=time.monotonic() - started), replaced=replaced)


def key_of(tasks: Sequence[Task], base: Base, recipe: TrainRecipe, home: Home) -> str:
    """Return the key that a training would have: the hash of adapters, tasks and recipe.

    Raises:
        NotFoundError: If a task has no adapter.
        CorruptFileError: If a manifest is broken.
    """
    store = AdapterStore(home)
    return _key(tasks, [(task, store.latest(base, task)) for task in tasks], base, recipe, home)


def _check(tasks: Sequence[Task], recipe: TrainRecipe) -> None:
    episodic = recipe.episodes is not None
    if not tasks and not (recipe.episodes and recipe.episodes.builtin != "none"):
        raise UsageError("there is no task to learn from", hint="icmlora task add ..., then icmlora harvest")
    if episodic and recipe.network.arch == "p-diff":
        raise UsageError("p-diff has no episodes", hint="take episodes out of the recipe, or arch: token")
    if episodic and recipe.optimiser.steps <= recipe.optimiser.pretrain_steps:
        raise UsageError(
            f"steps ({recipe.optimiser.steps}) leaves none for episodes after pretrain_steps "
            f"({recipe.optimiser.pretrain_steps})",
            hint="raise --steps, or lower pretrain_steps in the recipe",
        )
    if episodic and recipe.optimiser.epochs is not None:
        raise UsageError(
            "optimiser.epochs counts passes over harvested adapters, and episodes have none",
            hint="set optimiser.steps in the recipe, or take episodes out of it",
        )
    if recipe.optimiser.patience is not None and recipe.optimiser.epochs is None:
        raise UsageError(
            "optimiser.patience counts epochs, and the recipe has none",
            hint="set optimiser.epochs in the recipe to the most that there may be",
        )
    if recipe.network.reader == "mean" and recipe.data.vectors.pooling == "tokens":
        raise UsageError(
            "network.reader: mean reads one vector a slot, and data.vectors.pooling: tokens gives many",
            hint="set network.reader: attention, or data.vectors.pooling: mean, in the recipe",
        )
    head = [name for name in TrainRecipe.LATER["network"] if name in recipe.flat()]
    if head and recipe.network.arch != "token":
        raise UsageError(
            f"network.{head[0]} is an option of arch: token, and the recipe has arch: {recipe.network.arch}",
            hint=f"take network.{head[0]} out of the recipe",
        )
    episodes = recipe.episodes
    if episodes is not None and not episodes.weight and (episodes.swap_weight or episodes.distill_weight):
        raise UsageError(
            "episodes.swap_weight and distill_weight are of queries, and with episodes.weight: 0 there are none",
            hint="raise episodes.weight in the recipe, or set both to 0",
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
    if recipe.network.prior == "neighbours" and not learned:
        raise UsageError(
            "prior: neighbours is made of harvested adapters, and there is none",
            hint="icmlora harvest, or prior: learned in the recipe",
        )
    if recipe.network.mean_adapter and not learned:
        raise UsageError(
            "network.mean_adapter is the mean of harvested adapters, and there is none",
            hint="icmlora harvest, or take mean_adapter out of the recipe",
        )
    mute = [task for task in tasks if task.template.kind == "text" or not task.has_examples]
    if recipe.episodes is not None and recipe.episodes.distill_weight and learned <= {task.name for task in mute}:
        raise UsageError(
            "episodes.distill_weight: no task with questions has a harvested adapter to distil",
            hint="icmlora harvest, or episodes.distill_weight: 0 in the recipe",
        )
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
    """Return the hash of all that decides a training: tasks, adapters, recipe, and the built-in tasks of episodes."""
    values = recipe.flat()  # the form that 0.1.0 hashed, so that keys of the same training have not changed
    values = {name: value for name, value in values.items() if name != "save_every"}
    items = [
        [task.name, *task.descriptions, task.data_hash, *(c.sha256 for c in record.checkpoints)]
        for task, record in harvested
    ]
    if recipe.objective.sensitivity:
        items += [[record.sensitivity.sha256] for _, record in harvested if record.sensitivity is not None]
    if recipe.episodes is not None:
        pools = builtin_pool(recipe.episodes, recipe.seed, known_names(tasks, home))
        items += [[task.name, *task.descriptions, task.data_hash] for task in tasks] + [[base.weight_hash]]
        items += [[task.name for task in pool] for pool in pools]
        items += [[item] for item in base.encoding]
    version = NORMALISED if recipe.network.arch == "conv1d" else VERSION
    return files.sha256_json([version, values, items])[:16]


def _result(target: Path, *, trained: bool, seconds: float) -> TrainResult:
    generator = load_generator(target)
    recorded, figures = generator.manifest, generator.manifest.figures
    return TrainResult(
        folder=target,
        tasks=tuple(recorded.tasks),
        harvested=len(recorded.adapters),
        builtin=len(recorded.builtin_tasks),
        left_out=int(recorded.figures.get("left_out", 0)),
        trained=trained,
        width=generator.codec.width,
        codec_error=float(figures["codec_error"]),
        error=float(figures["error"]),
        epochs=float(figures["epochs"]) if "epochs" in figures else None,
        flat=bool(figures["flat"]) if "flat" in figures else None,
        validation=float(figures["validation"]) if "validation" in figures else None,
        storage_error=float(figures["storage_error"]),
        parameters=manifest.count_numbers(generator),
        bytes=files.folder_bytes(target),
        seconds=seconds,
        no_derivatives=no_derivatives(recorded.licences),
    )
