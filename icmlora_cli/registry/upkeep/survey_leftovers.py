"""The part of a survey for what killed and finished processes left."""

from collections.abc import Iterator
from pathlib import Path

from icmlora_cli.disk.home import Home
from icmlora_cli.manifests.notes import Thing
from icmlora_cli.registry.upkeep import leftovers, quarantine
from icmlora_cli.registry.upkeep.findings import GC, NOT_USED, REPAIR, Finding

AGAIN = {"adapter": "icmlora harvest --tasks {}", "generator": "icmlora train --name {}", "baseline": "icmlora eval"}


def temporary_findings(home: Home) -> Iterator[Finding]:
    """Yield a finding for each temporary file or folder that no running process is writing."""
    for item in leftovers.temporaries(home):
        name = item.target.name
        if item.in_use:
            continue
        if not item.only_copy:
            what = f"left by a write of {name} that was killed"
            yield Finding("left-over", "file", name, item.path, what, NOT_USED, GC, severe=False)
            continue
        what = f"it is {name}, set aside by a replacement that was killed before the new one was in place"
        cost, thing = f"{name} is missing under its name", thing_at(home, item.target)
        yield Finding("half-written", thing, name, item.path, what, cost, REPAIR, True, "restore", item.path)


def quarantine_findings(home: Home) -> Iterator[Finding]:
    """Yield a finding for each thing in quarantine that is missing, since a repair or import was cut short."""
    for entry in quarantine.entries(home):
        note = entry.note
        if note is None or note.thing is None or not entry.missing:
            continue
        cost = f"{note.was} is missing; the only copy is in quarantine, where registry gc leaves it"
        if note.reason == "replaced":
            what = "it was moved into quarantine, and what was to replace it never came"
            yield Finding(
                "missing", note.thing, note.name, entry.thing, what, cost, REPAIR, True, "restore", entry.thing
            )
            continue
        what = f"it was moved into quarantine ({note.why}), and has not been made again"
        mend = REPAIR if note.thing == "adapter" else note.mend or REPAIR
        yield Finding("missing", note.thing, note.name, entry.thing, what, cost, mend, True, "remake", entry.thing)


def thing_at(home: Home, path: Path) -> Thing:
    """Return the kind of thing that has a path in a registry as its folder; ``file`` if there is none."""
    things: dict[Path, Thing] = {home.tasks: "task", home.generators: "generator", home.bases: "base"}
    return things.get(path.parent, "file")


def state_findings(home: Home) -> Iterator[Finding]:
    """Yield the findings of training states: useless or damaged ones, and generators whose training can go on."""
    for state in leftovers.states(home):
        again = AGAIN[state.kind].format(state.name)
        thing: Thing = "generator" if state.kind == "generator" else "adapter"
        if state.finished:
            what = "the state of a training that is finished"
            yield Finding("left-over", thing, state.name, state.path, what, NOT_USED, GC, severe=False)
        elif not state.readable:
            what, cost = "the state of a training, cut short or damaged", "the training begins again"
            yield Finding(
                "truncated", thing, state.name, state.path, what, cost, again, False, "quarantine", state.path
            )
        elif state.kind == "generator":
            what = f"a training that is not finished: {state.steps} steps are saved"
            cost = "nothing that was saved: the same training goes on from there"
            yield Finding("half-written", thing, state.name, state.path, what, cost, again, severe=False)
