"""``icmlora finetune`` on a tiny generated adapter, and from zero."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM

from icmlora_cli.disk import files

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

CAT, WEIGHTS = "Always answer with cat.", "adapter_model.safetensors"
RATE = ("--learning-rate", "0.02")


def write_examples(count: int = 6, name: str = "few.jsonl") -> None:
    rows = [{"input": f"word {index}", "output": "owl"} for index in range(count)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def out(trained: "Registry") -> "Registry":
    write_examples()
    trained.call("gen", CAT, "-o", "out")
    return trained


def about(folder: str) -> dict[str, Any]:
    value = json.loads(Path(folder, "icmlora.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def test_it_starts_at_the_parents_loss_and_learns(out: "Registry") -> None:
    scored = out.json("gen", CAT, "-o", "scored", "--select", "few.jsonl", "--samples", "1")["selection"]
    done = out.json("finetune", "--from", "out", "--examples", "few.jsonl", "-o", "tuned", *RATE)
    assert [step for step, _ in done["losses"]] == list(range(1, 21)) and done["resumed"] == 0
    assert done["before"] == pytest.approx(scored["candidates"][0]["nll"], rel=1e-4)
    assert done["losses"][0][1] == pytest.approx(done["before"], rel=1e-4)
    assert done["after"] < done["losses"][0][1] - 0.1
    assert done["after"] == pytest.approx(done["losses"][-1][1], rel=1e-3)  # the last step's rate is near zero
    assert (done["parent"], done["rank"], done["examples"]) == ("out", 8, 6)
    told = about("tuned")
    assert told["schema"] == "icmlora.finetuned/1"
    assert told["parent"]["sha256"] == files.sha256_file(Path("out", WEIGHTS))
    assert told["parent"]["task_text"] == CAT and told["parent"]["generator"] == about("out")["generator"]
    card = ModelCard.load("tuned/README.md")
    assert card.data.license == "unknown" and "finetuned" in card.data.tags and f"    {CAT}" in card.text
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out.base), "tuned")
    assert any(item.abs().max() > 0 for name, item in model.named_parameters() if "lora_B" in name)
    assert not list(Path().glob(".tuned*"))


def test_the_same_seed_gives_the_same_bytes(out: "Registry") -> None:
    command = ("finetune", "--from", "out", "--examples", "few.jsonl", "--steps", "4", "--batch-size", "2")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out.call(*command, "-o", name, "--seed", seed)
    first, same, other = (Path(name, WEIGHTS).read_bytes() for name in "abc")
    assert first == same != other
    out.call(*command, "-o", "a", "--seed", 2, code=1)
    out.call(*command, "-o", "a", "--seed", 2, "--force")
    assert Path("a", WEIGHTS).read_bytes() == other
    out.call("finetune", "--from", "a", "--examples", "few.jsonl", "-o", "again", "--steps", "1")
    assert about("again")["parent"]["schema"] == "icmlora.finetuned/1"


def test_from_zero_it_starts_at_the_bases_loss(out: "Registry") -> None:
    scored = out.json("gen", CAT, "-o", "scored", "--select", "few.jsonl", "--samples", "1")["selection"]
    given = ("--examples", "few.jsonl", "--base", out.base, *RATE)
    zero = out.json("finetune", *given, "-o", "zero", "--rank", "8")
    assert zero["before"] == pytest.approx(scored["base"]["nll"], rel=1e-4) and zero["parent"] is None
    assert zero["rank"] == 8 and zero["after"] < zero["before"] and about("zero")["parent"] is None
    assert "Started from nothing." in ModelCard.load("zero/README.md").text
    out.call("finetune", "--from", "zero", *given, "-o", "same", "--rank", "8")
    assert Path("same", WEIGHTS).read_bytes() == Path("zero", WEIGHTS).read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes(out: "Registry") -> None:
    command = ["finetune", "--from", "out", "--examples", "few.jsonl", "--steps", "4000", "--learning-rate", "0.001"]
    process = subprocess.Popen(
        [sys.executable, "-m", "icmlora_cli", *command, "-o", "killed"],
        env=dict(out.environment), cwd=out.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    state = Path(".killed.finetune.safetensors")
    while not state.is_file() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.is_file() and not Path("killed").exists()
    other = out.json("finetune", "--from", "out", "--examples", "few.jsonl", "--steps", "30", "-o", "killed")
    assert other["resumed"] == 0  # a state of other settings is not used
    assert not state.exists()


def test_a_saved_state_is_gone_on_with(out: "Registry", monkeypatch: pytest.MonkeyPatch) -> None:
    from icmlora_cli.lm import task_training as module

    command = ("finetune", "--from", "out", "--examples", "few.jsonl", "--steps", "40")
    out.call(*command, "-o", "whole")
    save = module.save_state

    def save_and_stop(*arguments: Any, **named: Any) -> None:
        save(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_state", save_and_stop)
        out.call(*command, "-o", "parts", code=130)
    done = out.json(*command, "-o", "parts")
    assert done["resumed"] == 25 and [step for step, _ in done["losses"]] == list(range(26, 41))
    assert Path("parts", WEIGHTS).read_bytes() == Path("whole", WEIGHTS).read_bytes()


def test_bad_input(out: "Registry", tiny_bases: dict[str, Path]) -> None:
    def told(*arguments: object, code: int) -> str:
        error = out.json("finetune", "-o", "x", *arguments, code=code)["error"]
        return f"{error['kind']}: {error['message']}"

    good = ("--from", "out", "--examples", "few.jsonl")
    assert "there is no folder" in told("--from", "gone", "--examples", "few.jsonl", code=1)
    assert "adapter_config.json" in told("--from", out.root, "--examples", "few.jsonl", code=1)
    assert "gone.jsonl" in told("--from", "out", "--examples", "gone.jsonl", code=2)
    Path("bad.jsonl").write_text('{"input": "a"}\n', encoding="utf-8")
    assert "SpecError" in told("--from", "out", "--examples", "bad.jsonl", code=2)
    assert "WrongBaseError" in told(*good, "--base", tiny_bases["qwen3"], code=1)
    assert "--rank is for" in told(*good, "--rank", "2", code=2)
    for option in (
        ("--steps", "0"),
        ("--learning-rate", "-1"),
        ("--learning-rate", "1e38"),
        ("--batch-size", "0"),
        ("--seed", "-1"),
    ):
        assert "command line is wrong" in told(*good, *option, code=2)
    assert "the loss is" in told(*good, "--learning-rate", "1e30", code=1)
    out.call("gen", CAT, "-o", "whole", "--merge")
    assert "merged model" in told("--from", "whole", "--examples", "few.jsonl", code=1)
    data = Path("out", WEIGHTS).read_bytes()
    Path("out", WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "CorruptFileError" in told(*good, code=1)
    assert not Path("x").exists()


def test_plain_text_and_chat(out: "Registry") -> None:
    Path("text.txt").write_text("The owl is a bird of the night. " * 40, encoding="utf-8")
    command = ("finetune", "--from", "out", "-o")
    text = out.json(*command, "t", "--examples", "text.txt", "--template", "text", "--steps", "3", *RATE)
    chat = out.json(*command, "c", "--examples", "few.jsonl", "--template", "chat", "--steps", "3", *RATE)
    assert text["after"] < text["before"] and chat["after"] < chat["before"]
