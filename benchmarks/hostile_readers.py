"""What 1 MB of hostile input costs each reader of foreign bytes: CPU seconds, and peak memory above the interpreter.

The readers are those of ``tests/fuzz/readers.py``. Each input that a reader takes is made hostile in every place: under
each of its keys stand a million bytes of brackets, empty objects, digits, names, and so on; and the whole file is
replaced by such bytes. Each is read in a process of its own, forked from one that has torch and every reader loaded.
"""

import argparse
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from icmlora_cli.errors import IcmloraError
from tests.fuzz.readers import READERS, Reader, safetensors, tar

MOST_SECONDS, MOST_BYTES = 8, 6 << 30  # of CPU time and of addresses, after which a reader is stopped


@dataclass(frozen=True)
class Cost:
    """What one input cost."""

    reader: str
    shape: str
    bytes: int
    seconds: float
    megabytes: float
    end: str


def filled(piece: str, size: int, start: str = "", end: str = "") -> str:
    """Return a piece of text as often as it goes into a size in bytes, between a start and an end."""
    return start + piece * ((size - len(start) - len(end)) // len(piece)) + end


def numbered(piece: str, size: int) -> str:
    """Return a piece with rising numbers in the place of ``#``."""
    count = size // (len(piece) + 5)
    return "".join(piece.replace("#", str(index)) for index in range(count))


def values(size: int) -> Iterator[tuple[str, str]]:
    """Yield hostile JSON values, which are YAML too."""
    for piece in (
        "[]",
        "{}",
        "0",
        '""',
        "null",
        '{"a":0}',
        "[[0]]",
        "1e999",
        '"\\ud800"',
        "9" * 4000,
        "0x" + "f" * 5000,
    ):
        shown = piece if len(piece) < 20 else f"{piece[:2]}... of {len(piece):,}"
        yield f"list of {shown}", filled(piece + ",", size, "[", "0]")
    yield "deep lists", "[" * (size // 2) + "]" * (size // 2)
    yield "deep objects", '{"a":' * (size // 6) + "0" + "}" * (size // 6)
    yield "lists 60 deep", filled("[" * 60 + "0" + "]" * 60 + ",", size, "[", "0]")
    yield "one long text", filled("a", size, '"', '"')
    yield "escaped newlines", filled("\\n", size, '"', '"')
    yield "one long number", filled("9", size)
    yield "60,000 names", "{" + numbered('"k#":0,', size) + '"k":0}'
    yield "60,000 expressions", "{" + numbered('"k.*#":0,', size) + '"k":0}'
    yield "objects by name", "{" + numbered('"k#":{},', size) + '"k":{}}'
    yield "one name again", filled('"k":0,', size, "{", '"k":0}')


IN_PLACE_OF_A_TEXT = ("list of {}", "one long text", "escaped newlines", "one long number", "60,000 names")


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to each value within a value, itself included."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def with_hole(value: Any, path: tuple[str | int, ...], hole: str) -> Any:
    """Return a value in which another stands at a place."""
    if not path:
        return hole
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_hole(copy[path[0]], path[1:], hole)
    return copy


def at_each_place(seed: Any, size: int) -> Iterator[tuple[str, str]]:
    """Yield JSON in which a hostile value stands at a place, or what stands there is repeated."""
    hole = "HOLE"
    for path in places(seed):
        where = ".".join(map(str, path)) or "the whole"
        around, inner = json.dumps(with_hole(seed, path, hole)).split(json.dumps(hole)), seed
        for step in path:
            inner = inner[step]
        held = isinstance(inner, dict | list)
        for name, text in values(size):
            if held or name in IN_PLACE_OF_A_TEXT:
                yield f"{name} at {where}", text.join(around)
        if isinstance(inner, list) and inner:
            text = json.dumps(inner)[1:-1] + ","
            yield f"the same again at {where}", filled(text, size, "[", text[:-1] + "]").join(around)
        if isinstance(inner, dict):
            known = "".join(f"{json.dumps(key)}:{json.dumps(item)}," for key, item in inner.items())
            unknown = "{" + known + numbered('"k#":0,', size) + '"k":0}'
            yield f"unknown keys at {where}", unknown.join(around)
            first = json.dumps(next(iter(inner.values()))) if inner else "0"
            again = "{" + known + numbered(f'"k#":{first},', size) + f'"k":{first}}}'
            yield f"more of the same at {where}", again.join(around)


def raw(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield bytes of no format."""
    for piece in (
        b"\n",
        b" ",
        b"\0",
        b"\xff",
        b"\r",
        b"a\n",
        b'"',
        b"a",
        b"9",
        b"---\n",
        b"\n---\n",
        b"\xe2\x80\xa8",
        b"# a\n",
    ):
        yield f"{piece!r} again", piece * (size // len(piece))


def of_yaml(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield YAML."""
    for name, text in at_each_place(yaml.safe_load(seed), size):
        yield name, text.encode()
    bomb = "a0: &a0 [0,0,0,0,0,0,0,0,0]\n" + "".join(
        f"a{index}: &a{index} [{','.join([f'*a{index - 1}'] * 9)}]\n" for index in range(1, 12)
    )
    merges = "a0: &a0 {k: 0}\n" + "".join(
        f"a{index}: &a{index} {{<<: [*a{index - 1}, *a{index - 1}]}}\n" for index in range(1, 30)
    )
    yield "aliases of aliases", bomb.encode()
    yield "merges of merges", merges.encode()
    wide = "a: &a {" + numbered("k#: 0, ", size // 2) + "}\n"
    yield "one mapping merged often", (wide + filled("- {<<: *a}\n", size // 2, "b:\n")).encode()
    for piece in (
        "- a\n",
        "- - a\n",
        "- {}\n",
        "? a\n",
        "- &a a\n",
        "- !!str a\n",
        "- !a a\n",
        "- 0x1\n",
        "- 1:1\n",
        "- 2001-01-01\n",
        "- ~\n",
        "- 'a'\n",
        "- |\n  a\n",
        "- !!binary aaaa\n",
        "- !!set {a}\n",
        "- !!omap [a: 1]\n",
        "- .inf\n",
    ):
        yield f"{piece!r} again", filled(piece, size).encode()
    for start, piece in (
        ("0b", "1"),
        ("0x", "f"),
        ("1", ":1"),
        ("1", "_"),
        ("&a ", "a"),
        ("!a", "a"),
        ("a: ", "- "),
        ("|\n", " a\n"),
        ("!!binary ", "aaaa"),
        ("%", "a"),
        ("", "? "),
        ("", "[{"),
        ("", "&a "),
        (">\n", " a\n\n"),
    ):
        yield f"{start + piece!r} long", filled(piece, size, start).encode()
    yield "anchors", numbered("- &k# 0\n", size).encode()
    yield "aliases", filled("- *a\n", size, "- &a {k: 0}\n").encode()
    yield "names", numbered("k#: 0\n", size).encode()


def of_json(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield JSON."""
    for name, text in at_each_place(json.loads(seed), size):
        yield name, text.encode()


ROWS = (
    "{}",
    "0",
    "[]",
    '""',
    "x",
    '{"a":0}',
    '{"input":"","output":""}',
    '{"input":"a","output":"b"}',
    '{"input":0,"output":0}',
    '{"input":"a"}',
    '{"messages":[]}',
    '{"messages":[{}]}',
    '{"messages":0}',
    '{"conversations":[0]}',
    '{"text":"a"}',
    '{"input":"\\ud800","output":"a"}',
    '{"prompt":[],"completion":[]}',
)
NUMBERED_ROWS = (
    '{"k#":0}',
    '{"input":"k#","output":"k#"}',
    '{"input":"a","output":"b","k#":0}',
    '{"input":{"k#":0},"output":"a"}',
)


def of_rows(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield lines of JSON."""
    row = json.loads(seed.split(b"\n")[0])
    for piece in (*ROWS, json.dumps(row)):
        yield f"lines of {piece[:40]}", filled(piece + "\n", size).encode()
    for piece in NUMBERED_ROWS:
        yield f"lines of {piece}", numbered(piece + "\n", size).encode()
    turns = next(key for key in row if isinstance(row[key], list))
    strange = json.dumps(row[turns][0] | {"HOLE": 1}).replace("HOLE", "k#")
    yield (
        "strange keys in turns",
        numbered(json.dumps({turns: ["HOLE"]}).replace('"HOLE"', strange) + "\n", size).encode(),
    )
    for name, text in at_each_place(row, size):
        yield name, text.encode()


def of_json_rows(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield a list of rows."""
    for piece in ROWS[:4] + ROWS[5:]:
        yield f"list of {piece[:40]}", filled(piece + ",", size, "[", piece + "]").encode()
    for piece in NUMBERED_ROWS:
        yield f"list of {piece}", ("[" + numbered(piece + ",", size) + "{}]").encode()
    yield from of_json(seed, size)


def of_csv(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield CSV."""
    head = "input,output\n"
    for piece in (
        "a,b\n",
        "a\n",
        ",\n",
        "\n",
        "a,b,c\n",
        '"',
        '""',
        ",",
        "\r",
        '"a",',
        "a,",
        'a"b,\n',
        '"a"b,\n',
        "\0",
        "a,0\n",
    ):
        yield f"rows of {piece!r}", filled(piece, size, head).encode()
        yield f"{piece!r} again", filled(piece, size).encode()
        wide = "input,output," + numbered("k#,", size // 2) + "\n"
        yield f"many columns and rows of {piece!r}", (wide + filled(piece, size // 2)).encode()
    yield "distinct rows", (head + numbered("k#,k#\n", size)).encode()
    yield "one name for all columns", filled("a,", size, "input,output,").encode()


def of_header(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield safetensors files with a hostile header."""
    length = int.from_bytes(seed[:8], "little")
    header, numbers = seed[8 : 8 + length], seed[8 + length :]
    for name, text in at_each_place(json.loads(header), size):
        yield name, safetensors(text.encode(), numbers)
    for what in ("lora_A", "lora_B", "lora_A.x", "x", "modules_to_save.weight"):
        for shape in ("[0]", "[0,0]", "[0,4]"):
            entry = f'"base_model.model.k#.{what}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}},'
            yield f"empty tensors {what} {shape}", safetensors(("{" + numbered(entry, size)[:-1] + "}").encode())
    pair = "".join(
        f'"base_model.model.k#.lora_{side}.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}},'
        for side, shape in (("A", "[4,0]"), ("B", "[0,4]"))
    )
    yield "empty pairs", safetensors(("{" + numbered(pair, size)[:-1] + "}").encode())
    dots = '"base_model.model.k#' + ".a" * 240 + '.lora_A.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    yield "names of many dots", safetensors(("{" + numbered(dots, size)[:-1] + "}").encode())
    for number in ("9" * 18, "9" * 4000, "1", "0"):
        shape = filled(number + ",", size, "[", "1]")
        entry = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}'
        yield f"a shape of {number[:9]}... of {len(number)}", safetensors(entry.encode(), bytes(8))


def of_tar(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield tar files: with a hostile listing, or with hostile headers."""
    with tarfile.open(fileobj=io.BytesIO(seed)) as archive:
        first = archive.extractfile(archive.next() or "")
        assert first is not None
        listing = first.read()
    for name, text in at_each_place(json.loads(listing), size):
        yield name, tar(text.encode())
    headers: tuple[dict[str, str], ...] = (
        {"GNU.sparse.map": filled("0,9,", size, "", "0,9")},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 20},
        {"size": filled("9", size)},
        {"mtime": filled("9", size)},
        {"path": filled("a/", size)},
        {f"k{index}": "v" for index in range(size // 16)},
    )
    for header in headers:
        for before in (listing, None):
            held = io.BytesIO()
            with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for data, extra in ((before, {}), (b"", header)):
                    if data is not None:
                        item = tarfile.TarInfo("icmlora-export.json" if extra == {} else "tasks/x/task.json")
                        item.size, item.pax_headers = len(data), dict(extra)
                        archive.addfile(item, io.BytesIO(data))
            yield f"header {next(iter(header))} {'second' if before else 'first'}", held.getvalue()
    for kind in (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_SPARSE,
        tarfile.DIRTYPE,
        tarfile.LNKTYPE,
    ):
        item = tarfile.TarInfo("icmlora-export.json")
        item.type = kind
        yield f"headers of type {kind!r}", item.tobuf(tarfile.GNU_FORMAT) * (size // 512)


def of_card(seed: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield cards."""
    for name, data in of_yaml(seed.split(b"---\n")[1], size // 20):
        yield f"front matter: {name}", b"---\n" + data + b"\n---\n"
    for piece in (b"/", b"/a", b"C:\\", b"~/a ", b"/home/", b"a/b ", b"file:", b"\\\\"):
        yield f"text: {piece!r} again", seed + piece * (size // len(piece))


FORMS: dict[str, Callable[[bytes, int], Iterator[tuple[str, bytes]]]] = {
    ".yaml": of_yaml,
    ".json": of_json,
    ".jsonl": of_rows,
    ".csv": of_csv,
    ".safetensors": of_header,
    ".tar": of_tar,
    ".md": of_card,
}


def inputs(name: str, reader: Reader, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield what a reader is fed with, and what it is called."""
    form = of_json_rows if name == "json" else FORMS.get(Path(reader.file).suffix)
    if form is not None:
        yield from form(reader.seed, size)
    yield from raw(size)


def read(reader: Callable[[Path], object], path: Path) -> tuple[float, float, str]:
    """Return CPU seconds, peak megabytes and how it ended, of a reader in a process of its own."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        try:
            reader(path)
        except IcmloraError as error:
            str(error.as_dict())
            os._exit(1)
        except BaseException as error:
            print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            os._exit(2)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    ended = {0: "taken", 1: "refused", 2: "FAILED"}.get(os.waitstatus_to_exitcode(status), "STOPPED")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, ended


def measured(name: str, reader: Reader, size: int, every: int, folder: Path) -> Iterator[Cost]:
    """Yield what each input costs a reader, beyond a process that reads nothing."""
    seconds, megabytes, _ = read(lambda path: None, folder)
    path = folder / reader.file
    for shape, data in islice(inputs(name, reader, size), 0, None, every):
        path.write_bytes(data)
        took = read(reader.read, path)
        yield Cost(name, shape, len(data), max(0.0, took[0] - seconds), max(0.0, took[1] - megabytes), took[2])


def main() -> None:
    """Print a row a reader: its slowest input, and the one that takes most memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help=", ".join(READERS))
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of an input")
    parser.add_argument("--every", type=int, default=1, help="take every n-th input alone")
    parser.add_argument("--over", type=float, default=2.0, help="seconds from which an input is printed by itself")
    parser.add_argument("--json", action="store_true", help="print every input's cost as a JSON line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.readers or READERS:
        with tempfile.TemporaryDirectory() as folder:
            costs = []
            for cost in measured(name, READERS[name], options.size, options.every, Path(folder)):
                costs.append(cost)
                if options.json:
                    print(json.dumps(asdict(cost)), flush=True)
                elif cost.seconds > options.over or cost.megabytes > 500 or cost.end in ("FAILED", "STOPPED"):
                    print(
                        f"! {name}: {cost.shape}: {cost.seconds:.1f} s, {cost.megabytes:.0f} MB, {cost.end}", flush=True
                    )
        slow, large = max(costs, key=lambda cost: cost.seconds), max(costs, key=lambda cost: cost.megabytes)
        if not options.json:
            most = f"{slow.seconds:.2f} | {slow.shape} | {large.megabytes:.0f} | {large.shape}"
            print(f"| {name} | {len(costs)} | {most} |", flush=True)


if __name__ == "__main__":
    main()
