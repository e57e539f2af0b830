"""Checks, without a network, whether the hub would take a model card and whether it names a path of this machine."""

from collections.abc import Mapping
from pathlib import Path

from icmlora_cli.config.spec_yaml import parse_yaml
from icmlora_cli.disk.files import is_object
from icmlora_cli.errors import PushRefusedError, SpecError
from icmlora_cli.provenance.front_matter import front_matter
from icmlora_cli.provenance.licences import HUB, OTHER, UNKNOWN
from icmlora_cli.provenance.local_paths import names_path
from icmlora_cli.report.cards import CARD, is_hub_id

LARGEST = 1 << 20  # bytes of a card
AGAIN = "edit it, or generate again: icmlora gen ... --force"


def check_card(path: Path) -> str:
    """Check a model card before it is pushed, and return its text.

    Args:
        path: the path of the card, a ``README.md``.

    Raises:
        PushRefusedError: If the card is missing, is too large, has other metadata than a model card's, or names a path
            of this machine.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise PushRefusedError(f"{CARD} has more than {LARGEST:,} bytes", where=str(path), hint=AGAIN)
        text = path.read_bytes().decode("utf-8")
        metadata = parse_yaml(front_matter(path), path).value
        if not is_object(metadata):
            raise ValueError("it has none")
    except FileNotFoundError:
        raise PushRefusedError(f"there is no {CARD}", where=str(path.parent), hint=AGAIN) from None
    except (ValueError, SpecError) as error:
        first_line = error.faults[0] if isinstance(error, SpecError) else str(error)
        raise PushRefusedError(
            f"the metadata of {CARD} cannot be read: {first_line}", where=str(path), hint=AGAIN
        ) from error
    problem = _metadata_problem(metadata) or _path_problem(text)
    if problem is not None:
        raise PushRefusedError(f"{CARD}: {problem}", where=str(path), hint=AGAIN)
    return text


def _metadata_problem(data: Mapping[str, object]) -> str | None:
    """Return what is wrong with a card's metadata; None if nothing is."""
    base, licence, tags = data.get("base_model"), data.get("license"), data.get("tags")
    bases: list[object] = base if isinstance(base, list) else [base]
    if not all(isinstance(name, str) and is_hub_id(name) for name in bases):
        return f"base_model is {base!r}, and should be the id of a model on the hub"
    if not isinstance(licence, str) or licence not in HUB | {OTHER, UNKNOWN}:
        return f"license is {licence!r}, which is none that the hub knows; with another one: license: other"
    if licence == OTHER and not isinstance(data.get("license_name"), str):
        return "license is other, and license_name does not say which"
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        return "tags are not a list of texts"
    return None


def _path_problem(text: str) -> str | None:
    """Return which line names a path of this machine; None if none does.

    Lines of indented code are left out, since they hold the task text, which the user wrote.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("    ") and names_path(line):
            return f"line {number} names a path of this machine"
    return None
