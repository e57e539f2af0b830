"""Harvested and imported adapters on disk.

They are in ``adapters/<base>/<task>/<key>/``, with checkpoints and a manifest, which is written last.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.manifests.adapter import AdapterAbout, AdapterCheckpoint, AdapterManifest, Imported
from icmlora_cli.manifests.model import Values
from icmlora_cli.manifests.parts import HashedFile
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import Task

MANIFEST = "manifest.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SENSITIVITY = "sensitivity.safetensors"  # the mean squared gradients of the cores, where the harvest recorded them
STATE = "state.safetensors"  # the saved state of a training that is not finished


def checkpoint_of(folder: Path) -> AdapterCheckpoint:
    """Return what a manifest says of a PEFT folder that has just been written.

    Only the weights and the configuration count, not what a killed write may have left beside them.

    Args:
        folder: the PEFT folder, whose name ends with its step, such as ``checkpoint-200``.
    """
    weights, config = folder / WEIGHTS, folder / CONFIG
    return AdapterCheckpoint(
        step=int(folder.name.removeprefix("checkpoint-")),
        folder=folder.name,
        sha256=files.sha256_file(weights),
        bytes=weights.stat().st_size + config.stat().st_size,
        config_sha256=files.sha256_file(config),
    )


def sensitivity_of(folder: Path) -> HashedFile | None:
    """Return what a manifest says of the mean squared gradients beside the checkpoints; None where there are none.

    Args:
        folder: the adapter's folder.
    """
    path = folder / SENSITIVITY
    return HashedFile(bytes=path.stat().st_size, sha256=files.sha256_file(path)) if path.is_file() else None


@dataclass(frozen=True)
class AdapterRecord:
    """A finished adapter, harvested or imported.

    Args:
        task: the task's name.
        key: the hash of base, task data and recipe, or of the imported files, so that equal work has the same key.
        base: the name of the base model's folder; see ``registry.bases.slug``.
        weight_hash: the hash of the base model's weights.
        data_hash: the hash of the task's data when the adapter was harvested.
        created: the UTC time when it was finished, ISO 8601.
        checkpoints: its checkpoints, from the first to the last step.
        figures: what was measured, such as ``exact_match`` on validation examples and ``seconds``.
        about: how it was made: recipe, versions, device, licence; where it was imported from, if it was.
        folder: the folder that it is in.
        sensitivity: the file of the mean squared gradients of its cores; None where it has none, as what is imported,
            no core in a frame, or harvested by an earlier version.
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
    sensitivity: HashedFile | None = None

    @property
    def last(self) -> Path:
        """The PEFT folder of the last checkpoint."""
        return self.folder / self.checkpoints[-1].folder

    @property
    def imported(self) -> Imported | None:
        """Where it was imported from and how; None if icmlora trained it."""
        return self.about.imported

    @property
    def bytes(self) -> int:
        """The bytes of all its checkpoints, and of the mean squared gradients beside them."""
        beside = 0 if self.sensitivity is None else self.sensitivity.bytes
        return beside + sum(item.bytes for item in self.checkpoints)

    def is_current(self, task: Task) -> bool:
        """Return whether it is of a task's present data; what was imported was not trained on them, and always is."""
        return self.imported is not None or self.data_hash == task.data_hash

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
            **({} if self.sensitivity is None else {"sensitivity": self.sensitivity}),
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


def harvest_again(record: AdapterRecord) -> str:
    """Return the command that removes an adapter and makes it again."""
    return f"icmlora adapter remove {record.task} --key {record.key} --yes && {again(record)}"


def _recipe_option(settings: Mapping[str, object] | None) -> tuple[str, ...]:
    """Return the option that names the shipped recipe of these settings; no option if it is the default recipe."""
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
        FileNotFoundError: If there is no manifest.
        CorruptFileError: If the manifest is broken.
    """
    manifest = AdapterManifest.read(path)
    return AdapterRecord(
        task=manifest.task,
        key=manifest.key,
        base=manifest.base,
        weight_hash=manifest.weight_hash,
        data_hash=manifest.data_hash,
        created=manifest.created,
        checkpoints=manifest.checkpoints,
        figures=manifest.figures,
        about=manifest.about,
        folder=path.parent,
        sensitivity=manifest.sensitivity,
    )


@dataclass(frozen=True)
class AdapterStore:
    """The adapters of a registry.

    Args:
        home: the folders of the registry.
    """

    home: Home

    def folder(self, base: str, task: str, key: str) -> Path:
        """Return the folder of an adapter, which need not exist.

        Args:
            base: the name of the base model's folder.
            task: the task's name.
            key: the adapter's key.
        """
        return self.home.adapters / base / task / key

    def find(self, base: str, task: str, key: str) -> AdapterRecord | None:
        """Return a finished adapter, or None if there is none; the arguments are those of ``folder``.

        Raises:
            CorruptFileError: If its manifest is broken.
        """
        path = self.folder(base, task, key) / MANIFEST
        return read_record(path) if path.is_file() else None

    def record(self, record: AdapterRecord) -> None:
        """Write the manifest of an adapter, after which it counts as finished."""
        record.manifest().write(record.folder / MANIFEST)

    def all(self, base: str | None = None) -> tuple[AdapterRecord, ...]:
        """Return the finished adapters, ordered by base, task and time.

        Args:
            base: the name of a base model's folder; None returns the adapters of all base models.

        Raises:
            CorruptFileError: If a manifest is broken.
        """
        pattern = f"{base or '*'}/*/*/{MANIFEST}"
        records = [read_record(path) for path in self._manifests(pattern)]
        return tuple(sorted(records, key=lambda item: (item.base, item.task, item.created)))

    def readable(self) -> tuple[AdapterRecord, ...]:
        """Return the finished adapters whose manifest can be read, ordered by base, task and time."""
        return self.scan()[0]

    def scan(self) -> tuple[tuple[AdapterRecord, ...], tuple[Path, ...]]:
        """Return the adapters whose manifest can be read, as ``readable`` does, and the broken manifests."""
        records, broken = [], []
        for path in self._manifests(f"*/*/*/{MANIFEST}"):
            try:
                records.append(read_record(path))
            except FileNotFoundError:  # it was removed since the folder was listed
                continue
            except CorruptFileError:
                broken.append(path)
        return tuple(sorted(records, key=lambda item: (item.base, item.task, item.created))), tuple(sorted(broken))

    def _manifests(self, pattern: str) -> list[Path]:
        root = self.home.adapters
        return [path for path in root.glob(pattern) if not temporary.within(path, root)]

    def latest(self, base: Base, task: Task) -> AdapterRecord:
        """Return the newest adapter for the present data of a task and the present weights of a base model.

        An imported adapter was not trained on the registry's examples, so it stays valid when they change.

        Raises:
            NotFoundError: If there is none, or only adapters of other data or other base weights.
        """
        record = self.newest(base, task)
        if record is None:
            folder = self.home.adapters / base.slug / task.name
            stale = " for its present examples and base weights" if any(folder.glob(f"*/{MANIFEST}")) else ""
            raise NotFoundError(
                f"task {task.name!r} has no harvested adapter{stale}",
                where=str(folder),
                hint=f"icmlora harvest --tasks {task.name}",
            )
        return record

    def newest(self, base: Base, task: Task) -> AdapterRecord | None:
        """Return the newest adapter, as ``latest`` does, but None if there is none.

        Raises:
            CorruptFileError: If a manifest is broken.
        """
        records = [read_record(path) for path in self._manifests(f"{base.slug}/{task.name}/*/{MANIFEST}")]
        same = [item for item in records if item.weight_hash == base.weight_hash and item.is_current(task)]
        return max(same, key=lambda item: item.created, default=None)

    def checked(self, record: AdapterRecord, checkpoint: AdapterCheckpoint) -> Path:
        """Compare a checkpoint's weights with the manifest, and return its PEFT folder.

        Raises:
            CorruptFileError: If the weights are missing or changed.
        """
        folder = record.folder / checkpoint.folder
        self._compare(record, folder / WEIGHTS, checkpoint.sha256, "the adapter")
        return folder

    def checked_sensitivity(self, record: AdapterRecord) -> Path | None:
        """Compare the file of an adapter's mean squared gradients with the manifest, and return it; None without one.

        Raises:
            CorruptFileError: If the file is missing or changed.
        """
        if record.sensitivity is None:
            return None
        path = record.folder / SENSITIVITY
        self._compare(record, path, record.sensitivity.sha256, "the sensitivity of the adapter")
        return path

    def _compare(self, record: AdapterRecord, path: Path, sha256: str, what: str) -> None:
        if not path.is_file() or files.sha256_file(path) != sha256:
            raise CorruptFileError(
                f"{what} of task {record.task!r} is missing or not what its manifest says",
                where=str(path),
                hint=f"icmlora registry verify --repair, or: {harvest_again(record)}",
            )

    def remove(self, task: str, base: str | None = None, *, key: str | None = None) -> int:
        """Delete the adapters of a task and return the bytes freed; a file with another hard link elsewhere frees none.

        Args:
            task: the task's name.
            base: the name of a base model's folder; None deletes the adapters on all base models.
            key: the key of the adapter to delete; None deletes all of the task's adapters.

        Raises:
            NotFoundError: If there are no such adapters.
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
