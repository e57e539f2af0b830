"""What a training learns from: the harvested adapters, and the basis in which the codec writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icmlora_cli.config.train import DataRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import NotFoundError, UsageError
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.registry.adapters import AdapterRecord, AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.codec import Codec, fit_codec
from icmlora_cli.weights.frame import FrameSpec, extended_frame, seeded_frame
from icmlora_cli.weights.layout import Layout, layout_of


@dataclass(frozen=True)
class Harvested:
    """A task to learn from, with the record of its newest harvest and the adapters of its kept checkpoints."""

    task: Task
    record: AdapterRecord
    adapters: tuple[Adapter, ...]


@dataclass(frozen=True)
class Basis:
    """The codec of a training; ``frame`` says from which seed its basis is drawn, and is None for a learned basis."""

    codec: Codec
    frame: FrameSpec | None


def find_harvested(tasks: Sequence[Task], base: Base, store: AdapterStore, *, all_needed: bool) -> list[Harvested]:
    """Return the tasks that have a harvested adapter, each with its newest one.

    Args:
        tasks: The tasks to learn from.
        base: The base model of the adapters.
        store: Where harvested adapters are.
        all_needed: Whether every task must have an adapter, as it must in a training without episodes.

    Raises:
        NotFoundError: If a task has no adapter and ``all_needed`` is set.
        CorruptFileError: If an adapter is broken.
    """
    harvested = []
    for task in tasks:
        try:
            record = store.latest(base, task)
        except NotFoundError:
            if all_needed:
                raise
        else:
            adapters = tuple(read_adapter(store.checked(record, item)) for item in record.checkpoints)
            harvested.append(Harvested(task, record, adapters))
    return harvested


def known_names(tasks: Sequence[Task], home: Home) -> set[str]:
    """Return the names of the given tasks and of all registered ones; episodes draw no built-in task of these names."""
    return {task.name for task in tasks} | set(TaskStore(home).names())


def chosen_frame(harvested: Sequence[Harvested], recipe: DataRecipe) -> FrameSpec | None:
    """Return the frame that a recipe takes for these adapters, or None where it learns a basis from them.

    An imported adapter is in no frame: with ``basis: auto``, the frame of the harvested adapters is kept if the
    recipe's ``directions`` extend it for the imported ones, and otherwise a basis is learned from all.

    Args:
        harvested: The adapters that are learned from; there may be none.
        recipe: The settings of the data, of which ``basis``, ``directions``, ``frame_seed`` and ``frame_width`` count.
    """
    specs = {frame_of(item.record) for item in harvested if item.record.imported is None}
    common = next(iter(specs)) if len(specs) == 1 else None
    outside = not recipe.directions and any(item.record.imported for item in harvested)
    if recipe.basis == "learned" or (recipe.basis == "auto" and harvested and (common is None or outside)):
        return None
    return common or FrameSpec(recipe.frame_seed, recipe.frame_width)


def frame_codec(
    harvested: Sequence[Harvested], layout: Layout, spec: FrameSpec, base_model: str, directions: int
) -> Codec:
    """Return a frame, extended by learned directions for the adapters that were not harvested in it.

    Args:
        harvested: The adapters that are learned from.
        layout: The modules and their shapes.
        spec: The seed and width of the frame.
        base_model: The name of the base, which is written into decoded adapters.
        directions: The most directions that are added to each of U and V.
    """
    frame = seeded_frame(layout, spec, base_model)
    foreign = [adapter for item in harvested if frame_of(item.record) != spec for adapter in item.adapters]
    return extended_frame(frame, foreign, directions) if foreign and directions else frame


def make_basis(harvested: Sequence[Harvested], loaded: LoadedBase, recipe: DataRecipe) -> Basis:
    """Return the frame in which the adapters were harvested, extended for those that were not, or a learned basis.

    Args:
        harvested: The adapters that are learned from; there may be none.
        loaded: The base, whose modules the frame is for where there are no adapters.
        recipe: The settings of the data.

    Raises:
        UsageError: If the basis is to be learned, and there are no adapters.
    """
    everything = [adapter for item in harvested for adapter in item.adapters]
    spec = chosen_frame(harvested, recipe)
    if spec is None:
        if not everything:
            raise UsageError("basis: learned needs harvested adapters", hint="icmlora harvest, or basis: frame")
        codec = fit_codec(everything, energy=recipe.energy, max_width=recipe.max_width)
        return Basis(replace(codec, base_model=loaded.base.model_id), None)  # the adapters' own name may be a path
    layout = layout_of(everything) if everything else target_layout(loaded.model, recipe.target_modules)
    return Basis(frame_codec(harvested, layout, spec, loaded.base.model_id, recipe.directions), spec)


def frame_of(record: AdapterRecord) -> FrameSpec | None:
    """Return the frame that an adapter was harvested in; None for plain LoRAs and imported adapters."""
    recipe = record.about.recipe or {}
    seed, rank = recipe.get("seed"), recipe.get("rank")
    if recipe.get("parametrization") != "frame" or not isinstance(seed, int) or not isinstance(rank, int):
        return None
    return FrameSpec(seed, rank)
