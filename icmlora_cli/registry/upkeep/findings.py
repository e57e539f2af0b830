"""What ``registry verify`` finds: what is wrong, what that costs, and the command that mends it."""

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
    """Something that is wrong in a registry.

    Args:
        kind: ``missing``, ``truncated``, ``changed`` (with another hash), ``unreadable``, ``unlisted`` (named by no
            manifest), ``half-written`` (work that was cut short) or ``left-over`` (from a process that is gone).
        thing: the kind of thing that the file belongs to.
        name: the name of the thing.
        path: the file or folder.
        what: what is wrong, in words.
        cost: what the user loses by it, in words.
        mend: the command that the user can type to mend it.
        severe: whether something that was in the registry cannot be used; if not, nothing is lost.
        action: what a repair does: move ``unit`` into quarantine, put it back (``restore``), make what ``unit`` in
            quarantine was again (``remake``), or nothing (``leave``).
        unit: the file or folder that the repair moves or makes again; None if it does nothing.
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
