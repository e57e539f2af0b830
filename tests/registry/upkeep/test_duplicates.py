"""Equal checkpoints are found by their manifests, compared byte for byte, and linked; nothing else changes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.disk import files
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.upkeep import duplicates, garbage
from icmlora_cli.workflows.registry import gc, verify
from tests.small_registry import BASE, cut, flip, lora, tree

if TYPE_CHECKING:
    from tests.small_registry import SmallRegistry

EQUAL, SIZE = lora((2, 2), seed=7), len(lora((2, 2), seed=7))
LAST = "checkpoint-00020/adapter_model.safetensors"


@pytest.fixture
def copies(small: "SmallRegistry") -> list[Path]:
    """The last checkpoints of three tasks, which are equal; their first ones are not."""
    small.base()
    for seed, word in enumerate(("ant", "bee", "cow")):
        small.task(f"say_{word}", word)
        small.adapter(f"say_{word}", weights=(lora((2, 2), seed=seed), EQUAL))
    return [small.home.adapters / BASE / f"say_{word}" / "0123456789ab" / LAST for word in ("ant", "bee", "cow")]


def inodes(paths: list[Path]) -> int:
    return len({path.stat().st_ino for path in paths})


def test_equal_checkpoints_are_linked_once(small: "SmallRegistry", copies: list[Path]) -> None:
    before = tree(small.home.root)
    planned = gc.plan(small.home, ["duplicates"])
    assert [item.path for item in planned.free] == copies[1:] and planned.kept == ()
    assert {item.copy.same_as for item in planned.free if item.copy} == {copies[0]}
    assert planned.bytes == 2 * SIZE and inodes(copies) == 3  # nothing is linked by the plan
    done = gc.run(small.home, planned)
    assert [item.path for item in done.freed] == copies[1:] and done.bytes == 2 * SIZE and done.kept == ()
    assert inodes(copies) == 1 and tree(small.home.root) == before
    assert verify.run(small.home).faults == ()
    again = gc.plan(small.home)
    assert again.free == () and again.bytes == 0 and gc.run(small.home, again).bytes == 0
    found = duplicates.find(AdapterStore(small.home).all())
    assert (found.files, found.bytes, found.linked_files, found.linked_bytes) == (0, 0, 2, 2 * SIZE)


def test_a_further_copy_joins_those_that_are_linked(small: "SmallRegistry", copies: list[Path]) -> None:
    gc.run(small.home, gc.plan(small.home))
    new = small.adapter("say_ant", key="000000000000", weights=(lora((4,)), EQUAL)) / LAST
    planned = gc.plan(small.home)
    assert [item.path for item in planned.free] == [new] and planned.bytes == SIZE
    gc.run(small.home, planned)
    assert inodes([*copies, new]) == 1


def test_a_copy_whose_manifest_lies_is_left_alone_and_named(small: "SmallRegistry", copies: list[Path]) -> None:
    flip(copies[1])
    damaged = copies[1].read_bytes()
    done = gc.run(small.home, gc.plan(small.home))
    assert [item.path for item in done.freed] == [copies[2]] and done.bytes == SIZE
    assert [item.path for item in done.kept] == [copies[1]] and "registry verify" in done.kept[0].said
    assert copies[1].read_bytes() == damaged and copies[0].samefile(copies[2])
    assert [fault.path for fault in verify.run(small.home).faults] == [copies[1]]


def test_nothing_becomes_a_link_of_a_damaged_first_copy(small: "SmallRegistry", copies: list[Path]) -> None:
    flip(copies[0])
    for freed in (SIZE, 0):
        done = gc.run(small.home, gc.plan(small.home))
        assert done.bytes == freed and [item.path for item in done.kept] == [copies[0]]
        assert copies[1].samefile(copies[2]) and copies[1].read_bytes() == EQUAL != copies[0].read_bytes()


def test_a_copy_of_another_size_is_no_copy(small: "SmallRegistry", copies: list[Path]) -> None:
    cut(copies[0])
    planned = gc.plan(small.home)
    assert [item.path for item in planned.free] == [copies[2]]
    assert [item.path for item in planned.kept] == [copies[0]] and "registry verify" in planned.kept[0].said


def test_what_is_missing_or_a_symbolic_link_is_passed_by(small: "SmallRegistry", copies: list[Path]) -> None:
    outside = small.home.root.parent / "mine"
    copies[0].rename(outside)
    copies[0].symlink_to(outside)
    copies[1].unlink()
    assert gc.plan(small.home).free == ()


def test_a_name_elsewhere_keeps_the_bytes(small: "SmallRegistry", copies: list[Path]) -> None:
    os.link(copies[1], small.home.root.parent / "backup")
    planned = gc.plan(small.home)
    assert [(item.path, item.bytes) for item in planned.free] == [(copies[1], 0), (copies[2], SIZE)]
    assert gc.run(small.home, planned).bytes == SIZE and inodes(copies) == 1


def test_where_no_link_can_be_made_both_are_kept(small: "SmallRegistry", copies: list[Path], tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    far = other / f"icmlora-{os.getpid()}-{copies[0].stat().st_ino}"
    far.write_bytes(EQUAL)
    try:
        linked = duplicates.Linker().link(duplicates.Copy(copies[0], far, files.sha256_file(far), SIZE))
    finally:
        far.unlink()
    assert not linked.done and linked.bytes == 0 and "no hard link can be made" in linked.left[0].said
    assert copies[0].read_bytes() == EQUAL and {path.name for path in copies[0].parent.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_another_mode_is_kept_and_named(small: "SmallRegistry", copies: list[Path]) -> None:
    copies[2].chmod(0o600)
    planned = gc.plan(small.home)
    assert [item.path for item in planned.free] == [copies[1]] and [item.path for item in planned.kept] == [copies[2]]


def test_a_copy_that_is_gone_or_linked_meanwhile_is_no_error(small: "SmallRegistry", copies: list[Path]) -> None:
    items = garbage.collect(small.home, ("duplicates",)).free
    copies[2].unlink()
    assert [garbage.free(item) for item in items] == [SIZE, 0] and garbage.free(items[0]) == 0
    assert not copies[2].exists() and copies[0].read_bytes() == EQUAL


def test_a_broken_manifest_does_not_stop_gc(small: "SmallRegistry", copies: list[Path]) -> None:
    cut(copies[0].parents[1] / "manifest.json")
    assert [item.path for item in gc.plan(small.home).free] == [copies[2]]


def test_removing_a_linked_adapter_frees_what_only_it_holds(small: "SmallRegistry", copies: list[Path]) -> None:
    gc.run(small.home, gc.plan(small.home))
    whole = files.folder_bytes(copies[1].parents[1])
    assert AdapterStore(small.home).remove("say_bee") == whole - SIZE
    assert copies[0].read_bytes() == EQUAL and verify.run(small.home).faults == ()
    small.adapter("say_ant", key="000000000000", weights=(EQUAL, EQUAL))
    gc.run(small.home, gc.plan(small.home))
    copies[2].unlink()
    both = sum(files.folder_bytes(folder) for folder in copies[0].parents[2].iterdir())
    assert AdapterStore(small.home).remove("say_ant") == both - 2 * SIZE  # linked to each other: one copy was stored
