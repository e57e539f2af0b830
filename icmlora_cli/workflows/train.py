"""Train: the conditional VAE over the harvested adapters of many tasks, jointly, and in episodes through the base."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.errors import NotFound, UsageFault
from icmlora_cli.generator.checkpoint import (
    Generator,
    load_generator,
    module_scales,
    read_config,
    save_generator,
    stored,
)
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.fit import StepLosses, TaskData, Validation, fit
from icmlora_cli.generator.interface import Network, NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.row_cores import RowCores
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import CONFIG, GeneratorStore
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.report.cards import generator_card
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.codec import Codec, fit_codec, relative_error
from icmlora_cli.weights.frame import FrameSpec, extended_frame, seeded_frame
from icmlora_cli.weights.layout import layout_of
from icmlora_cli.workflows import episodes
from icmlora_cli.workflows.episodes import EpisodeTask, EpisodeTerm, TaskValidation
from icmlora_cli.workflows.fleet import Fleet
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

CURVE = 200  # points of the losses that are kept
VERSION = 2  # of the training procedure; part of every key
STATE = ".training.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """A trained generator.

    Args:
        folder: where it is.
        tasks: what it learned from.
        harvested: how many of them had harvested adapters.
        builtin: how many built-in tasks the episodes drew from, beside them.
        trained: False where the very same generator was there already.
        width: R of the codec's basis.
        codec_error: mean relative error of delta-W that the basis alone costs.
        error: mean relative error of delta-W of the generated adapters, from the descriptions of the harvested tasks.
        validation: mean NLL of the validation tasks with the weights that were kept, nats per token; None without.
        storage_error: relative change of generated delta-W that the stored form of the numbers costs.
        parameters: numbers in ``generator.safetensors``.
        bytes: of the generator's folder.
        seconds: wall time.
    """

    folder: Path
    tasks: tuple[str, ...]
    harvested: int
    builtin: int
    trained: bool
    width: int
    codec_error: float
    error: float
    validation: float | None
    storage_error: float
    parameters: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class _Harvested:
    """A task with its record and the adapters of its kept checkpoints."""

    task: Task
    record: AdapterRecord
    adapters: tuple[Adapter, ...]


@dataclass(frozen=True)
class _Basis:
    """The codec, and what its basis is made from where it is a seeded frame."""

    codec: Codec
    frame: FrameSpec | None


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
        UsageFault: if a task is of split ``unseen``, there is no task, or the recipe does not fit together.
        NotFound: if a task has no adapter and the recipe no episodes.
        CorruptFile: if an adapter is broken.
        TrainingDiverged: if a loss is not finite.
    """
    started = time.monotonic()
    _check(tasks, recipe)
    harvested = _harvested(tasks, base, AdapterStore(home), recipe)
    learned = {item.task.name for item in harvested}
    idle = [task.name for task in tasks if task.template.kind == "text" and task.name not in learned]
    if idle:
        raise UsageFault(
            f"{', '.join(idle)}: plain text has no questions for episodes, and no adapter is harvested",
            hint=f"icmlora harvest --tasks {idle[0]}",
        )
    key = _key(tasks, [(item.task, item.record) for item in harvested], base, recipe)
    target = GeneratorStore(home).folder(name)
    if (target / CONFIG).is_file() and read_config(target).get("key") == key:
        load_generator(target)  # a broken one says so
        return _result(target, trained=False, seconds=time.monotonic() - started)
    fleet = Fleet(log_with, home.root / "logs" / name, name, recipe.model_dump(mode="json"))
    loaded = load_base(base, device=fleet.device or device)
    basis = _basis(harvested, loaded, recipe)
    training = _Training(tasks, harvested, basis, loaded, recipe, home, name, key, fleet, on_progress)
    with fleet:
        generator, curve = training.fit()
    if not fleet.main:
        fleet.wait()
        return _result(target, trained=True, seconds=time.monotonic() - started)
    kept = stored(generator, recipe.storage)
    figures = training.figures(generator, kept) | {"seconds": time.monotonic() - started}
    about = _about(tasks, harvested, base, recipe, key, figures, curve, training.builtin)
    _save(target, kept, about, recipe)
    training.state.unlink(missing_ok=True)
    fleet.wait()
    return _result(target, trained=True, seconds=figures["seconds"])


def key_of(tasks: Sequence[Task], base: Base, recipe: TrainRecipe, home: Home) -> str:
    """Return the key that a training would have: the hash of adapters, tasks and recipe.

    Raises:
        NotFound: if a task has no adapter.
        CorruptFile: if a manifest is broken.
    """
    store = AdapterStore(home)
    return _key(tasks, [(task, store.latest(base, task)) for task in tasks], base, recipe)


def _check(tasks: Sequence[Task], recipe: TrainRecipe) -> None:
    episodic = recipe.episodes is not None
    if not tasks and not (recipe.episodes and recipe.episodes.builtin != "none"):
        raise UsageFault("there is no task to learn from", hint="icmlora task add ..., then icmlora harvest")
    if episodic and recipe.arch == "p-diff":
        raise UsageFault("p-diff has no episodes", hint="take episodes out of the recipe, or arch: token")
    if episodic and recipe.steps <= recipe.pretrain_steps:
        raise UsageFault(
            f"steps ({recipe.steps}) leaves none for episodes after pretrain_steps ({recipe.pretrain_steps})",
            hint="raise --steps, or lower pretrain_steps in the recipe",
        )
    if recipe.reader == "mean" and recipe.vectors.pooling == "tokens":
        raise UsageFault(
            "reader: mean reads one vector a slot, and vectors.pooling: tokens gives many",
            hint="set reader: attention, or vectors.pooling: mean, in the recipe",
        )
    unseen = [task.name for task in tasks if task.split != "train"]
    if unseen:
        raise UsageFault(
            f"{', '.join(unseen)}: of split 'unseen', which a generator must not learn from",
            hint="leave them out of --tasks, or change their split in the task file and add it again",
        )


def _harvested(tasks: Sequence[Task], base: Base, store: AdapterStore, recipe: TrainRecipe) -> list[_Harvested]:
    found = []
    for task in tasks:
        try:
            record = store.latest(base, task)
        except NotFound:
            if recipe.episodes is None:
                raise
            continue  # episodes need none
        adapters = tuple(read_adapter(store.checked(record, item)) for item in record.checkpoints)
        found.append(_Harvested(task, record, adapters))
    return found


def _key(
    tasks: Sequence[Task], harvested: Sequence[tuple[Task, AdapterRecord]], base: Base, recipe: TrainRecipe
) -> str:
    """Return the hash that makes a training what it is: tasks, adapters, recipe."""
    values = recipe.model_dump(mode="json")
    values.pop("save_every")
    items = [[task.name, *task.descriptions, *(c.sha256 for c in record.checkpoints)] for task, record in harvested]
    if recipe.episodes is not None:
        items += [[task.name, *task.descriptions, task.data_hash] for task in tasks] + [[base.weight_hash]]
    return files.sha256_json([VERSION, values, items])[:16]


def _basis(harvested: Sequence[_Harvested], loaded: LoadedBase, recipe: TrainRecipe) -> _Basis:
    """Return the frame that the adapters were harvested in, extended for those that were not, or a learned basis.

    Raises:
        UsageFault: if there are neither adapters nor episodes' modules to make one for.
    """
    everything = [adapter for item in harvested for adapter in item.adapters]
    specs = {_frame_of(item.record) for item in harvested}
    own = next(iter(specs)) if len(specs) == 1 else None
    if recipe.basis == "learned" or (recipe.basis == "auto" and everything and own is None):
        if not everything:
            raise UsageFault("basis: learned needs harvested adapters", hint="icmlora harvest, or basis: frame")
        return _Basis(fit_codec(everything, energy=recipe.energy, max_width=recipe.max_width), None)
    spec = own or FrameSpec(recipe.frame_seed, recipe.frame_width)
    layout = layout_of(everything) if everything else target_layout(loaded.model, recipe.target_modules)
    frame = seeded_frame(layout, spec, loaded.base.model_id)
    foreign = [adapter for item in harvested if _frame_of(item.record) != spec for adapter in item.adapters]
    if foreign and recipe.directions:
        frame = extended_frame(frame, foreign, recipe.directions)
    return _Basis(frame, spec)


def _frame_of(record: AdapterRecord) -> FrameSpec | None:
    recipe = record.about.get("recipe")
    if not isinstance(recipe, dict) or recipe.get("parametrization") != "frame":
        return None
    return FrameSpec(int(recipe["seed"]), int(recipe["rank"]))


@dataclass
class _Training:
    """One training, from readings to weights."""

    tasks: Sequence[Task]
    harvested: Sequence[_Harvested]
    basis: _Basis
    loaded: LoadedBase
    recipe: TrainRecipe
    home: Home
    name: str
    key: str
    fleet: Fleet
    on_progress: OnProgress

    def __post_init__(self) -> None:
        self.reader = VectorReader(self.loaded, self.recipe.vectors, self.home)
        self.state = self.home.generators / f"{self.name}{STATE}"
        self.builtin: list[EpisodeTask] = []
        self.validation: dict[str, float] = {}
        self._read()

    def _read(self) -> None:
        """Read the supports of all tasks: of the harvested ones, and of those that episodes draw from."""
        recipe = self.recipe
        self.pool: list[EpisodeTask] = []
        self.held: list[EpisodeTask] = []
        if recipe.episodes is not None:
            known = {task.name for task in (*self.tasks, *TaskStore(self.home).select(None))}
            train, held = episodes.builtin_pool(recipe.episodes, recipe.seed, known)
            queried = [task for task in self.tasks if task.template.kind != "text"]
            read = episodes.read_tasks(queried, [*train, *held], self.reader, recipe, on_progress=self.on_progress)
            count = len(read) - len(held)
            self.pool, self.held = read[:count], read[count:]
            self.builtin = [item for item in self.pool if not item.registered]
        own = {item.name: item for item in self.pool if item.registered}
        self.texts: list[list[torch.Tensor]] = []
        self.shown: list[list[torch.Tensor]] = []
        for index, item in enumerate(self.harvested):
            if item.task.name in own:
                self.texts.append(list(own[item.task.name].texts))
                self.shown.append(list(own[item.task.name].demonstrations))
                continue
            self.texts.append([self.reader.read_text(text) for text in item.task.descriptions])
            examples, kind = item.task.examples("train"), item.task.template.kind
            self.shown.append(self.reader.reading_draws(examples, seed=recipe.seed, kind=kind))
            self.on_progress(Progress("vectors", "of tasks", index + 1, len(self.harvested)))

    def _space(self) -> ConditionSpace:
        pooled = [item for item in self.pool if not item.registered or item.name not in self._names()]
        texts = [row for own in self.texts for row in own] + [row for item in pooled for row in item.texts]
        shown = [row for own in self.shown for row in own] + [row for item in pooled for row in item.demonstrations]
        nothing = torch.zeros(0, self.reader.size)
        return ConditionSpace(
            text=SlotStatistics.of(torch.cat([nothing, *(row.float() for row in texts)])),
            demonstrations=SlotStatistics.of(torch.cat([nothing, *(row.float() for row in shown)])),
        )

    def _names(self) -> set[str]:
        return {item.task.name for item in self.harvested}

    def fit(self) -> tuple[Generator, tuple[StepLosses, ...]]:
        """Train, and return the generator with its losses."""
        recipe, codec = self.recipe, self.basis.codec
        mask, space = codec.mask(), self._space()
        tokens = [torch.stack([codec.encode(adapter) for adapter in item.adapters]) for item in self.harvested]
        if tokens:
            scale = module_scales(torch.cat(tokens), mask)
        else:
            scale = torch.full((len(codec.layout.modules),), recipe.core_scale)
        data = [
            TaskData(own / scale[:, None, None], texts, shown)
            for own, texts, shown in zip(tokens, self.texts, self.shown, strict=True)
        ]
        model = self._network(space)
        terms: list[EpisodeTerm] = []
        validation: Validation | None = None
        if recipe.episodes is not None:
            model = model.to(self.loaded.device)
            names = [item.name for item in codec.layout.modules]
            rows = RowCores(self.loaded.model, names, codec.left, codec.right)
            on_device = scale.to(self.loaded.device)
            process = (self.fleet.process, self.fleet.processes)
            terms = [EpisodeTerm(self.loaded, rows, on_device, self.pool, space, recipe, process)]
            if self.held:
                score = TaskValidation(terms[0], self.held, recipe.episodes.validation_examples)
                last = len(model.stages(recipe)) - 1
                validation = Validation(recipe.episodes.validate_every, score, last)
        curve = fit(
            model, data, space, mask, recipe,
            state=self.state, key=self.key, on_step=self._report, terms=terms, validation=validation,
            reduce=self.fleet.reduce, keeps_state=self.fleet.main,
        )  # fmt: skip
        adapters = [adapter for item in self.harvested for adapter in item.adapters]
        rank = codec.width
        if self.basis.frame is None:
            rank = max(adapter.rank for adapter in adapters)
        if validation is not None:
            with torch.no_grad():
                self.validation["validation"] = validation.score(model.eval())
        return Generator(model.cpu().eval(), codec, space, scale, rank, {}, self.basis.frame), curve

    def _network(self, space: ConditionSpace) -> Network:
        recipe, codec = self.recipe, self.basis.codec
        kinds = sorted({item.kind for item in codec.layout.modules})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return build(
                NetworkConfig(
                    arch=recipe.arch,
                    places=tuple((item.layer, kinds.index(item.kind)) for item in codec.layout.modules),
                    width=codec.width,
                    hidden=space.hidden,
                    latent_dim=recipe.latent_dim,
                    hidden_dim=recipe.hidden_dim,
                    code_dim=recipe.code_dim,
                    shared_heads=recipe.heads == "shared" or (recipe.heads == "auto" and self.basis.frame is not None),
                    reader=recipe.reader,
                    reader_dim=recipe.reader_dim,
                    reader_layers=recipe.reader_layers,
                    queries=recipe.queries,
                    condition_dim=recipe.condition_dim,
                )
            )

    def _report(self, losses: StepLosses) -> None:
        self.fleet.log(losses.values, losses.step)
        detail = ", ".join(f"{loss} {value:.4f}" for loss, value in losses.values.items())
        self.on_progress(Progress("train", self.name, losses.step, self.recipe.steps, detail))

    def figures(self, generator: Generator, kept: Generator) -> dict[str, float]:
        """Return what is told of the trained generator.

        Args:
            generator: as it was trained.
            kept: as it is once it has been stored.
        """
        everything = [adapter for item in self.harvested for adapter in item.adapters]
        pairs = list(zip(self.harvested, self.texts, strict=True))
        codec_errors = [relative_error(self.basis.codec, adapter) for adapter in everything]
        samples = [texts[0] for _, texts in pairs] or [item.texts[0] for item in self.pool[:16]]
        changes = [_relative(kept.generate(text, None), generator.generate(text, None)) for text in samples]
        errors = [_relative(kept.generate(texts[0], None), item.adapters[-1]) for item, texts in pairs]
        return {
            "error": _mean(errors),
            "codec_error": _mean(codec_errors),
            "storage_error": _mean(changes),
        } | self.validation


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _relative(made: Adapter, wanted: Adapter) -> float:
    """Return ||made - wanted|| / ||wanted|| of delta-W over all modules."""
    missed = total = 0.0
    for module in wanted.factors:
        delta = wanted.delta(module)
        missed += float((made.delta(module) - delta).square().sum())
        total += float(delta.square().sum())
    return (missed / total) ** 0.5 if total else 0.0


def _about(
    tasks: Sequence[Task],
    harvested: Sequence[_Harvested],
    base: Base,
    recipe: TrainRecipe,
    key: str,
    figures: dict[str, float],
    curve: Sequence[StepLosses],
    builtin: Sequence[EpisodeTask],
) -> dict[str, object]:
    licences = sorted({task.licence for task in tasks if task.licence})
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
        "licences": licences,
        "recipe": recipe.model_dump(mode="json"),
        "figures": figures,
        "curve": [
            [losses.step, {loss: float(f"{value:.4g}") for loss, value in losses.values.items()}] for losses in points
        ],
        "versions": provenance.versions(),
        "command": provenance.command_line(),
        "created": provenance.now(),
    }


def _save(target: Path, generator: Generator, about: dict[str, object], recipe: TrainRecipe) -> None:
    whole = replace(generator, about=about)
    tasks, licences, figures = about["tasks"], about["licences"], about["figures"]
    assert isinstance(tasks, dict) and isinstance(licences, list) and isinstance(figures, dict)
    with files.new_folder(target) as folder:
        save_generator(folder, whole, recipe.storage)
        card = generator_card(
            name=target.name,
            base_model=generator.codec.base_model,
            tasks=tasks,
            numbers=_numbers(whole),
            licences=licences,
            error=figures["error"],
        )
        files.write_text(folder / "README.md", card)


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
        trained=trained,
        width=generator.codec.width,
        codec_error=float(figures["codec_error"]),
        error=float(figures["error"]),
        validation=float(figures["validation"]) if "validation" in figures else None,
        storage_error=float(figures["storage_error"]),
        parameters=_numbers(generator),
        bytes=files.folder_bytes(target),
        seconds=seconds,
    )
