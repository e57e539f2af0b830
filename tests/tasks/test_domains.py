"""Domains of plain text: what is dropped, that they repeat, and what is said where they cannot be had."""

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import IcmloraError
from icmlora_cli.registry.tasks import draft
from icmlora_cli.tasks import debian, domains
from icmlora_cli.tasks.domains import Domain, domain, domain_names, domain_passages
from icmlora_cli.tasks.sources import load_examples
from icmlora_cli.tasks.task_file import TaskSpec

PROSE = (
    "The quick brown fox number {n} jumps over a lazy dog, while {n} sceptical judges quietly vex the pompous wizards. "
    "Nobody had ever asked for exactly {n} boxes of liquor jugs, yet here they stood, waiting in the evening light."
)


def prose(count: int, *, start: int = 0) -> str:
    words = [hashlib.sha256(str(number).encode()).hexdigest()[:7] for number in range(start, start + count * 4)]
    return "\n\n".join(f"{words[4 * n]} {PROSE.format(n=words[4 * n + 1])} {words[4 * n + 2]}" for n in range(count))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents of a domain named ``made``."""
    documents: list[str] = []
    item = Domain("made", "made up", "CC0-1.0", lambda: documents, lambda: "this test")
    monkeypatch.setitem(domains._DOMAINS, "made", item)
    return documents


def test_binary_tables_repetitions_and_boilerplate_are_dropped(made: list[str]) -> None:
    good, licence = prose(12), prose(3, start=1000)
    made += [good, "the same words " * 80, "1 | 2 | 3\n" * 70, prose(1, start=2000) + "\x00", licence, licence + "\n"]
    found = domain_passages("made", 100, 500)
    assert set(found) == {*domains.cut(good, 500), *domains.cut(licence, 500)}


def test_passages_repeat_and_fewer_are_the_first_of_more(made: list[str]) -> None:
    made.append(prose(40))
    every = domain_passages("made", 100, 300)
    assert len(every) > 10
    assert domain_passages("made", 100, 300) == every
    assert domain_passages("made", 5, 300) == every[:5]


def test_a_domain_without_text_is_an_error(made: list[str]) -> None:
    with pytest.raises(IcmloraError, match="has no passage of about 500 characters"):
        domain_passages("made", 10, 500)


@pytest.mark.parametrize("name", ["python-manual", "python-source", "cpp-headers"])
def test_what_every_machine_has(name: str) -> None:
    found = domain_passages(name, 150, 1000)
    assert len(found) == 150
    lengths = sorted(map(len, found))
    assert lengths[0] >= 400 and 700 <= lengths[75] <= 1700
    assert domain(name).source().split(" of ")[-1].split()[0] in ("Python", "torch")


def test_a_task_records_licence_and_source(tmp_path: Path) -> None:
    values = {"name": "t", "description": "D", "template": "text", "examples": {"domain": "python-manual", "count": 60}}
    spec = TaskSpec.model_validate(values)
    task = draft(spec, load_examples(spec, tmp_path, tmp_path / "x.yaml").examples).task
    assert sum(task.counts.values()) == 60 and task.counts["test"] > 0
    assert task.licence == "PSF-2.0"
    assert task.source is not None and task.source.startswith("pydoc_data/topics.py of Python 3.")
    own = TaskSpec.model_validate(values | {"licence": "X", "source": "me"})
    assert (draft(own, load_examples(own, tmp_path, tmp_path).examples).task.licence, own.source) == ("X", "me")


def deb(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """Build a Debian package with dpkg-deb."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {package}\nVersion: 1.2\nArchitecture: all\nMaintainer: me <me@example.org>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(control)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    target = folder / f"{package}_1.2_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, target], check=True, capture_output=True)
    return target


def test_texts_of_a_debian_package_in_the_cache(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    if debian.shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    files = {
        "usr/share/b.txt.gz": gzip.compress("zwei: ü".encode()),
        "usr/share/a.txt": b"one",
        "usr/share/latin.txt": b"\xfc",
        "usr/other.txt": b"other",
    }
    built = deb(tmp_path, "tiny-text", files)
    (home.cache / "domains").mkdir(parents=True)
    built.rename(home.cache / "domains" / built.name)
    assert list(debian.package_texts("tiny-text", "usr/share/*.txt*")) == ["one", "zwei: ü"]
    assert debian.package_version("tiny-text") == "1.2"
    (home.cache / "domains" / built.name).write_bytes(b"no archive")
    with pytest.raises(IcmloraError, match=r"tiny-text_1\.2_all\.deb is not a Debian package"):
        list(debian.package_texts("tiny-text", "*"))


def test_without_apt_the_error_says_how_to_get_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(IcmloraError) as caught:
        domain_passages("jargon-file", 10, 1000)
    assert "there is no apt-get here" in caught.value.message
    assert caught.value.hint is not None and str(home.cache / "domains") in caught.value.hint


def test_an_apt_that_fails_is_quoted(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package jargon-text' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent))
    with pytest.raises(IcmloraError, match="E: Unable to locate package jargon-text"):
        domain_passages("jargon-file", 10, 1000)
    assert list((home.cache / "domains").iterdir()) == []


@pytest.mark.network
@pytest.mark.parametrize("name", domain_names())
def test_every_domain(name: str) -> None:
    if domain(name).source.__qualname__.startswith("_of_debian") and debian.shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    found = domain_passages(name, 150, 1000)
    assert len(found) == 150
    assert domain(name).licence and domain(name).source()
