"""Text domains: passages of real text that are on the machine or come from Debian, without a model hub.

The texts are Python's own files, torch's headers, and Debian packages (see ``debian``). Passages are left out that are
binary, mostly not letters, repetitive, or boilerplate of an earlier passage.
"""

import hashlib
import importlib.util
import platform
import re
import sysconfig
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from icmlora_cli.errors import IcmloraError
from icmlora_cli.tasks.debian import package_texts, package_version
from icmlora_cli.tasks.passages import cut

SHORTEST = 0.4  # a passage shorter than this share of the requested length is left out
LETTERS = 0.5  # the least share of letters among all but white space; tables and rules have less
COMPRESSED = 0.3  # a passage that zlib shrinks below this share of its bytes is repetitive; prose is at about 0.55
KNOWN_LINES = 0.4  # a passage with more than this share of its lines in earlier passages is boilerplate
LONG_LINE = 24  # characters; shorter lines do not count, since they recur by chance

_SKIPPED = {"test", "site-packages", "dist-packages", "pydoc_data", "encodings"}  # folders of the standard library
_HEADERS = ("c10", "ATen/core", "ATen/native", "torch/csrc/api")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")


@dataclass(frozen=True)
class Domain:
    """A kind of text, and where to find it.

    Args:
        name: the name that a task file uses for it.
        about: a description in a few words.
        licence: the licence of the text.
        documents: returns the texts, in an order that depends only on the files.
        source: returns a line that says where the texts come from, with the version.
    """

    name: str
    about: str
    licence: str
    documents: Callable[[], Iterable[str]]
    source: Callable[[], str]


def domain_names() -> tuple[str, ...]:
    """Return the names of all domains."""
    return tuple(_DOMAINS)


def domain(name: str) -> Domain:
    """Return a domain by its name.

    Raises:
        KeyError: If there is no domain of that name.
    """
    return _DOMAINS[name]


def domain_passages(name: str, count: int, size: int) -> tuple[str, ...]:
    """Return passages of a domain, which are the same as long as the files are the same.

    Args:
        name: the domain's name.
        count: the number of passages at most; if there are more, those with the smallest SHA-256 are taken.
        size: the approximate number of characters of a passage.

    Raises:
        IcmloraError: If the domain's files are not on this machine and cannot be fetched, or hold no such passage.
    """
    known: set[str] = set()
    passages: dict[str, None] = {}
    for document in domain(name).documents():
        for passage in cut(document, size):
            if len(passage) >= SHORTEST * size and _is_text(passage) and not _is_known(passage, known):
                passages[passage] = None
    if not passages:
        raise IcmloraError(f"domain {name!r} has no passage of about {size} characters", where=domain(name).source())
    return tuple(sorted(passages, key=lambda passage: hashlib.sha256(passage.encode()).digest())[:count])


def _is_text(passage: str) -> bool:
    if _CONTROL.search(passage):
        return False
    letters = sum(map(str.isalpha, passage))
    if letters < LETTERS * len("".join(passage.split())):
        return False
    data = passage.encode()
    return len(zlib.compress(data)) >= COMPRESSED * len(data)


def _is_known(passage: str, known: set[str]) -> bool:
    lines = [line.strip() for line in passage.splitlines() if len(line.strip()) >= LONG_LINE]
    repeated = sum(line in known for line in lines)
    known.update(lines)
    return repeated > KNOWN_LINES * len(lines)


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, OSError):
            continue  # a file that is unreadable or of another encoding is left out


def _python_files() -> Iterator[str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    packages = [path for path in root.glob("*/*.py") if path.parent.name not in _SKIPPED]
    return _texts(sorted([*root.glob("*.py"), *packages]))


def _python_manual() -> list[str]:
    from pydoc_data.topics import topics

    return [str(topics[name]) for name in sorted(topics)]


def _cpp_headers() -> Iterator[str]:
    spec = importlib.util.find_spec("torch")  # finds the package without importing it
    root = Path(spec.origin).parent / "include" if spec is not None and spec.origin else None
    paths = [] if root is None else sorted(path for part in _HEADERS for path in (root / part).rglob("*.h"))
    if not paths:
        raise IcmloraError("torch's C++ headers are not here", where=str(root or "torch"), hint="pip install torch")
    return _texts(paths)


def _torch_source() -> str:
    from importlib.metadata import version

    return f"C++ headers of torch {version('torch')}"


def _of_python(name: str, about: str, documents: Callable[[], Iterable[str]], what: str) -> Domain:
    return Domain(name, about, "PSF-2.0", documents, lambda: f"{what} of Python {platform.python_version()}")


def _of_debian(name: str, about: str, licence: str, package: str, pattern: str) -> Domain:
    def source() -> str:
        return f"Debian package {package} {package_version(package)}: {pattern}"

    return Domain(name, about, licence, partial(package_texts, package, pattern), source)


_DOC = "usr/share/doc"
_ALL = (
    _of_python("python-source", "Python source code", _python_files, "the standard library"),
    _of_python("python-manual", "Python's reference manual", _python_manual, "pydoc_data/topics.py"),
    Domain("cpp-headers", "C++ headers", "BSD-3-Clause", _cpp_headers, _torch_source),
    _of_debian(
        "jargon-file",
        "a dictionary of hackers' slang",
        "public domain",
        "jargon-text",
        f"{_DOC}/jargon-text/jargon.txt.gz",
    ),
    _of_debian(
        "devils-dictionary",
        "satirical definitions of 1911",
        "public domain",
        "dict-devil",
        "usr/share/dictd/devil.dict.dz",
    ),
    _of_debian(
        "man-pages",
        "source of manual pages (roff)",
        "GPL-2.0-or-later AND Linux-man-pages-copyleft AND others",
        "manpages",
        "usr/share/man/man?/*.gz",
    ),
    _of_debian(
        "german-manual",
        "the Debian developers' handbook in German",
        "GPL-2.0-only",
        "developers-reference-de",
        "usr/share/developers-reference/de/*.txt.gz",
    ),
    _of_debian(
        "french-faq",
        "questions about Debian and answers in French",
        "Debian FAQ (copies, modified too, under the same terms)",
        "debian-faq-fr",
        f"{_DOC}/debian/FAQ/*.txt.gz",
    ),
)
_DOMAINS = {item.name: item for item in _ALL}
