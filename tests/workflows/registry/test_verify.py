"""Verify finds what is wrong and says what mends it; a repair puts back, adds or quarantines, and loses nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import icmlora_cli
from icmlora_cli.disk import files, temporary
from icmlora_cli.disk.home import Home
from icmlora_cli.disk.leases import Lease
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import BaseStore
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.registry.upkeep import quarantine
from icmlora_cli.workflows.registry import gc, verify
from tests.small_registry import BASE, KEY, SmallRegistry, cut, flip, safetensors, tree

PLACES = {
    "task": "tasks/say_cat/examples.jsonl",
    "adapter": f"adapters/{BASE}/say_cat/{KEY}/checkpoint-00020/adapter_model.safetensors",
    "generator": "generators/default/generator.safetensors",
}
KILLED_REPLACING = """
import sys
from icmlora_cli.disk.home import Home
from tests.dying import die_at_rename
from tests.small_registry import SmallRegistry

registry = SmallRegistry(Home.from_environment())
die_at_rename(int(sys.argv[1]))
registry.generator("default", seed=9)
"""


def killed_replacing(rename: int) -> None:
    """Replace the generator 'default' in a process that is killed before its n-th rename."""
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    command = [sys.executable, "-c", KILLED_REPLACING, str(rename)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def kinds(result: verify.VerifyResult) -> set[tuple[str, str, str, bool]]:
    return {(fault.kind, fault.thing, fault.name, fault.severe) for fault in result.faults}


def test_a_whole_registry_has_no_fault(small: SmallRegistry) -> None:
    assert verify.run(small.home).ok and verify.run(small.home, repair=True).repairs == ()
    small.fill()
    result = verify.run(small.home)
    assert result.ok and result.faults == ()
    assert result.checked == {"task": 2, "adapter": 2, "generator": 1, "base": 1}


@pytest.mark.parametrize("thing", PLACES)
def test_damage_is_told_with_its_cost_and_what_mends_it(small: SmallRegistry, thing: str) -> None:
    small.fill()
    path = small.home.root / PLACES[thing]
    whole = path.read_bytes()
    for damage, kind in ((lambda path: flip(path, -2), "changed"), (cut, "truncated"), (Path.unlink, "missing")):
        damage(path)
        result = verify.run(small.home)
        assert not result.ok and result.remaining == 1 and result.repairs == ()
        (fault,) = result.faults
        assert (fault.kind, fault.thing, fault.path) == (kind, thing, path)
        assert fault.severe and fault.cost and "icmlora" in fault.mend
        path.write_bytes(whole)


@pytest.mark.parametrize("thing", PLACES)
def test_a_repair_quarantines_and_loses_nothing(small: SmallRegistry, thing: str) -> None:
    small.fill()
    flip(small.home.root / PLACES[thing])
    before = tree(small.home.root)
    result = verify.run(small.home, repair=True)
    assert not result.ok  # it is out of the way, and not there again
    moved = next(item for item in result.repairs if item.action == "quarantined")
    assert moved.to is not None and moved.to.is_dir() and "next: icmlora" in moved.said
    after = tree(small.home.root)
    assert sorted(before.values()) == sorted(data for path, data in after.items() if not path.endswith("why.json"))
    (missing,) = verify.run(small.home).faults  # it is lost until it is made again
    assert (missing.kind, missing.severe, missing.path) == ("missing", True, moved.to)
    kept = gc.plan(small.home, ["quarantine"])
    assert kept.free == () and [item.path for item in kept.kept] == [moved.to.parent]
    assert not verify.run(small.home, repair=True).ok  # nor does a second repair pretend that it is mended
    os.replace(moved.to, moved.path)
    assert gc.plan(small.home, ["quarantine"]).kept == ()


def test_a_damaged_builtin_task_is_added_again(small: SmallRegistry) -> None:
    task = TaskStore(small.home).add_builtin("pick_last_of_3")
    cut(task.folder / "examples.jsonl")
    result = verify.run(small.home, repair=True)
    assert result.ok and [item.action for item in result.repairs] == ["quarantined", "added"]
    assert TaskStore(small.home).get("pick_last_of_3").data_hash == task.data_hash
    assert "the same examples" in result.repairs[-1].said


def test_what_is_not_listed_is_told_and_only_moved_where_it_is_in_the_way(small: SmallRegistry) -> None:
    small.fill()
    inside = small.home.generators / "default" / "notes.txt"
    inside.write_text("mine")
    beside = [small.home.root / "notes.txt", small.home.tasks / "notes.txt", small.home.adapters / BASE / "notes.txt"]
    for path in beside:
        path.write_text("mine")
    result = verify.run(small.home)
    assert result.ok and {fault.kind for fault in result.faults} == {"unlisted"} and len(result.faults) == 4
    (moved,) = verify.run(small.home, repair=True).repairs
    assert moved.path == inside and moved.to is not None and moved.to.read_text() == "mine"
    assert all(path.read_text() == "mine" for path in beside)


def test_killed_between_the_two_renames_of_a_replacement(small: SmallRegistry) -> None:
    small.fill()
    before = tree(small.home.generators / "default")
    killed_replacing(5)  # three files and the old folder have been renamed, and the new one has not
    assert not (small.home.generators / "default").exists()
    result = verify.run(small.home)
    assert ("half-written", "generator", "default", True) in kinds(result) and not result.ok
    assert {fault.kind for fault in result.faults} == {"half-written", "left-over"}
    assert [item.said for item in gc.plan(small.home).kept] != []  # gc leaves the only copy alone
    gc.run(small.home, gc.plan(small.home))
    result = verify.run(small.home, repair=True)
    assert result.ok and [item.action for item in result.repairs] == ["restored"]
    assert tree(small.home.generators / "default") == before
    assert verify.run(small.home).faults == ()


def test_killed_while_the_new_folder_is_written(small: SmallRegistry) -> None:
    small.fill()
    before = tree(small.home.generators / "default")
    killed_replacing(2)
    result = verify.run(small.home)
    assert result.ok and kinds(result) == {("left-over", "file", "default", False)}
    assert "icmlora registry gc" in result.faults[0].mend
    gc.run(small.home, gc.plan(small.home, ["temporary"]))
    assert verify.run(small.home).faults == () and tree(small.home.generators / "default") == before


def test_a_damaged_folder_is_not_put_back(small: SmallRegistry) -> None:
    small.fill()
    flip(small.home.generators / "default" / "generator.safetensors")
    killed_replacing(5)
    result = verify.run(small.home, repair=True)
    assert not result.ok and not (small.home.generators / "default").exists()
    moved = next(item for item in result.repairs if item.action == "quarantined")
    assert moved.to is not None and (moved.to / "generator.safetensors").is_file()


def test_a_harvest_that_was_cut_short_goes_on(small: SmallRegistry) -> None:
    small.fill()
    folder = small.home.adapters / BASE / "say_dog" / "fffffffffff0"
    files.write_bytes(folder / "state.safetensors", safetensors(9, metadata={"step": "5"}))
    result = verify.run(small.home)
    assert result.ok and kinds(result) == {("half-written", "adapter", "say_dog", False)}
    assert result.faults[0].mend == "icmlora harvest --tasks say_dog"
    cut(folder / "state.safetensors")
    assert ("truncated", "adapter", "say_dog", False) in kinds(verify.run(small.home))
    verify.run(small.home, repair=True)
    assert not (folder / "state.safetensors").exists()


def test_a_harvest_at_work_is_no_fault(small: SmallRegistry) -> None:
    files.write_bytes(small.home.adapters / BASE / "say_dog" / KEY / "state.safetensors", safetensors(9))
    with Lease(small.home.adapters / BASE / "say_dog" / KEY).tried() as mine:
        assert mine and verify.run(small.home).faults == ()


def test_a_manifest_that_is_gone(small: SmallRegistry) -> None:
    folder = small.adapter("say_cat")
    (folder / "manifest.json").unlink()
    result = verify.run(small.home)
    assert kinds(result) == {("missing", "adapter", "say_cat", True)}


def test_base_models(small: SmallRegistry) -> None:
    base = small.base()
    flip(base.path / "model.safetensors")
    result = verify.run(small.home)
    assert kinds(result) == {("changed", "base", BASE, True)} and f"icmlora base pull {BASE}" in result.faults[0].mend
    assert verify.run(small.home, quick=True).ok
    result = verify.run(small.home, repair=True)
    assert BaseStore(small.home).all() == () and len(list((small.home.cache / "quarantine").iterdir())) == 1
    assert kinds(verify.run(small.home)) == {("missing", "base", BASE, True)}
    small.base()
    assert verify.run(small.home).faults == ()


def test_results_baselines_and_vectors(small: SmallRegistry) -> None:
    result = small.home.root / "results" / "default-plain"
    files.write_json(result / "result.json", {"schema": "icmlora.result/2"})
    files.write_json(result / "scores" / "say_cat" / "base.json", {"schema": "icmlora.score/1"})
    multi = small.home.root / "baselines" / BASE / "multi-task-abc"
    files.write_bytes(multi / "adapter_model.safetensors", safetensors(40))
    files.write_json(multi / "adapter_config.json", {"peft_type": "LORA"})
    vector = small.home.vectors / "ab" / "abc.safetensors"
    files.write_bytes(vector, safetensors(40))
    assert verify.run(small.home).faults == ()
    for path in (
        result / "result.json",
        result / "scores" / "say_cat" / "base.json",
        multi / "adapter_model.safetensors",
        vector,
    ):
        cut(path)
    assert kinds(verify.run(small.home)) == {
        ("unreadable", "result", "default-plain", True),
        ("unreadable", "result", "default-plain", False),
        ("truncated", "baseline", "multi-task-abc", True),
        ("truncated", "vector", "abc", False),
    }
    assert len(verify.run(small.home, repair=True).repairs) == 4
    assert verify.run(small.home).faults == ()


@pytest.mark.parametrize("name", ["cache/vectors/ab/abc.safetensors", "home/results/default-plain/scores/score.json"])
def test_what_is_being_written_is_left_alone(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home", tmp_path / "cache")
    SmallRegistry(home).fill()

    def write(path: Path) -> None:
        path.write_bytes(b"{")  # in the middle of it
        assert verify.run(home, repair=True).repairs == ()
        assert gc.run(home, gc.plan(home)).freed == ()
        path.write_bytes(safetensors(40) if path.suffix == ".safetensors" else b"{}")

    files.write_with(tmp_path / name, write)
    assert verify.run(home).faults == ()
    assert (tmp_path / name).is_file()


def test_removing_an_adapter_leaves_nothing_that_looks_whole(small: SmallRegistry) -> None:
    """Killed in the middle of it, what is left has a temporary name, and is in no list."""
    small.fill()
    task = small.home.adapters / BASE / "say_cat"
    task.rename(temporary.beside(task, "gone"))
    assert [record.task for record in AdapterStore(small.home).all()] == ["say_dog"]


def test_the_cache_may_lie_in_the_registry(tmp_path: Path) -> None:
    for cache in (tmp_path / "home" / "cache", tmp_path / "home"):
        registry = SmallRegistry(Home(tmp_path / "home", cache))
        registry.fill()
        files.write_bytes(registry.home.vectors / "ab" / "x.safetensors", safetensors(5))
        strange = {fault.path.name for fault in verify.run(registry.home).faults}
        assert strange <= {"cache"}  # that of the first round


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
@pytest.mark.parametrize("thing", PLACES)
def test_an_unreadable_file_is_told_and_the_rest_is_looked_at(small: SmallRegistry, thing: str) -> None:
    small.fill()
    broken = small.home.root / PLACES[thing]
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # it opens, and reading its first byte is an input/output error
    cut(small.home.tasks / "say_dog" / "examples.jsonl")
    result = verify.run(small.home)
    assert ("unreadable", thing, "default" if thing == "generator" else "say_cat", True) in kinds(result)
    assert ("truncated", "task", "say_dog", True) in kinds(result)


REPAIR_KILLED = """
import sys
from icmlora_cli.disk.home import Home
from icmlora_cli.workflows.registry import verify
from tests.dying import die_at_rename

die_at_rename(int(sys.argv[1]))
verify.run(Home.from_environment(), repair=True)
"""


@pytest.mark.parametrize("rename", range(1, 6))
def test_a_repair_that_is_killed_is_gone_on_with(small: SmallRegistry, rename: int) -> None:
    task = TaskStore(small.home).add_builtin("pick_last_of_3")
    flip(task.folder / "examples.jsonl")
    damaged = (task.folder / "examples.jsonl").read_bytes()
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    command = [sys.executable, "-c", REPAIR_KILLED, str(rename)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    made = task.folder.is_dir() and verify.run(small.home).ok
    assert verify.run(small.home).ok == made, "what is neither whole nor made again is lost"
    gc.run(small.home, gc.plan(small.home, ["temporary"]))
    assert verify.run(small.home, repair=True).ok
    assert TaskStore(small.home).get(task.name).data_hash == task.data_hash
    assert damaged in tree(small.home.root).values()  # and the damaged bytes are kept


def test_two_repairs_at_once_agree(small: SmallRegistry) -> None:
    task = TaskStore(small.home).add_builtin("pick_last_of_3")
    flip(task.folder / "examples.jsonl")
    environment = os.environ | {"PYTHONPATH": str(Path(icmlora_cli.__file__).parents[1])}
    command = [sys.executable, "-m", "icmlora_cli", "registry", "verify", "--repair", "--json"]
    pair = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(process.communicate()[0]) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(len(item["repairs"]) for item in told) == [0, 2]
    assert verify.run(small.home).ok


def test_an_import_that_was_cut_short_between_two_renames_is_undone(small: SmallRegistry) -> None:
    small.fill()
    before = tree(small.home.tasks / "say_cat")
    quarantine.put(
        small.home, small.home.tasks / "say_cat", "replaced by what x holds", reason="replaced", thing="task",
        name="say_cat",
    )  # fmt: skip
    assert kinds(verify.run(small.home)) == {("missing", "task", "say_cat", True)}
    assert gc.plan(small.home, ["quarantine"]).free == ()
    result = verify.run(small.home, repair=True)
    assert result.ok and [item.action for item in result.repairs] == ["restored"]
    assert tree(small.home.tasks / "say_cat") == before and verify.run(small.home).ok
