"""``icmlora adapter import``, ``show``, ``diff`` and ``remove`` on a foreign adapter; their JSON keys are pinned."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from tests.cli.conftest import Registry

IMPORTED = {
    "schema", "task", "key", "base", "weight_hash", "data_hash", "created", "checkpoints", "figures", "about",
    "folder", "bytes", "state", "parts", "notes",
}  # fmt: skip
PART = {"checkpoint", "name", "what", "kept", "error", "rank"}
FACTS = {"task", "key", "ranks", "dtypes", "norm", "effective_rank", "layers", "nearest"}
DIFFERENCE = {"schema", "first", "second", "only_first", "only_second", "all", "by_layer", "by_type"}


def foreign(folder: Path, base: Path, *, rank: int = 3, seed: int = 0) -> Path:
    """Write a PEFT LoRA by hand, as any program could."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, 32, generator=rng).bfloat16()
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(32, rank, generator=rng).bfloat16()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_import_show_diff_and_remove(empty: "Registry") -> None:
    foreign(Path("pirate"), empty.base)
    base = ("--base", empty.base)
    made = empty.json("adapter", "import", "pirate", "--describe", "Answer as a pirate.", *base)
    assert set(made) == {"schema", "base", "described", "adapters"} and made["schema"] == "icmlora.adapter.import/1"
    (item,) = made["adapters"]
    assert set(item) == IMPORTED and item["state"] == "imported" and made["described"] == item["task"]
    assert all(set(part) == PART and part["kept"] == "exact" for part in item["parts"]) and len(item["parts"]) == 2
    name = item["task"]
    assert name == "answer_as_a_pirate"

    foreign(Path("polite"), empty.base, rank=5, seed=1)
    said = empty.call("adapter", "import", "polite", "--describe", "Be polite.", *base)
    assert "imported: task be_polite" in said.stdout and "held exactly" in said.stderr
    shown = empty.json("adapter", "show", name)
    (facts,) = shown["weights"]
    assert set(facts) == FACTS and facts["ranks"] == {"3": 2} and facts["dtypes"] == ["bfloat16"]
    assert [layer["layer"] for layer in facts["layers"]] == [0, 1]
    assert [other["task"] for other in facts["nearest"]] == ["be_polite"]
    text = empty.call("adapter", "show", name).stdout
    assert "norm of delta-W" in text and "imported from pirate, licence" in text

    same = empty.json("adapter", "diff", name, "pirate")
    assert set(same) == DIFFERENCE and same["all"]["error"] == 0.0 and same["by_layer"]["0"]["error"] == 0.0
    assert "relative error" in empty.call("adapter", "diff", name, "be_polite").stdout

    key = item["key"]
    assert empty.json("adapter", "remove", name, "--key", key, "--yes")["key"] == key
    assert [one["task"] for one in empty.json("adapter", "list")["adapters"]] == ["be_polite"]
    empty.call("adapter", "remove", name, "--key", "../x", "--yes", code=2)


def test_what_is_wrong_has_its_code_and_what_to_type(empty: "Registry") -> None:
    folder, base = foreign(Path("pirate"), empty.base), ("--base", empty.base)
    said = empty.call("adapter", "import", "pirate", *base, code=2).stderr
    assert "--describe" in said
    assert "--task" in empty.call("adapter", "import", "pirate", "--describe", "!", *base, code=2).stderr
    error = empty.json("adapter", "import", "nowhere", "--describe", "x", *base, code=1)["error"]
    assert error["kind"] == "NotFoundError" and error["exit_code"] == 1
    (folder / "adapter_model.safetensors").write_bytes(b"PK\x03\x04 and so on")
    error = empty.json("adapter", "import", "pirate", "--describe", "x", *base, code=1)["error"]
    assert error["kind"] == "UnsupportedAdapterError" and "--allow-pickle" in error["hint"]
    assert "icmlora adapter list" in empty.call("adapter", "diff", "nothing", "nobody", code=1).stderr
    assert empty.json("task", "list")["tasks"] == [] and empty.json("adapter", "list")["adapters"] == []
