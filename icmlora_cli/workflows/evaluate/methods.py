"""Makes the methods of an evaluation from a registry, a base and a generator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe, VectorRecipe, nested
from icmlora_cli.disk.home import Home
from icmlora_cli.evidence.search import SearchOptions
from icmlora_cli.generator.checkpoint import Generator, load_generator
from icmlora_cli.lm.core_tuning import CoreBase
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.controls import NoiseMethod, SwappedText
from icmlora_cli.methods.generated import (
    BestOfMethod,
    CompanionMethod,
    EvidenceMethod,
    GeneratedMethod,
    GeneratorSource,
    random_text,
)
from icmlora_cli.methods.harvested import AverageMethod, HarvestedMethod, Library, NearestMethod, Neighbours
from icmlora_cli.methods.method import Method, TaskContext, UnavailableError, Uses
from icmlora_cli.methods.prompting import BaseMethod, DescribedMethod, InContextMethod
from icmlora_cli.methods.tuned import MultiTaskMethod, TunedMethod
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.builtin import BuiltinTask, dense_tasks
from icmlora_cli.workflows.evaluate.scores import nll_on_shots
from icmlora_cli.workflows.gen.generate import vector_recipe
from icmlora_cli.workflows.gen.learned import learned_adapters
from icmlora_cli.workflows.gen.options import EVIDENCE_SAMPLES
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_vectors
from icmlora_cli.workflows.train import train

COMPANIONS = {"conv1d": "Conv1d CVAE of the ICM-LoRA paper", "p-diff": "COND P-DIFF (latent diffusion)"}


@dataclass(frozen=True)
class EvalContext:
    """What the methods of one evaluation share; ``evaluation`` makes it.

    Args:
        loaded: The base.
        home: The registry.
        recipe: The recipe of the evaluation.
        tasks: The tasks that are evaluated.
        learned: The training tasks that are still registered: those of the generator, or without one all of split
            ``train``.
        library: The newest harvested adapters of the training tasks.
        generator: The generator that is scored; None without one.
        folder: The folder of the generator; None without one.
        on_progress: Called during the training of baselines.
    """

    loaded: LoadedBase
    home: Home
    recipe: EvalRecipe
    tasks: tuple[Task, ...]
    learned: tuple[Task, ...]
    library: Library
    generator: Generator | None
    folder: Path | None
    on_progress: OnProgress

    @property
    def vectors(self) -> VectorRecipe:
        """The settings by which task vectors are read: the generator's, or without one the defaults."""
        return VectorRecipe() if self.generator is None else vector_recipe(self.generator)

    @cached_property
    def note(self) -> Callable[[str], None]:
        """What reports a remark on cached task vectors, the same one only once."""
        return notes_of_vectors(self.on_progress)

    @cached_property
    def builtin(self) -> tuple[BuiltinTask, ...]:
        """The built-in tasks that the generator's episodes drew from."""
        drawn = frozenset(() if self.generator is None else self.generator.manifest.builtin_tasks)
        return tuple(task for task in dense_tasks() if task.name in drawn) if drawn else ()

    def reader(self) -> VectorReader:
        """Return a reader of task vectors from the loaded base."""
        return VectorReader(self.loaded, self.vectors, self.home, self.note)

    def source(self) -> GeneratorSource | None:
        """Return the generator with its reader; None without a generator."""
        if self.generator is None:
            return None
        return GeneratorSource(self.generator, self.reader(), generator_key(self.generator))

    def texts(self) -> tuple[dict[str, str], dict[str, str | None]]:
        """Return the main description and the family of every task that is evaluated or was learned from."""
        tasks = {task.name: task for task in (*self.learned, *self.tasks)}
        return {name: task.descriptions[0] for name, task in tasks.items()}, {
            name: task.family for name, task in tasks.items()
        }


def generator_key(generator: Generator) -> str:
    """Return the key and the checksum of a generator, which stand for its weights."""
    return f"{generator.manifest.key}:{generator.manifest.sha256}"


def evaluation(
    tasks: Sequence[Task],
    loaded: LoadedBase,
    home: Home,
    recipe: EvalRecipe,
    folder: Path | None,
    on_progress: OnProgress,
) -> EvalContext:
    """Return what the methods of an evaluation share; the arguments are those of ``evaluate.run``.

    Raises:
        CorruptFileError: If a generator or manifest is broken.
    """
    generator = None if folder is None else load_generator(folder)
    learned = _learned(generator, TaskStore(home))
    store = AdapterStore(home)
    newest = (store.newest(loaded.base, task) for task in learned)
    library = Library(store, tuple(record for record in newest if record is not None))
    return EvalContext(loaded, home, recipe, tuple(tasks), learned, library, generator, folder, on_progress)


def seen_tasks(generator: Generator | None) -> frozenset[str]:
    """Return the names of the tasks that a generator learned from, registered and built-in."""
    if generator is None:
        return frozenset()
    return frozenset(generator.manifest.tasks) | frozenset(generator.manifest.builtin_tasks)


def harvested_tasks(generator: Generator | None) -> frozenset[str]:
    """Return the names of the tasks whose harvested adapters a generator learned from."""
    return frozenset(() if generator is None else generator.manifest.adapters)


def _learned(generator: Generator | None, store: TaskStore) -> tuple[Task, ...]:
    names = seen_tasks(generator)
    tasks = [store.get(name) for name in store.names() if not names or name in names]
    return tuple(task for task in tasks if task.split == "train")


def methods_of(evaluation: EvalContext) -> tuple[Method, ...]:
    """Return the methods that the recipe asks for, without those that need a generator where there is none."""
    makers: dict[str, Callable[[], Method | None]] = {
        "base": BaseMethod,
        "described": lambda: DescribedMethod() if evaluation.recipe.protocol == "bare" else None,
        "in-context": InContextMethod,
        "average": lambda: AverageMethod(evaluation.library),
        "nearest": lambda: _nearest(evaluation, "nearest"),
        "nearest-other": lambda: _nearest(evaluation, "nearest-other"),
        "nearest-shots": lambda: _nearest(evaluation, "nearest-shots"),
        "weighted": lambda: _nearest(evaluation, "weighted"),
        "multi-task": lambda: _multi_task(evaluation),
        "noise": lambda: NoiseMethod(evaluation.library, evaluation.recipe.seed),
        "conv1d": lambda: _companion(evaluation, "conv1d"),
        "p-diff": lambda: _companion(evaluation, "p-diff"),
        "tuned": lambda: _tuned(evaluation),
        "harvested": lambda: HarvestedMethod(evaluation.library.store, evaluation.loaded.base),
    }
    source = evaluation.source()
    if source is not None:
        makers |= _generated(evaluation, source)
    methods = (makers[name]() for name in evaluation.recipe.methods if name in makers)
    return tuple(method for method in methods if method is not None)


def _generated(evaluation: EvalContext, source: GeneratorSource) -> dict[str, Callable[[], Method | None]]:
    recipe = evaluation.recipe
    return {
        "random-text": lambda: GeneratedMethod(
            source, "random-text", "generated from random words", random_text, uses="nothing"
        ),
        "swapped-text": lambda: GeneratedMethod(
            source, "swapped-text", "generated from another task's description", swapped(evaluation), uses="nothing"
        ),
        "tuned-same-time": lambda: TunedMethod(
            evaluation.loaded,
            HarvestRecipe(),
            source.seconds,
            "tuned-same-time",
            "fine-tuned on the k examples as long as generation takes",
            f"as generation by {source.key}",
        ),
        "generated": lambda: GeneratedMethod(source),
        "generated-shots": lambda: GeneratedMethod(
            source,
            "generated-shots",
            "generated from description and k examples",
            with_shots=True,
            uses="text and examples",
        ),
        "best-of": lambda: BestOfMethod(
            source,
            lambda context, adapter: nll_on_shots(evaluation.loaded, context, adapter),
            recipe.samples,
            recipe.seed,
        ),
        "gen-examples": lambda: _evidence(evaluation, source),
    }


def swapped(evaluation: EvalContext) -> SwappedText:
    """Return what chooses another task's description."""
    return SwappedText(*evaluation.texts())


def _evidence(evaluation: EvalContext, source: GeneratorSource) -> EvidenceMethod:
    recipe, codec = evaluation.recipe, source.generator.codec
    known = learned_adapters(source.generator, evaluation.library.store, evaluation.loaded.base)
    return EvidenceMethod(
        source,
        CoreBase(evaluation.loaded, codec),
        SearchOptions(EVIDENCE_SAMPLES, recipe.evidence_seconds, seed=recipe.seed),
        known.tasks,
        cache(lambda: known.cores(codec)),
    )


def _tuned(evaluation: EvalContext) -> TunedMethod:
    seconds = evaluation.recipe.tune_seconds
    title = f"fine-tuned on the k examples for {seconds:g} s"
    return TunedMethod(evaluation.loaded, HarvestRecipe(), lambda context: seconds, "tuned", title, f"{seconds:g} s")


def _multi_task(evaluation: EvalContext) -> MultiTaskMethod:
    steps = evaluation.recipe.multi_task_steps
    recipe = HarvestRecipe(steps=steps, seed=evaluation.recipe.seed)

    def report(step: int) -> None:
        evaluation.on_progress(Progress("eval", "multi-task LoRA", step, steps))

    folder = evaluation.home.root / "baselines" / evaluation.loaded.base.slug
    return MultiTaskMethod(evaluation.loaded, evaluation.learned, recipe, folder, report)


def _nearest(evaluation: EvalContext, name: str) -> NearestMethod:
    reader, by_shots, count = evaluation.reader(), name == "nearest-shots", 1
    if name == "weighted":
        count = evaluation.recipe.neighbours
    title = {
        "nearest": "nearest task's adapter, by the description's vector",
        "nearest-other": "nearest other task's adapter, by the description's vector",
        "nearest-shots": "nearest task's adapter, by the examples' vector",
        "weighted": f"weighted average of the {count} nearest tasks' adapters",
    }[name]
    harvested = [
        task
        for task in evaluation.learned
        if task.name in evaluation.library.tasks and (task.has_examples or not by_shots)
    ]

    @cache
    def neighbours() -> Neighbours:
        vectors = [
            reader.draws(task.examples("train"), seed=evaluation.recipe.seed, kind=task.template.kind).mean(0)
            if by_shots
            else reader.text(task.descriptions[0])
            for task in harvested
        ]
        if not vectors:
            raise UnavailableError("no training task with an adapter has examples")
        return Neighbours(tuple(task.name for task in harvested), torch.stack(vectors))

    def vector_of(context: TaskContext) -> torch.Tensor:
        if not by_shots:
            return reader.text(context.text)
        if len(context.shots) < 2:
            raise UnavailableError("the task has fewer than two training examples to show")
        return reader.examples_vector(context.shots, context.task.template.kind)

    uses: Uses = "text and examples" if by_shots else "text"
    others = name == "nearest-other"
    reading = [reader.recipe.model_dump(mode="json"), [[task.name, task.descriptions[0]] for task in harvested]]
    return NearestMethod(evaluation.library, neighbours, vector_of, count, name, title, reading, uses, others=others)


def _own_recipe(generator: Generator) -> TrainRecipe:
    """Return the recipe by which a generator was trained."""
    return TrainRecipe.model_validate(nested(generator.manifest.recipe or {}))


def _companion(evaluation: EvalContext, arch: str) -> CompanionMethod | None:
    """Return the method of a generator of another architecture that learned from the same adapters: a companion.

    A generator of the companion's name is used whatever its recipe, if it learned from the same tasks. Where there is
    none, it is trained by the shipped recipe of the architecture, with the scored generator's seed and vectors.
    Without a generator, or where that is of the architecture itself, there is no such method.
    """
    if evaluation.generator is None or evaluation.folder is None or evaluation.generator.model.config.arch == arch:
        return None
    trained = _own_recipe(evaluation.generator)
    shipped = resolve(
        TrainRecipe,
        Path(f"train/{arch}"),
        "train",
        {"seed": trained.seed, "steps": evaluation.recipe.baseline_steps},
    )
    vectors = trained.data.vectors.model_copy(update={"pooling": shipped.data.vectors.pooling})
    recipe = shipped.model_copy(update={"data": shipped.data.model_copy(update={"vectors": vectors})})
    name = f"{evaluation.folder.name}.{arch}"
    learned = harvested_tasks(evaluation.generator)
    tasks = [task for task in evaluation.learned if task.name in learned and task.name in evaluation.library.tasks]
    store, base = GeneratorStore(evaluation.home), evaluation.loaded.base
    complete = bool(tasks) and len(tasks) == len(learned)
    key: str | None
    if name in store.names():
        key = store.manifest(name).key
    else:
        key = train.key_of(tasks, base, recipe, evaluation.home) if complete else None

    @cache
    def load() -> GeneratorSource:
        if name not in store.names():
            if not evaluation.recipe.train_baselines:
                raise UnavailableError(f"not trained: icmlora train --recipe train/{arch} --name {name}")
            if not complete:
                raise UnavailableError("not all harvested adapters that the generator learned from are here")
            device = str(evaluation.loaded.device)
            train.run(
                tasks, base, recipe, evaluation.home, name=name, device=device, on_progress=evaluation.on_progress
            )
        companion = load_generator(store.folder(name))
        if harvested_tasks(companion) != learned:
            raise UnavailableError(
                f"{name} learned from other tasks: icmlora train --recipe train/{arch} --name {name}"
            )
        reader = VectorReader(evaluation.loaded, vector_recipe(companion), evaluation.home, evaluation.note)
        return GeneratorSource(companion, reader, generator_key(companion))

    return CompanionMethod(load, [key, sorted(learned)], arch, COMPANIONS[arch])
