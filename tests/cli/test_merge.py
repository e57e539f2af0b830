"""``icmlora merge``: how adapters are named and weighted, what it prints, what it refuses."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from icmlora_cli.cli.merge import shares
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.registry.adapters import AdapterStore
from tests.cli.test_disk import fails

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

MERGED = {
    "schema", "folder", "base", "adapters", "files", "tensors", "changed", "dtype", "untied", "bytes", "seconds",
}  # fmt: skip
ADAPTER = {"name", "weight", "folder", "task", "key", "sha256", "config_sha256", "licence"}
IDS = torch.arange(5, 45)[None]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat", ("cat", 1.0)),
        ("cat:0.7", ("cat", 0.7)),
        ("cat:-.5", ("cat", -0.5)),
        ("cat:2", ("cat", 2.0)),
        ("cat:1e-3", ("cat", 0.001)),
        (r"C:\loras\cat", (r"C:\loras\cat", 1.0)),
        (r"C:\loras\cat:0.25", (r"C:\loras\cat", 0.25)),
        ("C:/loras/cat", ("C:/loras/cat", 1.0)),
        ("./a:b/cat", ("./a:b/cat", 1.0)),
        ("./v:2:1", ("./v:2", 1.0)),
        ("cat:", ("cat:", 1.0)),
        ("cat:half", ("cat:half", 1.0)),
        ("cat:0,5", ("cat:0,5", 1.0)),
        (":1", (":1", 1.0)),
    ],
)
def test_the_weight_is_behind_the_last_colon(text: str, wanted: tuple[str, float]) -> None:
    assert shares(None, [text]) == [wanted]
    assert shares(text, []) == [(text, 1.0)]  # alone, a name is taken as it is


def test_one_way_of_naming_them() -> None:
    with pytest.raises(UsageError, match="no adapter is named"):
        shares(None, [])
    with pytest.raises(UsageError, match="beside -a"):
        shares("cat", ["dog:1"])


def test_a_tasks_adapter(trained: "Registry") -> None:
    made = trained.json("merge", "always_cat", "-o", "model")
    (record,) = (item for item in AdapterStore(Home.from_environment()).all() if item.task == "always_cat")
    assert set(made) == MERGED and made["schema"] == "icmlora.merge/1" and made["base"].startswith("llama@")
    (adapter,) = made["adapters"]
    assert set(adapter) == ADAPTER and (adapter["task"], adapter["key"]) == ("always_cat", record.key)
    assert adapter["weight"] == 1.0 and adapter["sha256"] == record.checkpoints[-1].sha256
    assert made["bytes"] == files.folder_bytes(Path("model")) and made["dtype"] == "fp32" and not made["untied"]
    assert made["changed"] == len(load_file(record.last / "adapter_model.safetensors")) / 2
    base = AutoModelForCausalLM.from_pretrained(trained.base)
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained("model")(input_ids=IDS).logits
        plain = base(input_ids=IDS).logits
        theirs = PeftModel.from_pretrained(base, str(record.last))(input_ids=IDS).logits
    assert torch.allclose(ours, theirs, atol=1e-4) and not torch.allclose(ours, plain, atol=1e-2)
    assert trained.call("merge", record.key, "-o", "again", "-q").stdout == "again\n"
    assert Path("again/model.safetensors").read_bytes() == Path("model/model.safetensors").read_bytes()
    said = trained.call("merge", str(record.last), "-o", "again", "--force").stdout
    assert (
        said.startswith("merged model") and f"{made['changed']} of {made['tensors']} tensors changed, in again" in said
    )


def test_several_with_weights(trained: "Registry") -> None:
    made = trained.json("merge", "-a", "always_cat:0.7", "-a", "always_dog:-0.3", "-o", "model", "--dtype", "bf16")
    assert [(item["task"], item["weight"]) for item in made["adapters"]] == [("always_cat", 0.7), ("always_dog", -0.3)]
    assert made["dtype"] == "bf16" and json.loads(Path("model/config.json").read_text())["dtype"] == "bfloat16"
    about = json.loads(Path("model/icmlora.json").read_text())
    assert [item["weight"] for item in about["adapters"]] == [0.7, -0.3]
    card = Path("model/README.md").read_text()
    assert "    0.7  always_cat\n    -0.3  always_dog" in card


def test_what_is_refused(trained: "Registry") -> None:
    def error(*arguments: object, code: int) -> dict[str, object]:
        found = trained.json("merge", *arguments, "-o", "model", code=code)["error"]
        assert isinstance(found, dict)
        return found

    assert error(code=2)["message"] == "no adapter is named"
    assert "the weight of always_cat is nan" in str(error("-a", "always_cat:nan", code=2)["message"])
    assert error("nobody", code=1)["kind"] == "NotFoundError"
    assert error("always_cat", "--base", trained.root, code=1)["kind"] == "BaseUnavailableError"
    Path("model").mkdir()
    Path("model/mine").write_text("mine")
    assert error("always_cat", code=1)["kind"] == "AlreadyExistsError"
    assert error("always_cat", "--force", code=1)["kind"] == "AlreadyExistsError"
    assert Path("model/mine").read_text() == "mine"


def test_a_full_disk(trained: "Registry") -> None:
    fails(trained, 40_000, "merge", "always_cat", "-o", "model")
    assert not Path("model").exists()
    trained.call("merge", "always_cat", "-o", "model")


def test_gen_merges_with_the_same_code(trained: "Registry") -> None:
    trained.call("gen", "Always answer with cat.", "-o", "out")
    trained.call("gen", "Always answer with cat.", "-o", "whole", "--merge")
    trained.call("merge", "out", "-o", "merged")
    assert {path.name for path in Path("whole").iterdir()} == {path.name for path in Path("merged").iterdir()}
    for path in Path("merged").iterdir():
        if path.name not in ("README.md", "icmlora.json"):
            assert path.read_bytes() == Path("whole", path.name).read_bytes()
    base = shutil.copytree(trained.base, trained.root / "base")
    files.write_json(base / "icmlora.json", {})  # as if icmlora had written it
    refused = ("gen", "Always answer with cat.", "--base", base, "-o", base, "--merge", "--force")
    assert "is what it would be made of" in trained.json(*refused, code=2)["error"]["message"]
    assert (base / "model.safetensors").is_file()
