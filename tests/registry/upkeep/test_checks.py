"""Every file of a task, an adapter and a generator, damaged in every way, is found; and nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.disk import files
from icmlora_cli.registry.upkeep import checks
from tests.small_registry import BASE, KEY, cut, flip

if TYPE_CHECKING:
    from tests.small_registry import SmallRegistry

CHECKPOINTS = ("checkpoint-00010", "checkpoint-00020")
FILES = {
    "task": ("task.json", "examples.jsonl"),
    "adapter": (
        "manifest.json",
        *(f"{c}/{f}" for c in CHECKPOINTS for f in ("adapter_model.safetensors", "adapter_config.json")),
    ),
    "generator": ("generator.json", "generator.safetensors", "README.md"),
}
CASES = [(thing, name) for thing, names in FILES.items() for name in names]
Check = Callable[..., list[checks.Flaw]]


def made(small: "SmallRegistry", thing: str, *, with_checksums: bool = True) -> tuple[Path, Check]:
    """Make a thing; return its folder, and what checks it."""
    if thing == "task":
        folder = small.task("say_cat").folder
        return folder, lambda **how: checks.task_flaws(folder, "say_cat", **how)
    if thing == "adapter":
        folder = small.adapter("say_cat", with_checksums=with_checksums)
        return folder, lambda **how: checks.adapter_flaws(folder, BASE, "say_cat", KEY, **how)
    folder = small.generator("mine")
    return folder, lambda **how: checks.generator_flaws(folder, **how)


@pytest.mark.parametrize("thing", FILES)
def test_what_is_whole_has_no_flaw(small: "SmallRegistry", thing: str) -> None:
    folder, check = made(small, thing)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(
        FILES[thing]
    )
    assert check() == [] and check(quick=True) == []


@pytest.mark.parametrize(("thing", "name"), CASES)
def test_damage_is_found(small: "SmallRegistry", thing: str, name: str) -> None:
    folder, check = made(small, thing)
    path = folder / name
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 40)):  # also in headers, and in the middle
        flip(path, at, at % 8)
        (flaw,) = check()
        assert flaw.path == path and flaw.kind in {"changed", "unreadable", "truncated"}
        path.write_bytes(data)
    for off in (1, len(data) // 2, len(data)):
        cut(path, off)
        (flaw,) = check()
        assert flaw.path == path and flaw.kind in {"truncated", "changed", "unreadable"}
        path.write_bytes(data)
    path.unlink()
    (flaw,) = check()
    assert (flaw.path, flaw.kind) == (path, "missing")
    path.write_bytes(data)
    assert check() == []


@pytest.mark.parametrize("thing", FILES)
def test_what_is_not_listed_is_found(small: "SmallRegistry", thing: str) -> None:
    folder, check = made(small, thing)
    (folder / "notes.txt").write_text("mine")
    (folder / "deep").mkdir()
    (folder / ".tmp-left").touch()  # told of elsewhere
    assert [(flaw.kind, flaw.path.name) for flaw in check()] == [("unlisted", "deep"), ("unlisted", "notes.txt")]


def test_a_stray_file_in_a_checkpoint_is_found(small: "SmallRegistry") -> None:
    folder, check = made(small, "adapter")
    (folder / CHECKPOINTS[0] / "optimizer.pt").write_bytes(b"x")
    (flaw,) = check()
    assert (flaw.kind, flaw.path.name) == ("unlisted", "optimizer.pt")


@pytest.mark.parametrize(
    ("thing", "name"),
    [("adapter", "checkpoint-00010/adapter_model.safetensors"), ("generator", "generator.safetensors")],
)
def test_quick_finds_what_sizes_tell(small: "SmallRegistry", thing: str, name: str) -> None:
    folder, check = made(small, thing)
    flip(folder / name)
    assert check(quick=True) == []
    cut(folder / name)
    assert [flaw.kind for flaw in check(quick=True)] == ["truncated"]


def test_adapters_of_the_first_version_have_no_seal_and_are_whole(small: "SmallRegistry") -> None:
    folder, check = made(small, "adapter", with_checksums=False)
    assert check() == []
    config = folder / CHECKPOINTS[0] / "adapter_config.json"
    config.write_bytes(config.read_bytes() + b"\n")
    assert [flaw.kind for flaw in check()] == ["changed"]


def test_examples_that_are_not_those_of_data_hash(small: "SmallRegistry") -> None:
    """A manifest can be right about the file, and wrong about what is in it."""
    folder, check = made(small, "task")
    path = folder / "examples.jsonl"
    path.write_text(path.read_text().replace("word 7", "word 99"))
    value = files.read_json(folder / "task.json") | {"examples_sha256": files.sha256_file(path)}
    value.pop("seal")
    files.write_json(folder / "task.json", value)
    assert [flaw.kind for flaw in check()] == ["changed"]


def test_a_manifest_that_names_a_folder_elsewhere_is_refused(small: "SmallRegistry") -> None:
    folder, check = made(small, "adapter", with_checksums=False)
    value = files.read_json(folder / "manifest.json")
    value["checkpoints"][0]["folder"] = "../../../../secret"  # type: ignore[index]
    files.write_json(folder / "manifest.json", value)
    assert [flaw.kind for flaw in check()] == ["unreadable"]
