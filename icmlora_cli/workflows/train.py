"""Train: the codec and the conditional VAE over the harvested adapters of many tasks, jointly."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from icmlora_cli.config.recipes import TrainRecipe
from icmlora_cli.errors import UsageFault
from icmlora_cli.generator.checkpoint import Generator, load_generator, module_scales, read_config, save_generator
from icmlora_cli.generator.conditions import ConditionSpace, SlotStatistics
from icmlora_cli.generator.fit import StepLosses, TaskData, fit
from icmlora_cli.generator.interface import NetworkConfig
from icmlora_cli.generator.networks import build
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.generators import CONFIG, GeneratorStore
from icmlora_cli.registry.home import Home
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report.cards import generator_card
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.codec import Codec, fit_codec, relative_error
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

VERSION = 1  # of the training procedure; part of every key
STATE = ".training.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """A trained generator.

    Args:
        folder: where it is.
        tasks: what it learned from.
        trained: False where the very same generator was there already.
        width: R of the codec's basis.
        codec_error: mean relative error of delta-W that the basis alone costs.
        error: mean relative error of delta-W of the generated adapters, from the descriptions of the training tasks.
        parameters: numbers in ``generator.safetensors``.
        bytes: of the generator's folder.
        seconds: wall time.
    """

    folder: Path
    tasks: tuple[str, ...]
    trained: bool
    width: int
    codec_error: float
    error: float
    parameters: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class _Harvested:
    """A task with its record and the adapters of its kept checkpoints."""

    task: Task
    record: AdapterRecord
    adapters: tuple[Adapter, ...]


def run(
    tasks: Sequence[Task],
    base: Base,
    recipe: TrainRecipe,
    home: Home,
    *,
    name: str = "default",
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> TrainResult:
    """Train a generator on the newest harvested adapters of the tasks.

    Args:
        tasks: tasks of split ``train`` with a harvested adapter each.
        base: the base model of the adapters.
        recipe: how to train.
        home: the registry.
        name: the generator's; one of the same name is replaced once the new one is whole.
        device: where the base reads task vectors; the generator itself trains on the CPU.
        on_progress: told of each task's vectors and each step.

    Raises:
        UsageFault: if a task is of split ``unseen``, or there is no task.
        NotFound: if a task has no adapter.
        CorruptFile: if an adapter is broken.
        TrainingDiverged: if a loss is not finite.
    """
    started = time.monotonic()
    _check(tasks)
    harvested = _harvested(tasks, base, AdapterStore(home))
    key = _key([(item.task, item.record) for item in harvested], recipe)
    target = GeneratorStore(home).folder(name)
    if (target / CONFIG).is_file() and read_config(target).get("key") == key:
        load_generator(target)  # a broken one says so
        return _result(target, trained=False, seconds=time.monotonic() - started)
    everything = [adapter for item in harvested for adapter in item.adapters]
    codec = fit_codec(everything, energy=recipe.energy, max_width=recipe.max_width)
    vectors = _read_vectors(harvested, base, recipe, home, device, on_progress)
    generator, curve = _fit(harvested, codec, vectors, recipe, home, name, key, on_progress)
    error = _error(generator, harvested, vectors)
    codec_error = sum(relative_error(codec, adapter) for adapter in everything) / len(everything)
    seconds = time.monotonic() - started
    about = _about(
        harvested, base, recipe, key, {"error": error, "codec_error": codec_error, "seconds": seconds}, curve
    )
    _save(target, generator, about, error)
    (home.generators / f"{name}{STATE}").unlink(missing_ok=True)
    return _result(target, trained=True, seconds=seconds)


def key_of(tasks: Sequence[Task], base: Base, recipe: TrainRecipe, home: Home) -> str:
    """Return the key that a training would have: the hash of adapters, descriptions and recipe.

    Raises:
        NotFound: if a task has no adapter.
        CorruptFile: if a manifest is broken.
    """
    store = AdapterStore(home)
    return _key([(task, store.latest(base, task)) for task in tasks], recipe)


def _check(tasks: Sequence[Task]) -> None:
    if not tasks:
        raise UsageFault("there is no task to learn from", hint="icmlora task add ..., then icmlora harvest")
    unseen = [task.name for task in tasks if task.split != "train"]
    if unseen:
        raise UsageFault(
            f"{', '.join(unseen)}: of split 'unseen', which a generator must not learn from",
            hint="leave them out of --tasks, or change their split in the task file and add it again",
        )


def _harvested(tasks: Sequence[Task], base: Base, store: AdapterStore) -> list[_Harvested]:
    found = []
    for task in tasks:
        record = store.latest(base, task)
        adapters = tuple(read_adapter(store.checked(record, item)) for item in record.checkpoints)
        found.append(_Harvested(task, record, adapters))
    return found


def _key(harvested: Sequence[tuple[Task, AdapterRecord]], recipe: TrainRecipe) -> str:
    """Return the hash that makes a training what it is: adapters, descriptions, recipe."""
    values = recipe.model_dump(mode="json")
    values.pop("save_every")
    items = [[task.name, *task.descriptions, *(c.sha256 for c in record.checkpoints)] for task, record in harvested]
    return files.sha256_json([VERSION, values, items])[:16]


@dataclass(frozen=True)
class _Vectors:
    """Task vectors of one task: texts [descriptions, hidden], demonstrations [draws, hidden]."""

    texts: torch.Tensor
    demonstrations: torch.Tensor


def _read_vectors(
    harvested: Sequence[_Harvested],
    base: Base,
    recipe: TrainRecipe,
    home: Home,
    device: str | None,
    on_progress: OnProgress,
) -> list[_Vectors]:
    reader = VectorReader(load_base(base, device=device), recipe.vectors, home)
    vectors = []
    for index, item in enumerate(harvested):
        texts = torch.stack([reader.text(description) for description in item.task.descriptions])
        shown = reader.draws(item.task.examples("train"), seed=recipe.seed, kind=item.task.template.kind)
        vectors.append(_Vectors(texts, shown))
        on_progress(Progress("vectors", "of tasks", index + 1, len(harvested)))
    return vectors


def _fit(
    harvested: Sequence[_Harvested],
    codec: Codec,
    vectors: Sequence[_Vectors],
    recipe: TrainRecipe,
    home: Home,
    name: str,
    key: str,
    on_progress: OnProgress,
) -> tuple[Generator, tuple[StepLosses, ...]]:
    tokens = [torch.stack([codec.encode(adapter) for adapter in item.adapters]) for item in harvested]
    mask = codec.mask()
    scale = module_scales(torch.cat(tokens), mask)
    space = ConditionSpace(
        text=SlotStatistics.of(torch.cat([item.texts for item in vectors])),
        demonstrations=SlotStatistics.of(torch.cat([item.demonstrations for item in vectors])),
    )
    data = [
        TaskData(own / scale[:, None, None], item.texts, item.demonstrations)
        for own, item in zip(tokens, vectors, strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build(
            NetworkConfig(
                arch=recipe.arch,
                modules=len(codec.layout.modules),
                width=codec.width,
                condition_dim=space.condition_dim,
                latent_dim=recipe.latent_dim,
                hidden_dim=recipe.hidden_dim,
                code_dim=recipe.code_dim,
            )
        )

    def report(losses: StepLosses) -> None:
        detail = ", ".join(f"{loss} {value:.4f}" for loss, value in losses.values.items())
        on_progress(Progress("train", name, losses.step, recipe.steps, detail))

    state = home.generators / f"{name}{STATE}"
    curve = fit(model, data, space, mask, recipe, state=state, key=key, on_step=report)
    rank = max(adapter.rank for item in harvested for adapter in item.adapters)
    return Generator(model.eval(), codec, space, scale, rank, {}), curve


def _error(generator: Generator, harvested: Sequence[_Harvested], vectors: Sequence[_Vectors]) -> float:
    """Return the mean over tasks of ||generated - harvested|| / ||harvested||, from the first description."""
    errors = []
    for item, vector in zip(harvested, vectors, strict=True):
        generated, wanted = generator.generate(vector.texts[0], None), item.adapters[-1]
        missed = total = 0.0
        for module in wanted.factors:
            delta = wanted.delta(module)
            missed += float((generated.delta(module) - delta).square().sum())
            total += float(delta.square().sum())
        errors.append((missed / total) ** 0.5 if total else 0.0)
    return sum(errors) / len(errors)


def _about(
    harvested: Sequence[_Harvested],
    base: Base,
    recipe: TrainRecipe,
    key: str,
    figures: dict[str, float],
    curve: Sequence[StepLosses],
) -> dict[str, object]:
    licences = sorted({item.task.licence for item in harvested if item.task.licence})
    return {
        "key": key,
        "base": {
            "name": base.name,
            "revision": base.revision,
            "weight_hash": base.weight_hash,
            "licence": base.licence,
        },
        "tasks": {item.task.name: item.task.descriptions[0] for item in harvested},
        "adapters": {item.task.name: item.record.key for item in harvested},
        "licences": licences,
        "recipe": recipe.model_dump(mode="json"),
        "figures": figures,
        "curve": [[losses.step, dict(losses.values)] for losses in curve],
        "versions": provenance.versions(),
        "command": provenance.command_line(),
        "created": provenance.now(),
    }


def _save(target: Path, generator: Generator, about: dict[str, object], error: float) -> None:
    whole = Generator(generator.model, generator.codec, generator.space, generator.module_scale, generator.rank, about)
    tasks, licences = about["tasks"], about["licences"]
    assert isinstance(tasks, dict) and isinstance(licences, list)
    with files.new_folder(target) as folder:
        save_generator(folder, whole)
        card = generator_card(
            name=target.name,
            base_model=generator.codec.base_model,
            tasks=tasks,
            numbers=_numbers(whole),
            licences=licences,
            error=error,
        )
        files.write_text(folder / "README.md", card)


def _numbers(generator: Generator) -> int:
    return sum(item.numel() for item in generator.tensors().values())


def _result(target: Path, *, trained: bool, seconds: float) -> TrainResult:
    generator = load_generator(target)
    tasks, figures = generator.about["tasks"], generator.about["figures"]
    assert isinstance(tasks, dict) and isinstance(figures, dict)
    return TrainResult(
        folder=target,
        tasks=tuple(tasks),
        trained=trained,
        width=generator.codec.width,
        codec_error=float(figures["codec_error"]),
        error=float(figures["error"]),
        parameters=_numbers(generator),
        bytes=files.folder_bytes(target),
        seconds=seconds,
    )
