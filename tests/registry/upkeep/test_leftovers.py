"""What killed and finished work left is found, and only that; gc frees it, and nothing that is needed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from icmlora_cli.disk import files, temporary
from icmlora_cli.registry.upkeep import garbage, leftovers, quarantine
from tests.small_registry import BASE, safetensors, tree

if TYPE_CHECKING:
    from tests.small_registry import SmallRegistry

DEAD = "0" * 8  # no machine's
LONG_AGO = 1_000_000_000


def left_by_another(path: Path, role: str = "new") -> Path:
    """Make a temporary folder as a process of the first version left it long ago."""
    name = f".tmp-{'0' * 32}-{'old-' if role == 'old' else ''}{path.name}"
    folder = path.with_name(name)
    folder.mkdir(parents=True)
    (folder / "half").write_text("x")
    return folder


def old_enough(monkeypatch: object) -> None:
    """Let what says nothing of its process count as left over."""
    monkeypatch.setattr(temporary, "UNSIGNED_SECONDS", -1.0)  # type: ignore[attr-defined]


def test_temporaries(small: "SmallRegistry", monkeypatch: object) -> None:
    small.fill()
    old_enough(monkeypatch)
    half = left_by_another(small.home.tasks / "say_cow")
    replaced = left_by_another(small.home.tasks / "say_cat", "old")
    only = left_by_another(small.home.generators / "gone", "old")
    mine = temporary.beside(small.home.vectors / "ab" / "x.safetensors")
    mine.parent.mkdir(parents=True)
    mine.touch()
    found = {item.path: item for item in leftovers.temporaries(small.home)}
    assert set(found) == {half, replaced, only, mine}
    assert [item.only_copy for item in found.values() if item.path == only] == [True]
    assert not found[half].only_copy and not found[replaced].only_copy
    assert found[mine].in_use and not found[half].in_use
    free = garbage.collect(small.home, ("temporary",))
    assert {item.path for item in free.free} == {half, replaced}
    assert {item.path for item in free.kept} == {only, mine}


def test_states(small: "SmallRegistry") -> None:
    small.fill()
    done = small.adapter("say_cat", key="done00000000") / "state.safetensors"
    files.write_bytes(done, safetensors(9, metadata={"step": "20", "identity": "done00000000"}))
    going = small.home.adapters / BASE / "say_dog" / "going0000000" / "state.safetensors"
    files.write_bytes(going, safetensors(9, metadata={"step": "5", "identity": "going"}))
    finished, resumable, replacing = (
        small.home.generators / f"{n}.training.safetensors" for n in ("default", "new", "old")
    )
    small.generator("old", key="another")
    for path in (finished, resumable, replacing):
        files.write_bytes(path, safetensors(9, metadata={"step": "7", "identity": "k" * 16}))
    multi = small.home.root / "baselines" / BASE / "multi-task-abc"
    files.write_bytes(multi / "state.safetensors", safetensors(9, metadata={"step": "3"}))
    files.write_json(multi / "adapter_config.json", {"peft_type": "LORA"})
    found = {item.path: item for item in leftovers.states(small.home)}
    assert {path for path, item in found.items() if item.finished} == {done, finished, multi / "state.safetensors"}
    assert (found[going].steps, found[resumable].name) == (5, "new")
    free = garbage.collect(small.home, ("states",))
    assert {item.path for item in free.kept} == {going, resumable, replacing}


def test_a_damaged_state_is_not_readable(small: "SmallRegistry") -> None:
    path = small.home.generators / "x.training.safetensors"
    files.write_bytes(path, safetensors(9, metadata={"step": "7"})[:-2])
    (state,) = leftovers.states(small.home)
    assert not state.readable and not state.finished


def test_freeing_leaves_the_things_as_they_are(small: "SmallRegistry", monkeypatch: object) -> None:
    small.fill()
    old_enough(monkeypatch)
    before = tree(small.home.root) | {f"cache/{key}": value for key, value in tree(small.home.cache).items()}
    left_by_another(small.home.tasks / "say_cow")
    broken = small.home.tasks / "broken"
    broken.mkdir()
    (broken / "task.json").write_text("{")
    quarantine.put(small.home, broken, "no JSON")
    files.write_bytes(small.home.vectors / "ab" / "x.safetensors", safetensors(100))
    files.write_bytes(small.home.vectors / "sets" / "y.safetensors", safetensors(100))
    found = garbage.collect(small.home)
    assert {item.what for item in found.free} == {"temporary", "quarantine", "vectors"} and found.kept == ()
    assert any("tasks/broken" in item.said and "no JSON" in item.said for item in found.free)
    assert sum(garbage.free(item) for item in found.free) == found.bytes > 800
    after = tree(small.home.root) | {f"cache/{key}": value for key, value in tree(small.home.cache).items()}
    assert after == before
    assert garbage.collect(small.home).free == ()
    assert all(garbage.free(item) == 0 for item in found.free if item.what != "vectors")  # gone already: no error


def test_quarantine_says_where_it_was(small: "SmallRegistry") -> None:
    folder = small.generator("mine")
    moved = quarantine.put(small.home, folder, "broken").thing
    note = files.read_json(moved.parent / quarantine.NOTE)
    assert note["was"] == "generators/mine" and note["why"] == "broken" and not folder.exists()
    os.replace(moved, folder)  # the way back
    assert (folder / "generator.json").is_file()
