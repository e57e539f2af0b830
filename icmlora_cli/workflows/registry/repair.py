"""Repair: what was set aside goes back, what is damaged goes into quarantine, and adapters are harvested again."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve, shipped_recipes
from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, IcmloraError
from icmlora_cli.registry import adapters, bases
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.registry.tasks import BUILTIN_MAKER, TaskStore
from icmlora_cli.registry.upkeep import checks, quarantine
from icmlora_cli.registry.upkeep.findings import Finding
from icmlora_cli.registry.upkeep.survey_leftovers import thing_at
from icmlora_cli.workflows.progress import OnProgress
from icmlora_cli.workflows.registry.verify import Repair


def repair_all(
    home: Home, faults: Sequence[Finding], *, device: str | None, on_progress: OnProgress
) -> tuple[Repair, ...]:
    """Repair what can be, and return what was done. Nothing is deleted.

    Tasks come before adapters, so that an adapter can be harvested again from a task that was mended.

    Args:
        home: the registry.
        faults: what a survey found.
        device: where adapters are harvested again.
        on_progress: told of each step of a harvest.
    """
    units: dict[Path, Finding] = {}
    for fault in faults:
        if fault.unit is not None and not any(parent in units for parent in fault.unit.parents):
            units.setdefault(fault.unit, fault)
    order = {"restore": 0, "quarantine": 1}
    repairs: list[Repair] = []
    lost: list[tuple[Path, list[HarvestRecipe]]] = []
    for unit, fault in sorted(units.items(), key=lambda item: (order[item[1].action], item[1].thing != "task")):
        if fault.action == "restore":
            repairs.append(_restore(home, fault, unit))
            continue
        recipes = list(_recipes(unit)) if fault.thing == "adapter" and fault.severe else []
        why = f"{fault.kind}: {fault.path.name}: {fault.what}"
        to = quarantine.put(home, unit, why)
        said = f"moved to {to.parent}" + (f"; next: {_next(fault)}" if fault.severe else "")
        repairs.append(Repair("quarantined", fault.thing, fault.name, unit, to, said, not fault.severe))
        if fault.thing == "task" and fault.severe:
            repairs += _add_again(home, fault, to)
        elif recipes:
            lost.append((unit, recipes))
    repairs += [_harvest_again(home, *item, device=device, on_progress=on_progress) for item in lost]
    return tuple(repairs)


def _next(fault: Finding) -> str:
    """Return what is left to type once the damaged thing is out of the way."""
    after = fault.mend.partition(" && ")[2]
    if not after and fault.thing == "adapter":
        return f"icmlora harvest --tasks {fault.name}"
    return after or fault.mend


def _restore(home: Home, fault: Finding, aside: Path) -> Repair:
    """Put a folder that was set aside under its name again, if it is whole; else it goes into quarantine."""
    said = temporary.parse(aside.name)
    assert said is not None
    target = aside.with_name(said.name)
    if os.path.lexists(target):
        why = f"{target.name} is there by now; next: icmlora registry gc"
        return Repair("left", fault.thing, fault.name, aside, None, why, True)
    flaws = [flaw.what for flaw in _flaws(home, aside, target) if flaw.kind != "unlisted"]
    if flaws:
        to = quarantine.put(home, aside, f"it was {target.name}, and is damaged: {flaws[0]}")
        return Repair("quarantined", fault.thing, fault.name, aside, to, f"damaged, and moved to {to.parent}", False)
    aside.rename(target)
    return Repair("restored", fault.thing, fault.name, aside, target, f"{target.name} is back in its place", True)


def _flaws(home: Home, aside: Path, target: Path) -> list[checks.Flaw]:
    thing = thing_at(home, target)
    if thing == "task":
        return checks.task_flaws(aside, target.name)
    if thing == "generator":
        return checks.generator_flaws(aside)
    if thing == "base":
        try:
            base = bases.read_base(aside / bases.MANIFEST)
        except (CorruptFileError, FileNotFoundError) as error:
            return [checks.Flaw("unreadable", aside, str(error))]
        return [checks.Flaw("changed", aside, line) for line in BaseStore(home).verify(base)]
    return []


def _add_again(home: Home, fault: Finding, moved: Path) -> list[Repair]:
    """Add a built-in task again, if that is what the damaged one was."""
    from icmlora_cli.tasks.builtin import builtin_names

    try:
        value = files.read_json(moved / "task.json")
    except (CorruptFileError, FileNotFoundError):
        value = {}
    if value.get("source") != BUILTIN_MAKER or fault.name not in builtin_names():
        return []
    task = TaskStore(home).add_builtin(fault.name)
    same = "the same examples" if task.data_hash == value.get("data_hash") else "other examples than it had"
    return [Repair("added", "task", task.name, task.folder, None, f"added again from icmlora's own, {same}", True)]


def _recipes(folder: Path) -> Iterator[HarvestRecipe]:
    """Yield the recipes by which an adapter may have been harvested: its manifest's, else those that are shipped.

    The key, which is the folder's name, tells which of them it was. An adapter that was imported has none.
    """
    try:
        record = adapters.read_record(folder / adapters.MANIFEST)
        if record.imported is None:
            yield HarvestRecipe.model_validate(record.about.get("recipe"))
    except (CorruptFileError, FileNotFoundError, ValueError):
        for name in shipped_recipes():
            if name.startswith("harvest/"):
                yield resolve(HarvestRecipe, Path(name), "harvest", {})


def _harvest_again(
    home: Home, folder: Path, recipes: Sequence[HarvestRecipe], *, device: str | None, on_progress: OnProgress
) -> Repair:
    """Harvest an adapter again, if task, base and recipe are what they were: then it has the same key."""
    name, base_slug = folder.parent.name, folder.parent.parent.name
    mend = f"icmlora harvest --tasks {name}"
    try:
        task, base = TaskStore(home).get(name), _base(home, base_slug)
        from icmlora_cli.workflows.harvest.harvest import (  # torch: only where there is something to train
            harvest_key,
            run,
        )

        fitting = [recipe for recipe in recipes if harvest_key(base, task, recipe) == folder.name]
        if not fitting:
            why = f"not harvested again: task, base or recipe is not what it was; next: {mend}"
            return Repair("left", "adapter", name, folder, None, why, False)
        (record,) = run([task], base, fitting[0], home, device=device, on_progress=on_progress).records
    except IcmloraError as error:
        why = f"not harvested again: {error.message}; next: {error.hint or mend}"
        return Repair("left", "adapter", name, folder, None, why, False)
    said = f"harvested again in {record.figures.get('seconds', 0.0):.0f} s"
    return Repair("harvested", "adapter", name, record.folder, None, said, True)


def _base(home: Home, slug: str) -> Base:
    """Return the recorded base of a slug.

    Raises:
        IcmloraError: if it is not at hand, or not whole.
    """
    store = BaseStore(home)
    for base in store.all():
        if base.slug == slug and store.whole(base):
            return base
    raise IcmloraError(f"its base model {slug} is not at hand", hint="icmlora base list")
