"""Adapters on disk, harvested or imported: ``adapters/<base>/<task>/<key>/`` with checkpoints and, last, a manifest."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.manifests.adapter import AdapterAbout, AdapterCheckpoint, AdapterManifest, Imported
from icmlora_cli.manifests.model import Values
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import Task

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
STATE = "state.safetensors"  # of a training that is not finished


def checkpoint_of(folder: Path) -> AdapterCheckpoint:
    """Return what a manifest says of a PEFT folder that has just been written, named by its step.

    A left-over of a write that was killed within it does not count.
    """
    weights, config = folder / WEIGHTS, folder / CONFIG
    return AdapterCheckpoint(
        step=int(folder.name.removeprefix("checkpoint-")),
        folder=folder.name,
        sha256=files.sha256_file(weights),
        bytes=weights.stat().st_size + config.stat().st_size,
        config_sha256=files.sha256_file(config),
    )


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
    figures: Values
    about: AdapterAbout
    folder: Path

    @property
    def last(self) -> Path:
        """The PEFT folder of the last checkpoint."""
        return self.folder / self.checkpoints[-1].folder

    @property
    def imported(self) -> Imported | None:
        """Where it was imported from and how; None where icmlora trained it."""
        return self.about.imported

    @property
    def bytes(self) -> int:
        """Bytes of all kept checkpoints."""
        return sum(item.bytes for item in self.checkpoints)

    def manifest(self) -> AdapterManifest:
        """Return what ``manifest.json`` holds."""
        return AdapterManifest(
            schema="icmlora.adapter/1",
            task=self.task,
            key=self.key,
            base=self.base,
            weight_hash=self.weight_hash,
            data_hash=self.data_hash,
            created=self.created,
            checkpoints=self.checkpoints,
            figures=self.figures,
            about=self.about,
        )

    def as_dict(self) -> dict[str, object]:
        """Return the manifest's JSON form."""
        return self.manifest().content()


def again(record: AdapterRecord) -> str:
    """Return the command that makes an adapter again."""
    base = record.about.model_id or record.base
    if record.imported is None:
        words = ["icmlora", "harvest", "--tasks", record.task, "--base", base]
        return shlex.join([*words, *_recipe_option(record.about.recipe)])
    source = record.imported.source
    return shlex.join(["icmlora", "adapter", "import", source, "--task", record.task, "--base", base])


def _recipe_option(settings: Mapping[str, object] | None) -> tuple[str, ...]:
    """Return the option that names the shipped recipe of these settings; nothing where it is the default one."""
    from icmlora_cli.config.harvest import HarvestRecipe
    from icmlora_cli.config.recipes import resolve, shipped_recipes

    recipe = HarvestRecipe.model_validate(settings or {})
    for name in sorted(shipped_recipes(), key=lambda name: name != "harvest/default"):
        if name.startswith("harvest/") and resolve(HarvestRecipe, Path(name), "harvest", {}) == recipe:
            return () if name == "harvest/default" else ("--recipe", name)
    return ("--recipe", "RECIPE.yaml")


def read_record(path: Path) -> AdapterRecord:
    """Read an adapter's manifest.

    Raises:
        FileNotFoundError: If there is none.
        CorruptFileError: If it is broken.
    """
    held = AdapterManifest.read(path)
    return AdapterRecord(
        task=held.task,
        key=held.key,
        base=held.base,
        weight_hash=held.weight_hash,
        data_hash=held.data_hash,
        created=held.created,
        checkpoints=held.checkpoints,
        figures=held.figures,
        about=held.about,
        folder=path.parent,
    )


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
            CorruptFileError: If its manifest is broken.
        """
        path = self.folder(base, task, key) / MANIFEST
        return read_record(path) if path.is_file() else None

    def record(self, record: AdapterRecord) -> None:
        """Write the manifest, which makes the adapter finished."""
        record.manifest().write(record.folder / MANIFEST)

    def all(self, base: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return the finished adapters, by task and time.

        Args:
            base: slug of a base; None for all.

        Raises:
            CorruptFileError: If a manifest is broken.
        """
        pattern = f"{base or '*'}/*/*/{MANIFEST}"
        found = [read_record(path) for path in self._manifests(pattern)]
        return tuple(sorted(found, key=lambda item: (item.base, item.task, item.created)))

    def readable(self) -> tuple[AdapterRecord, ...]:
        """Return what ``all`` does, without those whose manifest is broken."""
        return self.scan()[0]

    def scan(self) -> tuple[tuple[AdapterRecord, ...], tuple[Path, ...]]:
        """Return the adapters whose manifest can be read, by task and time, and the manifests that cannot."""
        found, broken = [], []
        for path in self._manifests(f"*/*/*/{MANIFEST}"):
            try:
                found.append(read_record(path))
            except FileNotFoundError:  # removed this moment
                continue
            except CorruptFileError:
                broken.append(path)
        return tuple(sorted(found, key=lambda item: (item.base, item.task, item.created))), tuple(sorted(broken))

    def _manifests(self, pattern: str) -> list[Path]:
        root = self.home.adapters
        return [path for path in root.glob(pattern) if not temporary.within(path, root)]

    def latest(self, base: Base, task: Task) -> AdapterRecord:
        """Return the newest adapter of the task as it is now, on the base as it is now.

        An imported adapter was not trained on the registry's examples, and stays the task's when they change.

        Raises:
            NotFoundError: If there is none, or only adapters of other data or other base weights.
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
            CorruptFileError: If a manifest is broken.
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
            CorruptFileError: If the weights are missing or changed.
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
            NotFoundError: If there are none.
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
