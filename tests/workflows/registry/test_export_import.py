"""Export and import: byte-equal on the other side, and nothing of an archive that is not what it says ever lands."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import icmlora_cli
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Lease
from icmlora_cli.errors import (
    AlreadyExistsError,
    CorruptFileError,
    IcmloraError,
    NotFoundError,
    OutOfSpaceError,
    UsageError,
)
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.generators import GeneratorStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep import archive_reader
from icmlora_cli.workflows.registry import export, import_archive, verify
from tests.small_registry import BASE, KEY, SmallRegistry, flip, tree

Members = list[tuple[tarfile.TarInfo, bytes]]
LISTING = "icmlora-export.json"


@pytest.fixture
def archive(small: SmallRegistry, tmp_path: Path) -> Path:
    """An export of two tasks, their adapters and a generator."""
    small.fill()
    path = tmp_path / "all.tar.zst"
    export.run(small.home, path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """The folders of another registry, with nothing in them."""
    return Home(tmp_path / "other-home", tmp_path / "other-cache")


def things_of(home: Home) -> dict[str, bytes]:
    return {path: data for path, data in tree(home.root).items() if path.split("/")[0] != "quarantine"}


# what must not be trusted: archives taken apart and put together by hand


def members_of(path: Path) -> Members:
    with (
        path.open("rb") as source,
        tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(source).read())) as tar,
    ):
        return [(item, tar.extractfile(item).read()) for item in tar.getmembers()]  # type: ignore[union-attr]


def pack(path: Path, members: Members) -> None:
    """Write members as an archive, whatever they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(zstandard.ZstdCompressor().compress(out.getvalue()))


def regular(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def relisted(members: Members, change: Callable[[dict[str, Any]], object]) -> Members:
    """Return members with a changed listing."""
    value = json.loads(members[0][1])
    change(value)
    return [regular(LISTING, json.dumps(value).encode()), *members[1:]]


def refused(archive: Path, other: Home, error: type[IcmloraError] = CorruptFileError, **how: Any) -> IcmloraError:
    """Check that an archive is refused in one clear error, and leaves nothing at all."""
    before = tree(other.root)
    with pytest.raises(error) as told:
        import_archive.run(other, archive, **how)
    assert tree(other.root) == before
    assert not [path for path in other.root.rglob("*") if path.name.startswith(files.TEMPORARY)]
    assert not (other.root.parent / "evil").exists() and told.value.hint and told.value.where
    return told.value


def test_the_round_trip_gives_the_same_bytes(archive: Path, small: SmallRegistry, other: Home) -> None:
    result = import_archive.run(other, archive)
    assert [item.state for item in result.things] == ["added"] * 5 and result.landed
    assert things_of(other) == things_of(small.home)
    assert TaskStore(other).get("say_cat").examples("train") == TaskStore(small.home).get("say_cat").examples("train")
    assert len(AdapterStore(other).all()) == 2 and GeneratorStore(other).names() == ("default",)
    assert result.bases == {BASE: False}
    assert verify.run(other).faults == ()
    again = import_archive.run(other, archive)
    assert {item.state for item in again.things} == {"unchanged"}


def test_the_same_things_give_the_same_bytes_after_the_listing(archive: Path, small: SmallRegistry) -> None:
    second = archive.with_name("second.tar.zst")
    export.run(small.home, second)
    assert [(i.name, i.mtime, data) for i, data in members_of(second)[1:]] == [
        (i.name, i.mtime, data) for i, data in members_of(archive)[1:]
    ]


def test_a_standard_tar_reads_it(archive: Path) -> None:
    names = [info.name for info, _ in members_of(archive)]
    assert names[0] == LISTING and "tasks/say_cat/task.json" in names
    manifest = names.index(f"adapters/{BASE}/say_cat/{KEY}/manifest.json")
    assert names.index(f"adapters/{BASE}/say_cat/{KEY}/checkpoint-00020/adapter_model.safetensors") < manifest


def test_what_is_chosen_is_exported(small: SmallRegistry, tmp_path: Path, other: Home) -> None:
    small.fill()
    small.generator("second")
    path = tmp_path / "some.tar.zst"
    result = export.run(small.home, path, tasks=["*_cat"], generators_named=["sec*"])
    assert [(item.kind, item.name) for item in result.things] == [("task", "say_cat"), ("generator", "second")]
    import_archive.run(other, path)
    assert TaskStore(other).names() == ("say_cat",) and GeneratorStore(other).names() == ("second",)
    export.run(small.home, path, adapters_of=["say_dog"], force=True)
    assert [item.thing.name for item in import_archive.run(other, path).things] == [f"{BASE}/say_dog/{KEY}"]


def test_export_says_what_it_cannot_do(small: SmallRegistry, tmp_path: Path) -> None:
    path = tmp_path / "out.tar.zst"
    with pytest.raises(UsageError, match="nothing to export"):
        export.run(small.home, path)
    small.fill()
    for pattern in ({"tasks": ["zebra*"]}, {"adapters_of": ["zebra*"]}, {"generators_named": ["zebra"]}):
        with pytest.raises(NotFoundError, match="zebra"):
            export.run(small.home, path, **pattern)  # type: ignore[arg-type]
    path.write_text("mine")
    with pytest.raises(AlreadyExistsError):
        export.run(small.home, path)
    assert path.read_text() == "mine"
    export.run(small.home, path, force=True)
    before = path.read_bytes()
    flip(small.home.generators / "default" / "generator.safetensors")
    with pytest.raises(CorruptFileError, match="default is damaged"):
        export.run(small.home, path, force=True)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".tmp-")] == []


def test_what_nothing_lists_stays_here(small: SmallRegistry, tmp_path: Path, other: Home) -> None:
    small.fill()
    (small.home.generators / "default" / "notes.txt").write_text("private")
    (small.adapter("say_cat") / "state.safetensors").write_bytes(b"x")
    export.run(small.home, tmp_path / "a.tar.zst")
    import_archive.run(other, tmp_path / "a.tar.zst")
    assert not [path for path in tree(other.root) if "notes" in path or "state" in path]


def test_something_else_of_that_name_is_kept_unless_forced(archive: Path, other: Home) -> None:
    there = SmallRegistry(other)
    there.task("say_cat", "tiger")
    mine = tree(there.generator("default", seed=5))
    error = refused(archive, other, AlreadyExistsError)
    assert "task say_cat" in error.message and "generator default" in error.message and "--force" in str(error.hint)
    result = import_archive.run(other, archive, force=True)
    states = {item.thing.name: item.state for item in result.things}
    assert (states["say_cat"], states["default"], states["say_dog"]) == ("replaced", "replaced", "added")
    aside = next(item.aside for item in result.things if item.thing.kind == "generator")
    assert aside is not None and tree(aside) == mine
    assert verify.run(other).faults == ()


def test_an_unfinished_harvest_of_the_same_key_is_set_aside(archive: Path, other: Home) -> None:
    folder = other.adapters / BASE / "say_cat" / KEY
    files.write_bytes(folder / "state.safetensors", b"state")
    result = import_archive.run(other, archive)
    aside = next(item.aside for item in result.things if item.thing.name.startswith(f"{BASE}/say_cat"))
    assert aside is not None and (aside / "state.safetensors").read_bytes() == b"state"
    assert len(AdapterStore(other).all()) == 2


def test_a_dry_run_checks_all_and_changes_nothing(archive: Path, other: Home) -> None:
    result = import_archive.run(other, archive, dry_run=True)
    assert not result.landed and {item.state for item in result.things} == {"added"} and tree(other.root) == {}
    flip(archive, archive.stat().st_size // 2)
    refused(archive, other, dry_run=True)


def test_base_models_that_are_here_are_known(archive: Path, other: Home) -> None:
    SmallRegistry(other).base()
    assert import_archive.run(other, archive).bases == {BASE: True}


def test_a_file_that_is_not_there(other: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.tar\.zst"):
        import_archive.run(other, tmp_path / "none.tar.zst")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"PK\x03\x04" * 99, os.urandom(5000), zstandard.compress(b"Dear reader, " * 999)]
)
def test_what_is_no_archive(other: Home, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(data)
    refused(path, other)


def test_archives_of_other_kinds(archive: Path, other: Home) -> None:
    members = members_of(archive)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    archive.write_bytes(out.getvalue())
    assert "zstd" in refused(archive, other).message
    pack(archive, members[1:])
    assert LISTING in refused(archive, other).message


def test_every_truncation_is_found(archive: Path, other: Home) -> None:
    data = archive.read_bytes()
    for length in {*range(0, len(data), len(data) // 25), *range(len(data) - 12, len(data))}:
        archive.write_bytes(data[:length])
        assert ("cut short" if length > 3 else "zstd") in refused(archive, other).message


def test_flipped_bits_are_found(archive: Path, small: SmallRegistry, other: Home) -> None:
    """A few bits of a zstd frame mean nothing, such as how much memory it asks for: there the content is whole."""
    data, meaningless = archive.read_bytes(), 0
    for at in {*range(24), *range(24, len(data), len(data) // 40), *range(len(data) - 6, len(data))}:
        flip(archive, at, at % 8)
        try:
            import_archive.run(other, archive)
        except CorruptFileError:
            assert tree(other.root) == {}
        else:
            meaningless += 1
            assert things_of(other) == things_of(small.home)
            shutil.rmtree(other.root)
        archive.write_bytes(data)
    assert meaningless <= 6


def test_what_follows_the_archive_is_refused(archive: Path, other: Home) -> None:
    data = archive.read_bytes()
    for more in (b"x", b"\0" * 600, data, zstandard.compress(b"more")):
        archive.write_bytes(data + more)
        assert "follows" in refused(archive, other).message


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "tasks/../../evil",
        "/evil",
        "tasks/say_cat/../../../evil",
        "tasks/evil/run.sh",
        "tasks\\..\\evil",
        "C:/evil",
    ],
)
def test_names_that_lead_elsewhere(archive: Path, other: Home, name: str) -> None:
    """In the tar alone, in the listing too, or as a thing's folder."""
    members = members_of(archive)
    pack(archive, [*members, regular(name, b"evil")])
    assert "not listed" in refused(archive, other).message
    pack(archive, [members[0], regular(name, b"evil"), *members[1:]])
    assert f"holds {name!r} where" in refused(archive, other).message
    item = {"path": name, "bytes": 4, "sha256": "0" * 64}

    def in_files(value: dict[str, Any]) -> None:
        value["things"][0]["files"].insert(0, item)

    def as_folder(value: dict[str, Any]) -> None:
        value["things"].insert(0, {"kind": "task", "folder": name, "files": [item | {"path": "task.json"}]})

    for change in (in_files, as_folder):
        pack(archive, relisted([members[0], regular(name, b"evil"), *members[1:]], change))
        assert "which is no file of a task" in refused(archive, other).message


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.CONTTYPE,
    ],
)
def test_links_and_devices(archive: Path, other: Home, tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret").write_text("secret")
    members = members_of(archive)
    for at in (0, 1, 5):
        info, _ = members[at]
        strange = tarfile.TarInfo(info.name)
        strange.type, strange.linkname = kind, str(tmp_path / "secret")
        pack(archive, [*members[:at], (strange, b""), *members[at + 1 :]])
        assert (f"holds {info.name!r} where" if at else "its first file") in refused(archive, other).message
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_link_that_a_later_file_would_be_written_through(archive: Path, other: Home, tmp_path: Path) -> None:
    members = members_of(archive)
    link = tarfile.TarInfo("tasks/say_cat")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    pack(archive, [members[0], (link, b""), *members[1:]])
    assert "holds 'tasks/say_cat' where" in refused(archive, other).message
    assert not (tmp_path / "task.json").exists()


def test_declared_sizes_are_bounded(archive: Path, other: Home) -> None:
    members = members_of(archive)

    def huge(value: dict[str, Any]) -> None:
        value["things"][0]["files"][0]["bytes"] = 2**45

    pack(archive, relisted(members, huge))
    assert "--max-gb" in str(refused(archive, other).hint)
    refused(archive, other, OutOfSpaceError, most=2**60)  # allowed, and there is no such disk
    name = members[1][0].name
    start = raw(*members[0]) + _header(tarfile.REGTYPE, 2**40, name)
    archive.write_bytes(zstandard.compress(start + b"\0" * 4096))
    assert name in refused(archive, other).message
    archive.write_bytes(archive_reader.MAGIC + b"\xe0" + (2**60).to_bytes(8, "little") + b"\0" * 50)
    assert "unpacks to" in refused(archive, other).message


def test_a_listing_that_is_a_bomb(archive: Path, other: Home) -> None:
    info = tarfile.TarInfo(LISTING)
    info.size = 2**40
    archive.write_bytes(zstandard.compress(info.tobuf() + b"\0" * 4096))
    assert "listing would be" in refused(archive, other).message
    pack(archive, [regular(LISTING, b"[" * 200_000)])
    assert "listing" in refused(archive, other).message


def test_bombs(archive: Path, other: Home) -> None:
    """300 MB of zeros, in some 10 KB: as the archive, behind it, as padding, and as a header."""
    import tracemalloc

    members = members_of(archive)
    whole = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(archive.read_bytes())).read()
    compressor, zeros = zstandard.ZstdCompressor(level=1), b"\0" * 1_000_000
    starts = {
        "alone": b"",
        "behind": whole,
        "long name": _header(b"L", 300_000_000),
        "pax header": _header(b"x", 300_000_000),
        "header of a listed file": raw(*members[0]) + _header(b"x", 300_000_000),
        "a listed file": raw(*members[0]) + _header(tarfile.REGTYPE, 300_000_000, members[1][0].name),
    }
    for name, start in starts.items():
        out = io.BytesIO()
        with compressor.stream_writer(out, closefd=False) as writer:
            writer.write(start)
            for _ in range(300):
                writer.write(zeros)
        archive.write_bytes(out.getvalue())
        assert archive.stat().st_size < 200_000, name
        tracemalloc.start()
        refused(archive, other)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 150_000_000, name


def _header(kind: bytes, size: int, name: str = "././@LongLink") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def raw(info: tarfile.TarInfo, data: bytes) -> bytes:
    """Return a member as it lies in a tar."""
    return info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)


def test_files_that_are_missing_or_not_listed(archive: Path, other: Home) -> None:
    members = members_of(archive)
    for wrong, message in (
        (members[:-1], "is listed, and is not there"),
        ([*members[:2], *members[3:]], "where tasks/say_cat/task.json"),
        ([*members, regular("more", b"x")], "a file that is not listed"),
        ([members[0], members[2], members[1], *members[3:]], "where tasks/say_cat/examples.jsonl"),
        ([*members, members[1]], "a file that is not listed"),
    ):
        pack(archive, wrong)
        assert message in refused(archive, other).message


def test_a_wrong_hash(archive: Path, other: Home) -> None:
    members = members_of(archive)
    for at in range(1, len(members)):
        info, data = members[at]
        damaged = data[:-1] + bytes([data[-1] ^ 1])
        pack(archive, [*members[:at], (info, damaged), *members[at + 1 :]])
        assert "SHA-256" in refused(archive, other).message


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(value: dict[str, Any]) -> None:
        at: Any = value
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (change("schema", to="icmlora.export/2"), "broken at schema:"),
        (change("things", to=[]), "broken at things:"),
        (change("things", to="all"), "broken at things:"),
        (change("things", 0, "kind", to="program"), "broken at things.0.kind:"),
        (change("things", 0, "files", to=[]), "broken at things.0.files:"),
        (change("things", 0, "files", 0, "bytes", to=-1), "broken at things.0.files.0.bytes:"),
        (change("things", 0, "files", 0, "bytes", to=True), "broken at things.0.files.0.bytes:"),
        (change("things", 0, "files", 0, "bytes", to="7"), "broken at things.0.files.0.bytes:"),
        (change("things", 0, "files", 0, "sha256", to="0" * 63), "broken at things.0.files.0.sha256:"),
        (change("things", 0, "files", 0, "mode", to=0o777), "broken at things.0.files.0.mode:"),
        (change("things", 0, "folder", to="generators/say_cat"), "no file of a task"),
        (change("things", 1, "folder", to="tasks/SAY_CAT"), "tasks/SAY_CAT twice"),
    ],
)
def test_listings_that_cannot_be(
    archive: Path, other: Home, wrong: Callable[[dict[str, Any]], None], message: str
) -> None:
    pack(archive, relisted(members_of(archive), wrong))
    assert message in refused(archive, other).message


def test_a_thing_that_its_own_manifest_contradicts(small: SmallRegistry, tmp_path: Path, other: Home) -> None:
    """Listing and hashes agree, and the manifest is another's, or names a folder elsewhere."""
    small.fill()
    path = tmp_path / "a.tar.zst"
    export.run(small.home, path, tasks=["say_cat"])
    members = members_of(path)
    renamed = [(replace_name(info, "say_cat", "say_cow"), data) for info, data in members]

    def rename(value: dict[str, Any]) -> None:
        value["things"][0]["folder"] = "tasks/say_cow"

    pack(path, relisted(renamed, rename))
    assert "task say_cow" in refused(path, other).message


def replace_name(info: tarfile.TarInfo, old: str, new: str) -> tarfile.TarInfo:
    copied = tarfile.TarInfo(info.name.replace(old, new))
    copied.size = info.size
    return copied


KILLED = """
import os, sys
from pathlib import Path
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.registry import import_archive
from tests.dying import die_at_rename

for at in range(1, 100):
    root = Path(sys.argv[2]) / str(at)
    child = os.fork()
    if not child:
        die_at_rename(at)
        import_archive.run(Home(root / "home", root / "cache"), Path(sys.argv[1]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
print(at)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_rename(archive: Path, small: SmallRegistry, tmp_path: Path) -> None:
    """Whatever is there after a kill is whole; the same command then finishes, and gc frees what was left."""
    from icmlora_cli.workflows.registry import gc

    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(archive), str(tmp_path / "killed")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    last = int(done.stdout)
    assert last == 6  # a rename a thing; the sixth process ran to its end
    whole = things_of(small.home)
    for at in range(1, last + 1):
        home = Home(tmp_path / "killed" / str(at) / "home", tmp_path / "killed" / str(at) / "cache")
        result = verify.run(home)
        assert [fault.kind for fault in result.faults] == ["left-over"] * (at < last), at
        assert sum(count for thing, count in result.checked.items() if thing != "base") == at - 1
        import_archive.run(home, archive)
        freed = gc.run(home, gc.plan(home))
        assert len(freed.freed) == (at < last)
        assert things_of(home) == whole


def test_a_harvest_at_work_is_not_disturbed(archive: Path, other: Home) -> None:
    with Lease(other.adapters / BASE / "say_cat" / KEY).tried() as mine:
        assert mine and "harvests adapter" in refused(archive, other, IcmloraError).message
    assert import_archive.run(other, archive).landed
