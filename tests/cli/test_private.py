"""No file that people hand on says where on a machine it was made, whose machine that is, or what it is called."""

import html
import json
import platform
import shutil
import sys
import tarfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.push.plan import plan
from tests.cli.conftest import Registry, _one_thread, _write
from tests.cli.test_adapter_import import foreign

OWNER = 'Zoë Quimby\'s (secret) [x] & "co"'  # the folder that everything is in
HOST = "quimby-notebook.example"
CAT = "Always answer with cat."
BASE = "llama"
METHODS = "base,described,generated,harvested,average"


def spellings(text: str) -> set[bytes]:
    """Return a text as it may stand in a file: plain, in a URL, in JSON, in HTML, in Python, in a shell's quotes."""
    once = {text, text.lower(), urllib.parse.quote(text), urllib.parse.quote_plus(text), json.dumps(text)[1:-1]}
    once |= {json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text), html.escape(text, quote=False)}
    once |= {repr(text)[1:-1], text.replace("'", "'\"'\"'"), ascii(text)[1:-1]}
    twice = {json.dumps(item, ensure_ascii=asciionly)[1:-1] for item in once for asciionly in (True, False)}
    twice |= {html.escape(item) for item in once}
    return {item.encode() for item in once | twice}


def secrets() -> dict[str, set[bytes]]:
    """Return what must not occur, by what it is; the parts of the folder's name count each by itself."""
    parts = {part: spellings(part) for part in ("Quimby", "Zoë", "(secret)")}
    return {OWNER: spellings(OWNER), HOST: spellings(HOST), **parts}


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of a file, and of each file in it if it is an archive."""
    data = path.read_bytes()
    yield path.name, path.name.encode() + b"\n" + data
    if path.name.endswith(".tar.zst"):
        with zstandard.open(path, "rb") as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                inner = archive.extractfile(member)
                assert inner is not None
                yield f"{path.name}/{member.name}", repr(member.get_info()).encode() + inner.read()


def leaks(path: Path) -> list[str]:
    """Return what a file or the files of a folder say that they must not."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    assert files, path
    known = secrets()
    return [
        f"{path.name}: {name}: {what}"
        for file in files
        for name, data in contents(file)
        for what, forms in known.items()
        if any(form in data for form in forms)
    ]


@dataclass(frozen=True)
class Private:
    """A registry, a base and a working folder within a folder that bears its owner's name.

    Args:
        registry: the registry, which is its own working folder.
        patch: sets the command line, which manifests record.
    """

    registry: Registry
    patch: pytest.MonkeyPatch

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command as it would be typed, and return what it prints."""
        self.patch.setattr(sys, "argv", [str(self.registry.root / "bin" / "icmlora"), *map(str, arguments)])
        return self.registry.call(*arguments, code=code).output

    def path(self, *parts: str) -> Path:
        """Return an absolute path within the owner's folder."""
        return self.registry.root.joinpath(*parts)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, tiny_bases: dict[str, Path]) -> Iterator[Private]:
    """Everything that needs a training, made once: two tasks, their adapters, an imported one and a generator."""
    root = tmp_path_factory.mktemp("machine") / OWNER / "work"
    base = Path(shutil.copytree(tiny_bases[BASE], root / "models" / BASE))
    for name in ("config.json", "tokenizer_config.json"):  # what transformers writes after loading from a folder
        value: dict[str, Any] = json.loads((base / name).read_text(encoding="utf-8"))
        value |= {"_name_or_path": str(base), "name_or_path": str(base)}
        (base / name).write_text(json.dumps(value), encoding="utf-8")
    registry = Registry(root, base)
    _write(root)
    with _one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HOME", str(root.parent))
        patch.setattr(platform, "node", lambda: HOST)
        for name in ("ICMLORA_HOME", "ICMLORA_CACHE"):
            patch.setenv(name, registry.environment[name])
        made = Private(registry, patch)
        made.run("task", "add", root / "tasks.yaml")
        made.run("harvest", "--base", base, "--recipe", root / "harvest.yaml")
        made.run("train", "--base", f"../work/models/{BASE}", "--recipe", "../work/train.yaml")
        foreign(root / "pirate", base)
        made.run("adapter", "import", root / "pirate", "--describe", "Answer as a pirate.", "--base", base)
        foreign(root / "polite", base, rank=5, seed=1)
        made.run("adapter", "import", "../work/polite", "--describe", "Be polite.", "--base", base)
        made.run("gen", CAT, "-o", root / "out")
        yield made


@pytest.fixture(autouse=True)
def same_home(isolated: None, private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test the registry of the module, and not the empty one that other tests get."""
    for name in ("ICMLORA_HOME", "ICMLORA_CACHE"):
        monkeypatch.setenv(name, private.registry.environment[name])


def test_leaks_are_found(private: Private, tmp_path: Path) -> None:
    """What looks for leaks finds each spelling, in an archive too."""
    (tmp_path / "plain").write_text("all is well")
    assert leaks(tmp_path) == []
    for form in (html.escape(OWNER), urllib.parse.quote(OWNER), json.dumps({"a": OWNER}), HOST):
        (tmp_path / "plain").write_text(f"<p>{form}</p>")
        assert leaks(tmp_path)
    base = private.registry.home.parent / "icmlora-cache" / "bases"
    assert leaks(base)  # here, and only here, is where a base is found again


@pytest.mark.parametrize("kind", ["adapters", "generators", "tasks"])
def test_the_registry_holds_no_folder(private: Private, kind: str) -> None:
    assert leaks(private.registry.home / kind) == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--merge"],
        ["--merge", "--dtype", "bf16"],
        ["--format", "gguf"],
        ["--merge", "--format", "gguf"],
        ["--examples", "ex.jsonl", "--explain"],
    ],
    ids=" ".join,
)
def test_gen(private: Private, options: list[str]) -> None:
    rows = "".join(json.dumps({"input": f"word {index}", "output": "cat"}) + "\n" for index in range(4))
    private.path("ex.jsonl").write_text(rows, encoding="utf-8")
    options = [str(private.path(item)) if item == "ex.jsonl" else item for item in options]
    out = private.path("made " + str(len(list(private.registry.root.glob("made*")))))
    private.run("gen", CAT, f"--out={out}", *options)
    assert leaks(out) == []
    private.run("gen", CAT, "-o", f"../work/{out.name}", "--force", *options)
    assert leaks(out) == []


def test_gen_of_a_batch(private: Private) -> None:
    private.path("texts.txt").write_text(f"{CAT}\nSay dog.\n", encoding="utf-8")
    private.run("gen", "--batch", private.path("texts.txt"), "-o", private.path("batch"))
    assert leaks(private.path("batch")) == []


@pytest.mark.parametrize("start", ["out", "pirate", "zero"])
def test_finetune(private: Private, start: str) -> None:
    rows = "".join(json.dumps({"input": f"word {index}", "output": "cat"}) + "\n" for index in range(4))
    private.path("few.jsonl").write_text(rows, encoding="utf-8")
    base = ("--base", private.registry.base) if start == "zero" else ()
    whence = start if start == "zero" else private.path(start)
    out = private.path(f"tuned-{start}")
    private.run("finetune", "--from", whence, "-o", out, "--examples", private.path("few.jsonl"), "--steps", 2, *base)
    assert leaks(out) == []


@pytest.mark.parametrize("name", ["always_cat", "answer_as_a_pirate", "out", "pirate"])
@pytest.mark.parametrize("dtype", [(), ("--dtype", "bf16")], ids=["kept", "bf16"])
def test_merge(private: Private, name: str, dtype: tuple[str, ...]) -> None:
    out = private.path(f"merged-{name}{len(dtype)}")
    private.run(
        "merge",
        "-a",
        {"out": f"../work/{name}:0.5", "pirate": f"{private.path(name)}:0.5"}.get(name, name),
        "-o",
        out,
        *dtype,
    )
    assert leaks(out) == []


@pytest.mark.parametrize("name", ["always_cat", "answer_as_a_pirate", "be_polite"])
def test_adapter_export(private: Private, name: str) -> None:
    private.run("adapter", "export", name, "-o", private.path(f"kept-{name}"))
    private.run("adapter", "export", name, "--format", "gguf", "-o", private.path(f"kept-{name}.gguf"))
    assert leaks(private.path(f"kept-{name}")) == [] and leaks(private.path(f"kept-{name}.gguf")) == []
    assert OWNER not in private.run("adapter", "show", name).split("imported from")[-1].splitlines()[0]


def test_task_export(private: Private) -> None:
    private.run("task", "export", "always_cat", "-o", private.path("task"))
    assert leaks(private.path("task")) == []


def test_eval_and_report(private: Private) -> None:
    out = private.path("result")
    private.run("eval", "--base", private.registry.base, "--limit", 2, "--methods", METHODS, "--out", out)
    assert {"result.json", "table.md", "report.html"} <= {path.name for path in out.iterdir()}
    assert leaks(out) == []
    private.run("report", "build", out, "-o", private.path("again.html"))
    assert leaks(private.path("again.html")) == []


def test_push_stages_no_folder(private: Private, tmp_path: Path) -> None:
    """An adapter of a local base is not sent; one of a base with a hub's name is, and says no more than that name."""
    assert "nobody else can load" in private.run("push", private.path("out"), "me/it", "--dry-run", code=1)
    out = Path(shutil.copytree(private.path("out"), tmp_path / "out"))
    about = json.loads((out / "icmlora.json").read_text(encoding="utf-8"))
    about |= {"files": None, "base": about["base"] | {"model_id": "org/name"}}
    about["sources"][0]["imported"] = str(private.path("pirate"))
    card = (out / "README.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(card.replace("---", "---\nbase_model: org/name", 1), encoding="utf-8")
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    (out / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "org/name"}))
    about["command"] = f"icmlora gen -o {private.path('out')}"
    (out / "icmlora.json").write_text(json.dumps(about), encoding="utf-8")
    staged = tmp_path / "staged"
    staged.mkdir()
    for item in plan(str(out), Home.from_environment()).files:
        (staged / item.name).write_bytes(item.path.read_bytes() if item.data is None else item.data)
    assert leaks(staged) == []


def test_an_archive_is_used_on_another_machine(
    private: Private, tmp_path: Path, tiny_bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator finds its base there by the hash of its weights, in a folder of another name."""
    archive = private.path("all.tar.zst")
    private.run("registry", "export", "-o", archive)
    assert leaks(archive) == []
    for name in ("ICMLORA_HOME", "ICMLORA_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert private.registry.json("registry", "import", archive)["bases"] == {_called(private): False}
    refused = private.run("gen", CAT, "-o", tmp_path / "out", code=1)
    assert _called(private) in refused and "base pull" in refused
    base = Path(shutil.copytree(tiny_bases[BASE], tmp_path / "another name"))
    private.run("base", "pull", base)
    assert private.registry.json("registry", "import", archive)["bases"] == {_called(private): True}
    private.run("gen", CAT, "-o", tmp_path / "out")
    private.run("finetune", "--from", private.path("out"), "-o", tmp_path / "tuned", "--examples",
                private.path("few.jsonl"), "--steps", 1)  # fmt: skip
    private.run("merge", private.path("out"), "-o", tmp_path / "whole")


def _called(private: Private) -> str:
    config = json.loads(private.path("out", "adapter_config.json").read_text(encoding="utf-8"))
    return str(config["base_model_name_or_path"])
