"""Adapters on disk, harvested or imported: ``adapters/<base>/<task>/<key>/`` with checkpoints and, last, a manifest."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import checksums, files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import Task
from icmlora_cli.registry.upkeep.findings import REPAIR

SCHEMA = "icmlora.adapter/1"
MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
STATE = "state.safetensors"  # of a training that is not finished
FOLDER = re.compile(r"checkpoint-[0-9]{1,12}")
KEYS = frozenset(
    {"schema", "task", "key", "base", "weight_hash", "data_hash", "created", "checkpoints", "figures", "about"}
)


@dataclass(frozen=True)
class AdapterCheckpoint:
    """One kept checkpoint of a harvested adapter.

    Args:
        step: optimizer steps behind it.
        folder: the PEFT folder's name within the adapter's.
        sha256: of its ``adapter_model.safetensors``.
        bytes: of all its files.
        config_sha256: of its ``adapter_config.json``; None where an earlier version did not record it.
    """

    step: int
    folder: str
    sha256: str
    bytes: int
    config_sha256: str | None = None

    @classmethod
    def of(cls, folder: Path) -> "AdapterCheckpoint":
        """Return what a manifest says of a PEFT folder that has just been written, named by its step.

        A left-over of a write that was killed within it does not count.
        """
        weights, config = folder / WEIGHTS, folder / CONFIG
        return cls(
            step=int(folder.name.removeprefix("checkpoint-")),
            folder=folder.name,
            sha256=files.sha256_file(weights),
            bytes=weights.stat().st_size + config.stat().st_size,
            config_sha256=files.sha256_file(config),
        )

    def __post_init__(self) -> None:
        """Refuse what a damaged or hostile manifest may say: the folder becomes part of a path.

        Raises:
            ValueError: if a value cannot be.
        """
        texts = [self.folder, self.sha256, self.config_sha256 or ""]
        if not all(isinstance(text, str) for text in texts) or not FOLDER.fullmatch(self.folder):
            raise ValueError(f"checkpoint {str(self.folder)[:80]!r}")
        if not all(type(number) is int and number >= 0 for number in (self.step, self.bytes)):
            raise ValueError(f"step or bytes of {self.folder}")


@dataclass(frozen=True)
class AdapterRecord:
    """A finished adapter, harvested or imported.

    Args:
        task: the task's name.
        key: hash of base, task data and recipe (of an import, of what was imported): the same one has the same key.
        base: slug of the base's folder.
        weight_hash: the base's.
        data_hash: the task's, when it was harvested.
        created: UTC time, ISO 8601.
        checkpoints: from the first to the last step.
        figures: what was measured, such as ``exact_match`` on validation examples and ``seconds``.
        about: the rest: recipe, versions, device, licence; of an import, ``imported``: whence, hashes, what was lost.
        folder: where it is.
    """

    task: str
    key: str
    base: str
    weight_hash: str
    data_hash: str
    created: str
    checkpoints: tuple[AdapterCheckpoint, ...]
    figures: Mapping[str, float]
    about: Mapping[str, object]
    folder: Path

    @property
    def last(self) -> Path:
        """The PEFT folder of the last checkpoint."""
        return self.folder / self.checkpoints[-1].folder

    @property
    def imported(self) -> Mapping[str, object] | None:
        """Where it was imported from and how; None where icmlora trained it."""
        found = self.about.get("imported")
        return found if isinstance(found, dict) else None

    @property
    def bytes(self) -> int:
        """Bytes of all kept checkpoints."""
        return sum(item.bytes for item in self.checkpoints)

    def as_dict(self) -> dict[str, object]:
        """Return the manifest's JSON form."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "key": self.key,
            "base": self.base,
            "weight_hash": self.weight_hash,
            "data_hash": self.data_hash,
            "created": self.created,
            "checkpoints": [vars(item) for item in self.checkpoints],
            "figures": dict(self.figures),
            "about": dict(self.about),
        }


def again(record: AdapterRecord) -> str:
    """Return the command that makes an adapter again."""
    base = str(record.about.get("model_id") or record.base)
    if record.imported is None:
        words = ["icmlora", "harvest", "--tasks", record.task, "--base", base]
        return shlex.join([*words, *_recipe_option(record.about.get("recipe"))])
    source = str(record.imported.get("from"))
    return shlex.join(["icmlora", "adapter", "import", source, "--task", record.task, "--base", base])


def _recipe_option(recipe: object) -> tuple[str, ...]:
    """Return the option that names the shipped recipe of these settings; nothing where it is the default one."""
    from icmlora_cli.config.recipes import HarvestRecipe, resolve, shipped_recipes

    for name in sorted(shipped_recipes(), key=lambda name: name != "harvest/default"):
        same = name.startswith("harvest/") and resolve(HarvestRecipe, Path(name), "harvest", {}).model_dump() == recipe
        if same:
            return () if name == "harvest/default" else ("--recipe", name)
    return ("--recipe", "RECIPE.yaml")


def read_record(path: Path) -> AdapterRecord:
    """Read an adapter's manifest.

    Raises:
        FileNotFoundError: if there is none.
        CorruptFileError: if it is broken.
    """
    value = files.read_json(path)
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema {value['schema']!r}")
        checkpoints, figures, about = value["checkpoints"], value["figures"], value["about"]
        assert isinstance(checkpoints, list) and isinstance(figures, dict) and isinstance(about, dict) and checkpoints
        texts = {key: str(value[key]) for key in ("task", "key", "base", "weight_hash", "data_hash", "created")}
        kept = tuple(AdapterCheckpoint(**item) for item in checkpoints)
        return AdapterRecord(**texts, checkpoints=kept, figures=figures, about=about, folder=path.parent)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise CorruptFileError(
            f"the adapter's manifest is broken: {error}",
            where=str(path),
            hint=REPAIR,
        ) from error


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of a registry.

    Args:
        home: where they are.
    """

    home: Home

    def folder(self, base: str, task: str, key: str) -> Path:
        """Return where an adapter is, or will be."""
        return self.home.adapters / base / task / key

    def find(self, base: str, task: str, key: str) -> AdapterRecord | None:
        """Return a finished adapter, or None.

        Raises:
            CorruptFileError: if its manifest is broken.
        """
        path = self.folder(base, task, key) / MANIFEST
        return read_record(path) if path.is_file() else None

    def record(self, record: AdapterRecord) -> None:
        """Write the manifest, which makes the adapter finished."""
        checksums.write_manifest(record.folder / MANIFEST, record.as_dict())

    def all(self, base: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return the finished adapters, by task and time.

        Args:
            base: slug of a base; None for all.

        Raises:
            CorruptFileError: if a manifest is broken.
        """
        pattern = f"{base or '*'}/*/*/{MANIFEST}"
        found = [read_record(path) for path in self._manifests(pattern)]
        return tuple(sorted(found, key=lambda item: (item.base, item.task, item.created)))

    def readable(self) -> tuple[AdapterRecord, ...]:
        """Return what ``all`` does, without those whose manifest is broken."""
        found = []
        for path in self._manifests(f"*/*/*/{MANIFEST}"):
            with suppress(CorruptFileError, FileNotFoundError):
                found.append(read_record(path))
        return tuple(sorted(found, key=lambda item: (item.base, item.task, item.created)))

    def _manifests(self, pattern: str) -> list[Path]:
        root = self.home.adapters
        return [path for path in root.glob(pattern) if not temporary.within(path, root)]

    def latest(self, base: Base, task: Task) -> AdapterRecord:
        """Return the newest adapter of the task as it is now, on the base as it is now.

        An imported adapter was not trained on the registry's examples, and stays the task's when they change.

        Raises:
            NotFoundError: if there is none, or only adapters of other data or other base weights.
        """
        found = self.newest(base, task)
        if found is None:
            folder = self.home.adapters / base.slug / task.name
            stale = " for its present examples and base weights" if any(folder.glob(f"*/{MANIFEST}")) else ""
            raise NotFoundError(
                f"task {task.name!r} has no harvested adapter{stale}",
                where=str(folder),
                hint=f"icmlora harvest --tasks {task.name}",
            )
        return found

    def newest(self, base: Base, task: Task) -> AdapterRecord | None:
        """Return what ``latest`` does, or None where there is none.

        Raises:
            CorruptFileError: if a manifest is broken.
        """
        found = [read_record(path) for path in self._manifests(f"{base.slug}/{task.name}/*/{MANIFEST}")]
        same = [
            item
            for item in found
            if item.weight_hash == base.weight_hash and (item.imported or item.data_hash == task.data_hash)
        ]
        return max(same, key=lambda item: item.created, default=None)

    def checked(self, record: AdapterRecord, checkpoint: AdapterCheckpoint) -> Path:
        """Return a checkpoint's PEFT folder, once its weights have been compared with the manifest.

        Raises:
            CorruptFileError: if the weights are missing or changed.
        """
        folder = record.folder / checkpoint.folder
        weights = folder / WEIGHTS
        if not weights.is_file() or files.sha256_file(weights) != checkpoint.sha256:
            raise CorruptFileError(
                f"the adapter of task {record.task!r} is missing or not what its manifest says",
                where=str(weights),
                hint="icmlora registry verify --repair, or: "
                f"icmlora adapter remove {record.task} --key {record.key} --yes && {again(record)}",
            )
        return folder

    def remove(self, task: str, base: str | None = None, *, key: str | None = None) -> int:
        """Delete the adapters of a task and return the bytes freed; a weight that is linked elsewhere frees none.

        Args:
            task: the task's name.
            base: slug of a base; None for all.
            key: of the one to delete; None for all.

        Raises:
            NotFoundError: if there are none.
        """
        within = f"/{key}" if key else ""
        folders = [path for path in self.home.adapters.glob(f"{base or '*'}/{task}{within}") if path.is_dir()]
        folders = [path for path in folders if not temporary.within(path, self.home.adapters)]
        if not folders:
            what = f"task {task!r} has no adapter{f' {key!r}' if key else 's'}"
            raise NotFoundError(what, where=str(self.home.adapters), hint="icmlora adapter list")
        freed = files.freed_bytes(*folders)
        for folder in folders:
            files.delete_folder(folder)
        return freed
