"""What goes wrong is told in one clear message with a documented exit code, and the registry stays usable."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.registry.adapters import AdapterStore

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

FIVE_FAULTS = """\
name: my task
descriptin: Say cat.
examples: none.jsonl
metric: bleu
split: dev
"""
BAD_RECIPE = """\
steps: many
rnk: 4
learning_rate: -1
batch_size: 0
"""


def told(registry: "Registry", *arguments: object, code: int) -> str:
    """Return what a failing command says, once it is clear, and stdout and the registry are as they should be."""
    result = registry.call(*arguments, code=code)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    faults = code == 2 and "\n  " in result.stderr  # each says itself what should be there
    assert faults or "\n  next: " in result.stderr
    registry.call("task", "list")
    return result.stderr


def flip(path: Path) -> None:
    """Turn over the last bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_a_task_file_with_five_faults(trained: "Registry") -> None:
    Path("bad.yaml").write_text(FIVE_FAULTS, encoding="utf-8")
    said = told(trained, "task", "add", "bad.yaml", code=2)
    for line in range(1, 6):
        assert f"bad.yaml:{line}: " in said
    assert "did you mean 'description'?" in said
    error = trained.json("task", "add", "bad.yaml", code=2)
    assert error["schema"] == "icmlora.error/2" and error["error"]["faults"].count("\n") >= 4
    assert len(trained.json("task", "list")["tasks"]) == 2


@pytest.mark.parametrize("kind", ["harvest", "train"])
def test_a_recipe_with_several_faults(trained: "Registry", kind: str) -> None:
    Path("bad.yaml").write_text(BAD_RECIPE, encoding="utf-8")
    commands = [(kind, "--base", trained.base, "--recipe", "bad.yaml"), ("recipe", "validate", "bad.yaml", "-k", kind)]
    for command in commands:
        said = told(trained, *command, code=2)
        for line in range(1, 5):
            assert f"bad.yaml:{line}: " in said


@pytest.mark.parametrize("text", ["", "- steps\n- 3\n", "steps: [\n", "steps: 3\nsteps: 4\n", "steps: .nan\n"])
def test_a_recipe_that_is_no_recipe(empty: "Registry", text: str) -> None:
    """An empty file is one: every setting has a default."""
    Path("odd.yaml").write_text(text, encoding="utf-8")
    result = empty.call("recipe", "validate", "odd.yaml", "--kind", "train", code=2 if text else 0)
    assert ("odd.yaml" in result.stderr) == bool(text)


def test_a_recipe_that_is_not_text(empty: "Registry") -> None:
    Path("odd.yaml").write_bytes(b"\xff\xfe\x00steps")
    assert "UTF-8" in told(empty, "recipe", "validate", "odd.yaml", "--kind", "train", code=2)
    assert "UTF-8" in told(empty, "recipe", "show", "odd.yaml", code=1)


def test_names_that_are_not_there(trained: "Registry") -> None:
    base = ("--base", trained.base)
    for command in (("harvest", *base), ("train", *base), ("eval", *base)):
        said = told(trained, *command, "--tasks", "always_cta", code=1)
        assert "always_cta" in said and "did you mean always_cat" in said
        assert "zebra*" in told(trained, *command, "--tasks", "zebra*", code=1)
    for command in (("harvest", *base), ("train", *base)):
        said = told(trained, *command, "--recipe", "nowhere", code=2)
        assert "'nowhere'" in said and "harvest/default" in said
    assert "give a YAML file" in told(trained, "recipe", "show", "nowhere", code=2)
    assert "default" in told(trained, "gen", "Say cat.", "-o", "out", "--generator", "defualt", code=1)
    assert "icmlora harvest" in told(trained, "adapter", "show", "always_cta", code=1)
    assert "--kind harvest, train" in told(trained, "recipe", "validate", "harvest/demo", "-k", "gen", code=2)


def test_bases_that_are_not_there(trained: "Registry") -> None:
    missing = str(trained.root / "no-such-folder")
    for command in (("harvest",), ("eval",), ("gen", "Say cat.", "-o", "out")):
        assert "nobody/nothing" in told(trained, *command, "--base", "nobody/nothing", "--offline", code=1)
        assert missing in told(trained, *command, "--base", missing, code=1)
    assert "no harvested adapter" in told(trained, "train", "--base", "nobody/nothing", "--offline", code=2)
    device = told(trained, "harvest", "--base", trained.base, "--seed", "5", "--device", "abacus", code=2)
    assert "'abacus'" in device and "cpu" in device
    assert not Path("out").exists()


def test_an_empty_registry_says_where_to_start(empty: "Registry") -> None:
    base = ("--base", empty.base)
    assert "icmlora task add" in told(empty, "harvest", *base, code=2)
    assert "icmlora harvest" in told(empty, "train", *base, code=2)
    assert "icmlora harvest && icmlora train" in told(empty, "gen", "Say cat.", "-o", "out", "-g", "mine", code=1)
    bundled = empty.call("gen", "Say cat.", "-o", "out", "--offline", code=1)  # for a base that is not here
    assert bundled.stderr.startswith("note: no generator is trained here") and "base pull smollm2" in bundled.stderr
    told(empty, "eval", *base, code=2)


@pytest.mark.parametrize(
    "command",
    [
        ("harvest", "--stepz", "3"),
        ("harvest", "--steps", "many"),
        ("gen", "Say cat."),
        ("gen", "Say cat.", "-o", "out", "--seed", str(2**63)),
        ("eval", "--limit", "0"),
        ("harvset",),
        ("task", "ad"),
    ],
)
def test_a_command_line_that_is_wrong(empty: "Registry", command: tuple[str, ...]) -> None:
    result = empty.call(*command, code=2)
    assert result.stdout == "" and "Usage: " in result.stderr


def test_values_of_the_command_line_are_checked_like_a_recipe(trained: "Registry") -> None:
    said = told(trained, "harvest", "--base", trained.base, "--steps", "0", "--rank", "-1", code=2)
    assert "--steps: " in said and "--rank: " in said
    told(trained, "train", "--base", trained.base, "--arch", "gan", code=2)
    told(trained, "train", "--base", trained.base, "--name", "../../x", code=2)


def test_damaged_adapters_and_generators(trained: "Registry") -> None:
    home = Home.from_environment()
    train = ("train", "--base", trained.base, "--recipe", "train.yaml", "--seed", "1")
    (record, _) = AdapterStore(home).all()
    flip(record.last / "adapter_model.safetensors")
    said = told(trained, *train, code=1)
    assert (
        "always_cat" in said
        and "icmlora registry verify --repair" in said
        and "adapter remove always_cat --key" in said
    )
    told(trained, "adapter", "show", "always_cat", code=1)
    trained.call("adapter", "remove", "always_cat", "--yes")  # the advice helps
    trained.call("harvest", "--base", trained.base, "--recipe", "harvest.yaml", "--tasks", "always_cat")
    trained.call(*train, "--name", "other")

    weights = home.generators / "default" / "generator.safetensors"
    flip(weights)
    assert "icmlora train" in told(trained, "gen", "Say cat.", "-o", "out", code=1)
    assert "icmlora train" in told(trained, "eval", "--base", trained.base, code=1)
    (weights.parent / "generator.json").write_text("{", encoding="utf-8")
    assert trained.call("gen", "Say cat.", "-o", "out", code=1).stderr.startswith("error: generator.json")
    assert not Path("out").exists()
    trained.call("gen", "Say cat.", "-o", "out", "--generator", "other")


@pytest.mark.parametrize(("text", "word"), [("", "empty"), (" \n\t ", "empty"), ("a" * 100_000, "100,000")])
def test_task_texts_that_cannot_be(trained: "Registry", text: str, word: str) -> None:
    assert word in told(trained, "gen", text, "-o", "out", code=2)
    assert not Path("out").exists()


def test_an_output_that_is_there(trained: "Registry") -> None:
    trained.call("gen", "Say cat.", "-o", "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    assert "--force" in told(trained, "gen", "Say dog.", "-o", "out", code=1)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    trained.call("gen", "Say dog.", "-o", "out", "--force")
    assert json.loads(Path("out/icmlora.json").read_text(encoding="utf-8"))["task_text"] == "Say dog."
    Path("letter.txt").write_text("Dear", encoding="utf-8")
    told(trained, "gen", "Say dog.", "-o", "letter.txt", "--force", code=1)
    assert Path("letter.txt").read_text(encoding="utf-8") == "Dear"


def test_a_home_that_is_a_file(empty: "Registry") -> None:
    empty.home.write_text("", encoding="utf-8")
    result = empty.call("task", "add", "tasks.yaml", code=2)
    assert result.stderr.startswith("error: ") and str(empty.home) in result.stderr


def test_options_that_do_not_go_together_are_not_dropped(trained: "Registry") -> None:
    base = ("--base", trained.base)
    assert "--executor ray" in told(trained, "harvest", *base, "--address", "auto", code=2)
    for option in ("--workers", "--tasks-per-batch"):
        assert "--executor local" in told(trained, "harvest", *base, "--executor", "ray", option, "2", code=2)
    assert "icmlora harvest status --tasks" in told(trained, "harvest", "--tasks", "always_cat", "status", code=2)
    assert "icmlora harvest status --json" in trained.call("harvest", "--json", "status", code=2).stderr
    trained.call("harvest", "status", *base)


def test_what_is_no_file_is_not_written_over(trained: "Registry") -> None:
    os.mkfifo("pipe")
    for command in (
        ("recipe", "copy", "train/default"),
        ("task", "export", "always_cat", "-o"),
        ("registry", "export", "-o"),
    ):
        assert "no regular file" in told(trained, *command, "pipe", "--force", code=2)
        assert "is a folder" in told(trained, *command, ".", "--force", code=1)
    assert Path("pipe").is_fifo() and not Path("pipe-examples").exists()


def test_lm_eval_is_looked_for_before_anything_is_scored(trained: "Registry") -> None:
    if importlib.util.find_spec("lm_eval") is not None:
        pytest.skip("the extra icmlora[lm-eval] is installed")
    command = ("eval", "--base", trained.base, "--methods", "base", "--lm-eval", "hellaswag", "-o", "results")
    assert "icmlora[lm-eval]" in told(trained, *command, code=2)
    assert not Path("results").exists()


def test_a_generator_of_another_name_is_told_of(trained: "Registry") -> None:
    (trained.home / "generators" / "default").rename(trained.home / "generators" / "mine")
    said = trained.call("gen", "Say cat.", "-o", "out", "--offline", code=1).stderr
    assert "no generator is named 'default' here (but -g mine)" in said
    said = trained.call("eval", "--base", trained.base, "--methods", "base", "--limit", "1", "-o", "results").stderr
    assert "name one: -g mine" in said


def test_a_generator_that_is_replaced_is_kept(trained: "Registry") -> None:
    folder = trained.home / "generators" / "default"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = trained.json("train", "--base", trained.base, "--recipe", "train.yaml", "--steps", "5")
    assert {path.name: path.read_bytes() for path in Path(done["replaced"]).iterdir()} == before
    assert "quarantine" in done["replaced"] and (folder / "generator.json").read_bytes() != before["generator.json"]
    assert trained.json("train", "--base", trained.base, "--recipe", "train.yaml", "--steps", "5")["replaced"] is None
    assert trained.json("registry", "verify")["faults"] == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_the_terminal_lacks_are_written_out(empty: "Registry", encoding: str) -> None:
    examples = [{"input": str(index), "output": "x"} for index in range(40)]
    text = {"name": "smile", "description": "Say \N{GRINNING FACE}.", "examples": examples}
    Path("smile.yaml").write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
    environment = {**empty.environment, "PYTHONIOENCODING": encoding}
    empty.call("task", "add", "smile.yaml")
    command = [sys.executable, "-m", "icmlora_cli", "task"]
    for arguments in (("list",), ("show", "smile", "--json"), ("preview", "smile")):
        done = subprocess.run([*command, *arguments], capture_output=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert "--json" not in arguments or json.loads(done.stdout)["descriptions"] == [text["description"]]


def test_a_closed_stdout_is_no_crash(trained: "Registry") -> None:
    command = f"exec {sys.executable} -m icmlora_cli task list --json >&-"
    done = subprocess.run(["sh", "-c", command], env=dict(trained.environment), capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == b""
