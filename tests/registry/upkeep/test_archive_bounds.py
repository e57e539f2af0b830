"""Archives that nobody vouches for: what they cost before they are refused is bounded."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.registry.upkeep.archive import LISTING, SCHEMA
from icmlora_cli.registry.upkeep.archive_reader import LISTING_BYTES, unpack

MEASURED = """
import resource, sys
from pathlib import Path
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.registry.upkeep.archive_reader import unpack

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), most=None, on_listing=lambda things: None, on_file=lambda name: None)
except CorruptFileError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error.message)
"""


def archive(path: Path, listing: bytes, *headers: tarfile.TarInfo) -> Path:
    """Write a zstd tar whose first member is a listing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(LISTING)
        info.size = len(listing)
        tar.addfile(info, io.BytesIO(listing))
        for header in headers:
            tar.addfile(header)
    path.write_bytes(zstandard.ZstdCompressor(level=3).compress(buffer.getvalue()))
    return path


def listed(things: str, count: int) -> bytes:
    """Return a listing in which a piece of JSON stands many times."""
    start = json.dumps({"schema": SCHEMA})[:-1].encode()
    return start + b', "things": [' + b",".join([things.encode()] * count) + b"]}"


@pytest.mark.parametrize(
    ("piece", "bytes_each"),
    [
        ("{}", 3),
        ("[]", 3),
        ('{"files":[{},{}]}', 18),
        ('{"kind":"task","folder":"tasks/x","files":[]}', 46),
        ('"xy"', 5),
    ],
)
def test_a_listing_of_nothings_takes_no_memory(tmp_path: Path, piece: str, bytes_each: int) -> None:
    path = archive(tmp_path / "x.tar.zst", listed(piece, (LISTING_BYTES - 100) // bytes_each))
    assert path.stat().st_size < 100_000
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, message = done.stdout.split(" ", 1)
    assert int(kilobytes) * 1024 < 500_000_000, done.stdout
    assert "is no usable export: its listing" in message and len(message) < 300


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "x,y"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999999999999"},
        {"GNU.sparse.map": "0,9" + ",0,9" * 5000},
        {"size": "-5"},
        {"size": "9" * 4000},
        {"mtime": "nan"},
    ],
)
def test_headers_of_other_tars_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    listing = json.dumps(
        {"schema": SCHEMA, "things": [{"kind": "task", "folder": "tasks/x", "files": [
            {"path": "task.json", "bytes": 5, "sha256": "0" * 64}]}]}
    ).encode()  # fmt: skip
    info = tarfile.TarInfo("tasks/x/task.json")
    info.pax_headers = headers
    path = archive(tmp_path / "x.tar.zst", listing, info)
    with pytest.raises(CorruptFileError):
        unpack(path, tmp_path, most=None, on_listing=lambda things: None, on_file=lambda name: None)
