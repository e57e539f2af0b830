"""Faults of a registry: what is wrong, what it costs, and the command that mends it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icmlora_cli.manifests.notes import Thing

REPAIR = "icmlora registry verify --repair"
GC = "icmlora registry gc"
NOT_USED = "nothing: it is not used"

Kind = Literal["missing", "truncated", "changed", "unreadable", "unlisted", "half-written", "left-over"]
Action = Literal["quarantine", "restore", "remake", "leave"]


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        kind: ``missing``, ``truncated``, ``changed`` (another hash), ``unreadable``, ``unlisted`` (nothing knows it),
            ``half-written`` (work that was cut short) or ``left-over`` (of a process that is gone).
        thing: what it is a part of.
        name: of the thing.
        path: the file or folder.
        what: what is wrong.
        cost: what that costs the user.
        mend: the command to type.
        severe: something that was there cannot be used; otherwise nothing is lost.
        action: what a repair does: move ``unit`` into quarantine, put it back (``restore``), make again what ``unit``
            in quarantine was (``remake``), or leave it to the command.
        unit: what the repair moves, or makes again.
    """

    kind: Kind
    thing: Thing
    name: str
    path: Path
    what: str
    cost: str
    mend: str
    severe: bool
    action: Action = "leave"
    unit: Path | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return vars(self) | {"path": str(self.path), "unit": None if self.unit is None else str(self.unit)}
