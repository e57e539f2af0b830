"""Repairs a registry: puts back what was set aside, quarantines what is damaged, and harvests adapters again.

A repair that is killed loses nothing, and the next one goes on with it: what it moved into quarantine and has not made
again is still a finding of ``verify``.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve, shipped_recipes
from icmlora_cli.disk import temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, IcmloraError
from icmlora_cli.manifests.notes import Thing
from icmlora_cli.manifests.remains import read_remains
from icmlora_cli.registry import adapters, bases
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.registry.tasks import BUILTIN_MAKER, TaskStore
from icmlora_cli.registry.upkeep import checks, quarantine
from icmlora_cli.registry.upkeep.findings import Finding
from icmlora_cli.registry.upkeep.quarantine import QuarantineEntry
from icmlora_cli.registry.upkeep.survey_leftovers import thing_at
from icmlora_cli.workflows.progress import OnProgress

LASTING = ("task", "adapter", "generator", "base")  # other things are computed again when they are needed


@dataclass(frozen=True)
class Repair:
    """One step of a repair.

    Args:
        action: ``restored`` (an old folder is under its name again), ``quarantined`` (moved to ``to``), ``harvested``,
            ``added`` (a built-in task), or ``left`` (nothing was done; ``said`` says why).
        thing: The kind of what was repaired.
        name: The name of what was repaired.
        path: The path that was mended or moved.
        to: The path to which it was moved; None where it was not moved.
        said: A message on what was done, with the next command where the user has to type one.
        mended: Whether the thing can be used again.
    """

    action: Literal["restored", "quarantined", "harvested", "added", "left"]
    thing: str
    name: str
    path: Path
    to: Path | None
    said: str
    mended: bool

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return vars(self) | {"path": str(self.path), "to": None if self.to is None else str(self.to)}


@dataclass(frozen=True)
class _Lost:
    """Something in quarantine that is to be made again.

    Args:
        entry: The entry of the quarantine that holds it.
        place: The path at which it was, and is to be again.
        path: The path that the finding named, which counts as mended once this is made again.
    """

    entry: QuarantineEntry
    place: Path
    path: Path


def repair_all(
    home: Home, findings: Sequence[Finding], *, device: str | None, on_progress: OnProgress
) -> tuple[Repair, ...]:
    """Repair what can be repaired, and return the steps. Nothing is deleted.

    All damaged things are moved first, and tasks are made again before adapters, so that an adapter can be harvested
    again from a mended task.

    Args:
        home: The registry.
        findings: The findings of a survey.
        device: The torch device on which adapters are harvested again; None takes a GPU where there is one.
        on_progress: Called after each step of a harvest.
    """
    units: dict[Path, Finding] = {}
    for finding in findings:
        if finding.unit is not None and not any(parent in units for parent in finding.unit.parents):
            units.setdefault(finding.unit, finding)
    known = {entry.thing: entry for entry in quarantine.entries(home)}
    repairs: list[Repair] = []
    lost: list[_Lost] = []
    order = {"restore": 0, "quarantine": 1, "remake": 2}
    for unit, finding in sorted(units.items(), key=lambda item: order[item[1].action]):
        if finding.action == "restore":
            repairs.append(_restore(home, finding, unit, known.get(unit)))
            continue
        if finding.action == "remake":
            lost.append(_Lost(known[unit], known[unit].root / Path(str(_was(known[unit]))), unit))
            continue
        repair, entry = _put_away(home, finding, unit)
        repairs.append(repair)
        if finding.severe:
            lost.append(_Lost(entry, unit, unit))
    for item in sorted(lost, key=lambda item: item.entry.note is None or item.entry.note.thing != "task"):
        repairs += _make_again(home, item, device=device, on_progress=on_progress)
    return tuple(repairs)


def _was(entry: QuarantineEntry) -> str | None:
    return entry.note.was if entry.note else None


def _put_away(home: Home, finding: Finding, unit: Path) -> tuple[Repair, QuarantineEntry]:
    """Move a damaged thing into quarantine; return this repair, and the entry in quarantine."""
    thing: Thing | None = finding.thing if finding.severe and finding.thing in LASTING else None
    entry = quarantine.put(
        home,
        unit,
        f"{finding.kind}: {finding.path.name}: {finding.what}",
        thing=thing,
        name=finding.name,
        mend=_next(finding),
    )
    message = f"moved to {entry.folder}" + (f"; next: {_next(finding)}" if finding.severe else "")
    return Repair("quarantined", finding.thing, finding.name, unit, entry.thing, message, not finding.severe), entry


def _next(finding: Finding) -> str:
    """Return the command that the user types once the damaged thing is in quarantine."""
    return finding.mend.partition(" && ")[2] or finding.mend.partition("   (")[0]


def _restore(home: Home, finding: Finding, aside: Path, entry: QuarantineEntry | None) -> Repair:
    """Put a folder that was set aside under its name again if it is whole, and otherwise into quarantine."""
    target = _target(aside, entry)
    if os.path.lexists(target):
        why = f"{target.name} is there by now; next: icmlora registry gc"
        return Repair("left", finding.thing, finding.name, aside, None, why, True)
    flaws = [flaw.what for flaw in _flaws(home, aside, target) if flaw.kind != "unlisted"]
    if flaws and entry is not None:
        why = f"it is damaged, and stays in quarantine: {flaws[0]}"
        return Repair("left", finding.thing, finding.name, aside, None, why, False)
    if flaws:
        put = quarantine.put(home, aside, f"it was {target.name}, and is damaged: {flaws[0]}")
        said = f"damaged, and moved to {put.folder}"
        return Repair("quarantined", finding.thing, finding.name, aside, put.thing, said, False)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(target)
    if entry is not None:
        entry.settle()
    return Repair("restored", finding.thing, finding.name, aside, target, f"{target.name} is back in its place", True)


def _target(aside: Path, entry: QuarantineEntry | None) -> Path:
    """Return the original path of what was set aside, by its entry in quarantine or by its temporary name."""
    if entry is not None and entry.note is not None:
        return entry.root / entry.note.was
    parsed = temporary.parse(aside.name)
    return aside if parsed is None else aside.with_name(parsed.name)


def _flaws(home: Home, aside: Path, target: Path) -> list[checks.Flaw]:
    thing = thing_at(home, target)
    if thing == "task":
        return checks.task_flaws(aside, target.name)
    if thing == "generator":
        return checks.generator_flaws(aside)
    if thing == "adapter":
        return checks.adapter_flaws(aside, target.parents[1].name, target.parent.name, target.name)
    if thing == "base":
        try:
            base = bases.read_base(aside / bases.MANIFEST)
        except (CorruptFileError, FileNotFoundError) as error:
            return [checks.Flaw("unreadable", aside, str(error))]
        return [checks.Flaw("changed", aside, line) for line in BaseStore(home).verify(base)]
    return []


def _make_again(home: Home, lost: _Lost, *, device: str | None, on_progress: OnProgress) -> list[Repair]:
    """Make a built-in task or a harvested adapter again; nothing is done for what only its owner can make."""
    note = lost.entry.note
    if note is None or note.thing is None:
        return []
    if note.thing == "task":
        return _add_again(home, note.name, lost)
    if note.thing != "adapter":
        return []
    recipes = list(_recipes(lost.entry.thing))
    if not recipes:
        return []
    return [_harvest_again(home, lost, recipes, device=device, on_progress=on_progress)]


def _add_again(home: Home, name: str, lost: _Lost) -> list[Repair]:
    """Add a task again, if it was a built-in one."""
    from icmlora_cli.tasks.builtin import builtin_names

    remains = read_remains(lost.entry.thing / "task.json")
    if remains.source != BUILTIN_MAKER or name not in builtin_names():
        return []
    task = TaskStore(home).add_builtin(name)
    lost.entry.settle()
    same = "the same examples" if task.data_hash == remains.data_hash else "other examples than it had"
    return [Repair("added", "task", task.name, lost.path, None, f"added again from icmlora's own, {same}", True)]


def _recipes(folder: Path) -> Iterator[HarvestRecipe]:
    """Yield the recipes by which an adapter may have been harvested: its manifest's, or otherwise the shipped ones.

    The key, which is the folder's name, tells which of them it was. An imported adapter has no recipe.
    """
    try:
        record = adapters.read_record(folder / adapters.MANIFEST)
        if record.imported is None:
            yield HarvestRecipe.model_validate(record.about.recipe)
    except (CorruptFileError, FileNotFoundError, ValueError):
        for name in shipped_recipes():
            if name.startswith("harvest/"):
                yield resolve(HarvestRecipe, Path(name), "harvest", {})


def _harvest_again(
    home: Home, lost: _Lost, recipes: Sequence[HarvestRecipe], *, device: str | None, on_progress: OnProgress
) -> Repair:
    """Harvest an adapter again if task, base and recipe are unchanged, in which case it gets the same key."""
    folder = lost.place
    name, base_slug = folder.parent.name, folder.parent.parent.name
    mend = lost.entry.note.mend if lost.entry.note else f"icmlora harvest --tasks {name}"
    try:
        task, base = TaskStore(home).get(name), _base(home, base_slug)
        from icmlora_cli.workflows.harvest.harvest import run  # imported here, since it loads torch
        from icmlora_cli.workflows.harvest.keys import harvest_key

        fitting = [recipe for recipe in recipes if harvest_key(base, task, recipe) == folder.name]
        if not fitting:
            why = f"not harvested again: task, base or recipe is not what it was; next: {mend}"
            return Repair("left", "adapter", name, lost.path, None, why, False)
        (record,) = run([task], base, fitting[0], home, device=device, on_progress=on_progress).records
    except IcmloraError as error:
        why = f"not harvested again: {error.message}; next: {error.hint or mend}"
        return Repair("left", "adapter", name, lost.path, None, why, False)
    lost.entry.settle()
    message = f"harvested again in {record.figures.get('seconds', 0.0):.0f} s"
    return Repair("harvested", "adapter", name, lost.path, None, message, True)


def _base(home: Home, slug: str) -> Base:
    """Return the recorded base of a slug.

    Raises:
        IcmloraError: If it is not on this machine, or not whole.
    """
    store = BaseStore(home)
    for base in store.all():
        if base.slug == slug and store.whole(base):
            return base
    raise IcmloraError(f"its base model {slug} is not at hand", hint="icmlora base list")
