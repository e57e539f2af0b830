"""Trained generators on disk, in ``generators/<name>/``. The package ``generator`` loads their weights."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.disk import temporary
from icmlora_cli.disk.home import NAME, Home, checked_name
from icmlora_cli.errors import NotFoundError
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.upkeep.findings import REPAIR

CONFIG = "generator.json"
WEIGHTS = "generator.safetensors"
CARD = "README.md"
DEFAULT = "default"
BUNDLED = "bundled"  # comes with icmlora, and is used while there is no default generator
STATE = ".training.safetensors"  # NAME.training.safetensors is the saved state of a training that is not finished


def bundled() -> Path:
    """Return the folder of the generator that comes with icmlora, for smollm2-135m.

    Raises:
        NotFoundError: If this copy of icmlora has no bundled generator.
    """
    folder = Path(__file__).resolve().parents[1] / BUNDLED / "smollm2-135m"
    if not (folder / CONFIG).is_file():
        raise NotFoundError("this copy of icmlora has no bundled generator", where=str(folder), hint="icmlora train")
    return folder


@dataclass(frozen=True)
class GeneratorStore:
    """The generators of a registry.

    Args:
        home: the folders of the registry.
    """

    home: Home

    def names(self) -> tuple[str, ...]:
        """Return the names of the finished generators, sorted."""
        names = (path.parent.name for path in self.home.generators.glob(f"*/{CONFIG}"))
        return tuple(sorted(name for name in names if NAME.fullmatch(name)))  # without what a killed training left

    def folder(self, name: str) -> Path:
        """Return the folder of a generator, which need not exist.

        Raises:
            UsageError: If the name cannot be that of a folder.
        """
        return self.home.generators / checked_name(name, "generator")

    def manifest(self, name: str) -> GeneratorManifest:
        """Return the ``generator.json`` of a generator.

        Raises:
            FileNotFoundError: If there is no such generator.
            CorruptFileError: If it is broken.
        """
        return GeneratorManifest.read(self.folder(name) / CONFIG)

    def tasks(self, name: str) -> frozenset[str]:
        """Return the names of the tasks that a generator learned from."""
        return frozenset(self.manifest(name).tasks)

    def base(self, name: str) -> str:
        """Return the name of the folder of a generator's base model."""
        return BaseStore(self.home).slug(self.manifest(name).base.name)

    def find(self, reference: str) -> Path:
        """Return the folder of a generator that is given by name or by path.

        The bundled generator is also found as ``default`` if there is no generator of that name.

        Raises:
            NotFoundError: If there is no such generator.
        """
        path = Path(reference).expanduser()
        if (path / CONFIG).is_file():
            return path
        if reference in self.names():
            return self.folder(reference)
        aside = bool(NAME.fullmatch(reference)) and temporary.set_aside(self.home.generators / reference)
        if reference in (DEFAULT, BUNDLED) and not aside:
            with suppress(NotFoundError):
                return bundled()
        known = ", ".join(self.names())
        hint = f"--generator with one of: {known}" if known else "train one: icmlora harvest && icmlora train"
        if aside:
            hint = REPAIR
        raise NotFoundError(f"there is no generator {reference!r}", where=str(self.home.generators), hint=hint)
