"""What the licences of training data mean for a generator or an adapter that learned from it.

They decide the licence that its card states, and whether one of them forbids derivatives.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

OTHER, UNKNOWN = "other", "unknown"
LONGEST = 96  # characters of a card's ``license_name`` at most

# the identifiers that a card on the hub may name (docs: hub/repositories-licenses), without "other" and "unknown"
HUB = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    openrail++ afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0
    cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl
    gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0
    odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma
    """.split()
)
# identifiers of SPDX and other common spellings, with the hub's identifier for each
ALIASES = {
    "apache": "apache-2.0",
    "apache2": "apache-2.0",
    "apache-2": "apache-2.0",
    "apache-license-2.0": "apache-2.0",
    "mit-license": "mit",
    "cc0": "cc0-1.0",
    "cdla-permissive": "cdla-permissive-1.0",
    "odc-by-1.0": "odc-by",
    "odbl-1.0": "odbl",
    "pddl-1.0": "pddl",
}
_FORBIDDING = re.compile(
    r"\bcc-by-(?:nc-)?nd\b|\bno-?deriv|\bproprietary\b|\ball-rights-reserved\b|\battribution(?:-noncommercial)?-nod"
)


@dataclass(frozen=True)
class StatedLicences:
    """The licence that a card states, as ``stated`` finds it.

    Args:
        license: an identifier that the hub knows; ``other`` if the data have several licences or one that the hub does
            not know, ``unknown`` if none of the data states a licence.
        name: the names of all licences, joined as a card's ``license_name`` allows; None unless ``license`` is
            ``other``.
    """

    license: str
    name: str | None = None


def _plain(text: str) -> str:
    """Return text in lower case, with hyphens in place of spaces and underscores."""
    return re.sub(r"[\s_-]+", "-", text.strip().lower())


def identifier(text: str) -> str | None:
    """Return the hub's identifier of a licence that is written in any usual way; None if the hub has none."""
    plain = re.sub(r"^the-", "", _plain(text))
    plain = re.sub(r"^((?:a|l)?gpl-[\d.]+)(?:-only|-or-later|\+)$", r"\1", plain)
    plain = ALIASES.get(plain, plain)
    return plain if plain in HUB else None


def forbids_derivatives(text: str) -> bool:
    """Tell whether a licence forbids to derive anything from what it covers.

    Such licences are CC-BY-ND and CC-BY-NC-ND of any version, "no derivatives", "proprietary" and "all rights
    reserved".
    """
    return _FORBIDDING.search(_plain(text)) is not None


def no_derivatives(licences: Iterable[str]) -> tuple[str, ...]:
    """Return the licences that forbid derivatives, sorted and without repetitions."""
    return tuple(sorted({text for text in licences if forbids_derivatives(text)}))


def stated(licences: Iterable[str], *, unlicensed: int = 0) -> StatedLicences:
    """Return the licence that a card states.

    Args:
        licences: the licences of the data, in any usual spelling.
        unlicensed: how many data sets state no licence.
    """
    names = {identifier(text) or _slug(text) for text in licences}
    if not names:
        return StatedLicences(UNKNOWN)
    if unlicensed:
        names.add("unstated")
    (first, *rest) = sorted(names)
    if not rest and first in HUB:
        return StatedLicences(first)
    joined = "-and-".join((first, *rest))
    return StatedLicences(OTHER, joined if len(joined) <= LONGEST else "several")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:LONGEST] or "unnamed"


_DATASET = re.compile(
    r"(?:(?:https://huggingface\.co/|hf://)?datasets/)?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})/?", re.ASCII
)


def hub_datasets(sources: Iterable[str | None]) -> tuple[str, ...]:
    """Return the ids ``organisation/name`` of the hub's datasets among the sources of tasks, sorted.

    Args:
        sources: the sources as tasks state them; one may be an id, the dataset's address, or anything else.
    """
    matches = (_DATASET.fullmatch(source.strip()) for source in sources if source)
    names = {match[1] for match in matches if match}
    return tuple(sorted(name for name in names if "--" not in name and ".." not in name))
