"""Change inputs of readers at random for a while: ``python -m tests.fuzz.mutate --seconds 60 [READER ...]``.

An exception that is no IcmloraError, or an input of at most 64 KiB that takes more than 2 s, ends it with a traceback;
the input is then in the folder that it names.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from icmlora_cli.errors import IcmloraError
from tests.fuzz.readers import READERS, Reader

HOSTILE = (
    b"\0", b"\xff", b"\xed\xa0\x80", b'"\\ud800"', b"9" * 5000, b"0x" + b"f" * 5000, b"1e999", b".inf", b"NaN", b"-1",
    b"null", b"true", b"[" * 2000, b'{"a":' * 2000, b"- " * 200, b"&a [*a]", b"<<: *x", b"\r", b"\t", b"\xe2\x80\xa8",
    b"2001-99-99", b"2 ** 64", b"18446744073709551616", b"../../x", b"!!python/object:os.system", b"{}", b"[]", b"=",
    b"1:2:3", b'"',
)  # fmt: skip
LONGEST = 1 << 16
SLOW = 2.0


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Return an input with a few changes."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.randint(0, len(data)) for _ in range(2))
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = rng.choice(HOSTILE)
        elif kind == 2:
            del data[at : min(end, at + 20)]
        elif kind == 3:
            data[at:at] = data[at:end] * rng.randint(1, 3)
        else:
            data[at : min(end, at + 8)] = rng.choice(HOSTILE)
    return bytes(data[:LONGEST])


def check(reader: Reader, data: bytes, folder: Path) -> bool:
    """Read an input, and tell whether the reader took it; any exception but an IcmloraError passes through."""
    path = folder / reader.file
    path.write_bytes(data)
    try:
        reader.read(path)
    except IcmloraError as error:
        str(error.as_dict()).encode("utf-8", "backslashreplace")
        return False
    return True


def main() -> int:
    """Fuzz the readers that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=list(READERS), help=", ".join(READERS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.readers:
        reader, rng = READERS[name], random.Random(f"{options.seed} {name}")
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        kept, count, end = [reader.seed], 0, time.monotonic() + options.seconds
        while time.monotonic() < end:
            data, started = mutated(rng.choice(kept), rng), time.monotonic()
            try:
                taken = check(reader, data, folder)
                if time.monotonic() - started > SLOW:
                    raise TimeoutError(f"{len(data)} bytes took {time.monotonic() - started:.1f} s")
            except BaseException:
                print(f"{name}: the input is in {folder / reader.file}", file=sys.stderr)
                raise
            count += 1
            if taken and len(kept) < 500:
                kept.append(data)
        print(f"{name}: {count:,} inputs, {len(kept) - 1:,} of them taken", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
