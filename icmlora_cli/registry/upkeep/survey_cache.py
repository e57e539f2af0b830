"""The part of a survey for what can be made again: base models, multi-task LoRAs, results, task vectors."""

from collections.abc import Callable, Iterator
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.base import BaseManifest
from icmlora_cli.registry import adapters, bases
from icmlora_cli.registry.bases import Base, BaseStore
from icmlora_cli.registry.upkeep import checks
from icmlora_cli.registry.upkeep.checks import Flaw, Kind
from icmlora_cli.registry.upkeep.findings import GC, REPAIR, Finding

Look = Callable[[str, str], None]


def base_findings(home: Home, look: Look, *, quick: bool) -> Iterator[Finding]:
    """Yield the findings of base models.

    Args:
        home: the folders of the registry.
        look: called with the kind and the name of each thing that is looked at.
        quick: whether to compare sizes instead of hashes.
    """
    for folder in files.subfolders(home.bases):
        look("base", folder.name)
        pull = f"icmlora base pull {folder.name.replace('--', '/')}"
        cost = "it is not used, and is fetched again when it is asked for"
        try:
            base = bases.read_base(folder / bases.MANIFEST)
        except FileNotFoundError:
            what = "it has no manifest: it was not finished, or the manifest is gone"
            yield Finding(
                "half-written",
                "base",
                folder.name,
                folder,
                what,
                cost,
                f"{REPAIR} && {pull}",
                False,
                "quarantine",
                folder,
            )
        except CorruptFileError as error:
            path, mend = folder / bases.MANIFEST, f"{REPAIR} && {pull}"
            yield Finding(
                "unreadable", "base", folder.name, path, error.message, cost, mend, True, "quarantine", folder
            )
        else:
            yield from _findings_of(BaseStore(home), base, folder, quick=quick)


def _findings_of(store: BaseStore, base: Base, folder: Path, *, quick: bool) -> Iterator[Finding]:
    lines = () if quick and store.whole(base) else store.verify(base)
    flaws = [Flaw(_kind(line), base.path / line.partition(":")[0], line.partition(": ")[2]) for line in lines]
    flaws += checks.manifest_flaws(folder / bases.MANIFEST, BaseManifest.known_keys())
    cost = "what is harvested and generated on it now is of other weights than were recorded"
    pull = f"icmlora base pull {base.name}"
    for flaw in flaws:
        if store.owns_weights(base):
            mend = f"{REPAIR} && {pull}"
            yield Finding(flaw.kind, "base", base.name, flaw.path, flaw.what, cost, mend, True, "quarantine", folder)
        else:  # icmlora moves nothing in the hub's cache or in a user's folder
            mend = f"icmlora base remove {base.name} --yes && {pull}"
            yield Finding(flaw.kind, "base", base.name, flaw.path, flaw.what, cost, mend, severe=True)


def _kind(line: str) -> Kind:
    if line.endswith(": missing"):
        return "missing"
    return "truncated" if " instead of " in line else "changed"


def baseline_findings(home: Home, look: Look) -> Iterator[Finding]:
    """Yield the findings of the multi-task LoRAs that evaluations trained."""
    bases_of = files.subfolders(home.root / "baselines")
    for folder in (folder for base in bases_of for folder in files.subfolders(base)):
        weights, config = folder / adapters.WEIGHTS, folder / adapters.CONFIG
        if not config.is_file():
            continue  # its training is not finished, and an evaluation will go on with it
        look("baseline", folder.name)
        missing = [] if weights.is_file() else [Flaw("missing", weights, "its weights are missing")]
        flaws = missing or checks.safetensors_flaws(weights)
        if not _is_json(config):
            flaws.append(Flaw("unreadable", config, "not a JSON object"))
        cost = "the method 'multi-task' fails; without this folder, it is trained again"
        for flaw in flaws:
            yield Finding(
                flaw.kind, "baseline", folder.name, flaw.path, flaw.what, cost, REPAIR, True, "quarantine", folder
            )


def result_findings(home: Home, look: Look) -> Iterator[Finding]:
    """Yield a finding for each file of an evaluation that is no JSON; scores have no hashes to compare."""
    for folder in files.subfolders(home.root / "results"):
        look("result", folder.name)
        for path in files.finished_files(folder, ".json"):
            if _is_json(path):
                continue
            whole = path.parent == folder
            cost = "the report cannot be built; the scores are kept" if whole else "this score is scored again"
            mend = "the same icmlora eval again, which goes on with the scores that are there"
            yield Finding(
                "unreadable", "result", folder.name, path, "not a JSON object", cost, mend, whole, "quarantine", path
            )


def vector_findings(home: Home, look: Look) -> Iterator[Finding]:
    """Yield the findings of cached task vectors."""
    for path in files.finished_files(home.vectors, ".safetensors"):
        look("vector", path.stem)
        try:
            flaws = checks.safetensors_flaws(path)
        except FileNotFoundError:  # it was freed or replaced meanwhile
            continue
        for flaw in flaws:
            cost, mend = "it is read from the base again when it is needed", f"{GC} --only vectors"
            yield Finding(flaw.kind, "vector", path.stem, path, flaw.what, cost, mend, False, "quarantine", path)


def _is_json(path: Path) -> bool:
    try:
        files.read_json(path)
    except FileNotFoundError:
        return True  # it is being replaced
    except (CorruptFileError, OSError):
        return False
    return True
