"""Plans what of an output is sent to the hub: only known files, all whole, and without paths of this machine."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icmlora_cli.disk import checksums, files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError, PushRefusedError
from icmlora_cli.manifests.foreign import BaseOfConfig, SafetensorsIndex
from icmlora_cli.manifests.generator import GeneratorManifest
from icmlora_cli.manifests.output import TEXTS, Finetuned, Generated, Output, read_output
from icmlora_cli.manifests.parts import HashedFile
from icmlora_cli.provenance import local_paths
from icmlora_cli.provenance.licences import no_derivatives
from icmlora_cli.provenance.versions import ABOUT
from icmlora_cli.registry import adapters, generators
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.upkeep import checks
from icmlora_cli.report.card_check import check_card
from icmlora_cli.report.cards import CARD, CardData, is_hub_id
from icmlora_cli.workflows.gen.write import GGUF_LORA, GGUF_MODEL

Kind = Literal["adapter", "merged", "gguf", "generator"]

MODEL = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
INDEX = "model.safetensors.index.json"
_OF_MODEL = (
    r"config\.json|generation_config\.json|model\.safetensors\.index\.json|tokenizer\.(json|model)|spiece\.model|"
    r"(tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config|processor_config)\.json|merges\.txt|vocab\.txt|"
    rf"chat_template\.(jinja|json)|{MODEL.pattern}"
)
_BESIDE = r"README\.md|LICENSE(\.md|\.txt)?|NOTICE(\.md|\.txt)?"
WEIGHTS: dict[Kind, re.Pattern[str]] = {
    "adapter": re.compile(re.escape(adapters.CONFIG) + "|" + re.escape(adapters.WEIGHTS)),
    "merged": re.compile(_OF_MODEL),
    "gguf": re.compile(rf"{re.escape(GGUF_LORA)}|{re.escape(GGUF_MODEL)}"),
    "generator": re.compile(re.escape(generators.WEIGHTS)),
}
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".msgpack", ".h5"}


@dataclass(frozen=True)
class PushFile:
    """A file that is sent.

    Args:
        name: The name of the file in the repository.
        path: The path of the file on this machine.
        data: The bytes that are sent instead of the file's own; None sends the file as it is.
    """

    name: str
    path: Path
    data: bytes | None = None

    @property
    def size(self) -> int:
        """The bytes that are sent."""
        return self.path.stat().st_size if self.data is None else len(self.data)


@dataclass(frozen=True)
class PushPlan:
    """What is sent of an output.

    Args:
        folder: The folder of the output.
        kind: The kind of the output.
        files: The files that are sent.
        left: The names of the folder's entries that are not sent.
        shortened: The manifests in which paths of this machine are cut to their last part.
        no_derivatives: The licences of what it learned from that forbid derivatives.
    """

    folder: Path
    kind: Kind
    files: tuple[PushFile, ...]
    left: tuple[str, ...]
    shortened: tuple[str, ...]
    no_derivatives: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(item.size for item in self.files)


def plan(reference: str, home: Home) -> PushPlan:
    """Return what would be sent of an output.

    Args:
        reference: A folder that ``gen`` wrote, a generator's folder, or the name of a generator in the registry.
        home: The registry.

    Raises:
        CorruptFileError: If a file is missing or not what the manifest says.
        NotFoundError: If there is no such output.
        PushRefusedError: If it holds pickles or links, its base is not on the hub, or its card is not fit to publish.
    """
    folder = _folder(reference, home)
    kind = _kind(folder)
    _refuse_pickles(folder)
    manifest = generators.CONFIG if kind == "generator" else ABOUT
    about = GeneratorManifest.read(folder / manifest) if kind == "generator" else read_output(folder)
    whole = _whole_generator(folder) if isinstance(about, GeneratorManifest) else _whole_output(folder, kind, about)
    _check_base(folder, kind, about)
    _check_settings(folder, whole)
    check_card(folder / CARD)
    beside = [path.name for path in folder.iterdir() if path.is_file() and re.fullmatch(_BESIDE, path.name)]
    clean = _clean(folder, kind, files.read_json(folder / manifest))
    sent = sorted({*whole, *beside, manifest})
    _refuse_links(folder, sent)
    return PushPlan(
        folder=folder,
        kind=kind,
        files=tuple(PushFile(name, folder / name, clean if name == manifest else None) for name in sent),
        left=tuple(sorted(path.name for path in folder.iterdir() if path.name not in sent)),
        shortened=() if clean is None else (manifest,),
        no_derivatives=_no_derivatives(about),
    )


def _folder(reference: str, home: Home) -> Path:
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    if reference in GeneratorStore(home).names():
        return GeneratorStore(home).folder(reference)
    raise NotFoundError(
        f"there is no folder and no generator {reference[:200]!r}",
        where=str(path.absolute()),
        hint="give a folder that icmlora gen wrote, or a generator's name: " + ", ".join(GeneratorStore(home).names()),
    )


def _kind(folder: Path) -> Kind:
    if (folder / generators.CONFIG).is_file():
        return "generator"
    if (folder / ABOUT).is_file():
        if any((folder / name).is_file() for name in (GGUF_LORA, GGUF_MODEL)):
            return "gguf"
        return "merged" if read_output(folder).merged else "adapter"
    inner = sorted(path.name for path in folder.iterdir() if (path / ABOUT).is_file())
    raise NotFoundError(
        f"{folder.name or folder} is nothing that icmlora made: it has neither {ABOUT} nor {generators.CONFIG}",
        where=str(folder.absolute()),
        hint=f"each of its folders by itself, such as {folder / inner[0]}" if inner else "icmlora gen ... -o out/",
    )


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise PushRefusedError(
            f"{pickles[0].name} may be a Python pickle, which runs code where it is loaded",
            where=str(pickles[0].absolute()),
            hint="move it out of the folder; what icmlora writes is safetensors and JSON",
        )


def _refuse_links(folder: Path, names: list[str]) -> None:
    """Check that what is sent lies in the folder, and is not a link to something private elsewhere."""
    links = [name for name in names if (folder / name).is_symlink()]
    if links:
        raise PushRefusedError(
            f"{links[0]} is a link to {(folder / links[0]).readlink()}",
            where=str((folder / links[0]).absolute()),
            hint="put the file itself into the folder, or move the link out of it",
        )


def _whole_generator(folder: Path) -> set[str]:
    """Return the files of a whole generator; its card may have been edited."""
    flaws = [flaw for flaw in checks.generator_flaws(folder) if flaw.path.name != CARD and flaw.kind != "unlisted"]
    if flaws:
        raise CorruptFileError(f"{flaws[0].path.name}: {flaws[0].what}", where=str(flaws[0].path), hint="icmlora train")
    return {generators.WEIGHTS}


def _no_derivatives(held: GeneratorManifest | Output) -> tuple[str, ...]:
    named = held.no_derivatives if isinstance(held, Generated | Finetuned) else ()
    return no_derivatives((*CardData.of(held).licences, *named))


def _whole_output(folder: Path, kind: Kind, held: Output) -> set[str]:
    """Return the files of an adapter or merged model, once they are found whole and as its manifest lists them."""
    names = {path.name for path in folder.iterdir() if path.is_file() and WEIGHTS[kind].fullmatch(path.name)}
    if held.files is not None:
        names = {name for name in held.files if WEIGHTS[kind].fullmatch(name)}
        for name in sorted(names):
            _check_listed(folder / name, held.files[name])
    _check_complete(folder, kind, names)
    for name in names:
        flaws = checks.safetensors_flaws(folder / name) if name.endswith(".safetensors") else []
        if flaws:
            raise _corrupt(folder / name, flaws[0].what)
    return names


def _check_listed(path: Path, listed: HashedFile) -> None:
    if not path.is_file():
        raise _corrupt(path, f"{path.name} is missing")
    if files.sha256_file(path) != listed.sha256:
        raise _corrupt(path, f"{path.name} is not the file that {ABOUT} lists: another SHA-256")


def _check_complete(folder: Path, kind: Kind, names: set[str]) -> None:
    needed = {"adapter": {adapters.CONFIG, adapters.WEIGHTS}, "merged": {"config.json"}}.get(kind, set())
    if kind == "merged" and INDEX in names:
        needed.update(SafetensorsIndex.read(folder / INDEX).shards)
    elif kind == "merged":
        needed.add("model.safetensors")
    missing = sorted(needed - names)
    if missing:
        raise _corrupt(folder / missing[0], f"{missing[0]} is missing")


def _corrupt(path: Path, what: str) -> CorruptFileError:
    return CorruptFileError(what, where=str(path.absolute()), hint="generate it again: icmlora gen ... --force")


def _check_base(folder: Path, kind: Kind, held: GeneratorManifest | Output) -> None:
    named: list[str | None]
    named = [held.base.name, held.base_model] if isinstance(held, GeneratorManifest) else [held.base.model_id]
    if kind == "adapter":
        named.append(BaseOfConfig.read(folder / adapters.CONFIG).base_model_name_or_path)
    strange = [name for name in named if name is None or not is_hub_id(name)]
    if strange:
        raise PushRefusedError(
            f"its base is {strange[0]!r}, which nobody else can load: not the id of a model on the hub",
            where=str(folder.absolute()),
            hint="icmlora base pull ORGANISATION/NAME, and harvest, train and generate with that base",
        )


def _check_settings(folder: Path, whole: set[str]) -> None:
    """Check that no configuration names a path of this machine; these are not rewritten."""
    for name in sorted(whole):
        if not name.endswith("config.json"):
            continue
        for key, text in local_paths.strings(files.read_json(folder / name)):
            if local_paths.is_local(text) and local_paths.names_path(text):
                raise PushRefusedError(
                    f"{name} names a path of this machine under {key}",
                    where=str((folder / name).absolute()),
                    hint="put there what others have too, then push again",
                )


def _clean(folder: Path, kind: Kind, about: dict[str, object]) -> bytes | None:
    """Return the manifest's bytes without paths of this machine; None where it has none.

    A generator's manifest gets the hash of the present card, which may have been edited, and a new checksum.
    """
    clean = local_paths.clean_object(about, TEXTS)
    if kind == "generator":
        clean["card_sha256"] = files.sha256_file(folder / CARD)
        clean = checksums.with_checksum(clean) if clean != about else clean
    return None if clean == about else files.json_bytes(clean)
