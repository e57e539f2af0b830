"""What passes are said to take is what they take: against arithmetic, and against the memory of real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, UsageError
from icmlora_cli.lm.cost import (
    meta_base,
    meta_rows,
    parameters_of,
    pass_cost,
    reading_cost,
    training_cost,
    weight_bytes,
)
from icmlora_cli.lm.load import load_base, quiet_transformers
from icmlora_cli.lm.trainers import trainer_of
from icmlora_cli.registry.bases import Base
from icmlora_cli.workflows.base.pull import pull

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 0.2  # share by which measured and predicted memory may differ


def test_what_lives_is_counted_and_what_is_dropped_is_not() -> None:
    x = torch.zeros(100, 200, device="meta")

    def run() -> torch.Tensor:
        y = x @ x.T  # 40 kB
        del y
        z = x.T @ x  # 160 kB
        return (z.T + 1.0).sum()  # 160 kB more, while z lives; its view takes nothing

    cost = pass_cost(run)
    assert cost.flops == 2 * 2 * 100 * 200 * 150
    assert cost.gradients == 0 and cost.activations == 320_000 + 4


def test_gradients_stay_and_parameters_are_no_part_of_a_pass() -> None:
    weight = torch.nn.Parameter(torch.zeros(50, 50, device="meta"))
    cost = pass_cost(lambda: (weight.T @ weight).sum().backward())
    assert cost.gradients == 50 * 50 * 4


def test_a_base_on_paper_has_the_parameters_and_passes_of_the_real_one(tiny_base: Base) -> None:
    real = load_base(tiny_base, device="cpu")
    paper = meta_base(tiny_base.path, tiny_base.name, dtype=torch.float32)
    assert parameters_of(paper.model) == parameters_of(real.model)
    weights = sum(item.numel() * 4 for item in real.model.parameters())
    assert weights <= weight_bytes(paper) < weights + 10_000  # buffers of positions
    batch = meta_rows(paper, rows=3, tokens=20, answer=4)
    with trainer_of(paper, HarvestRecipe(rank=2)) as trainer:
        numbers = sum(item.numel() for item in trainer.parameters.values())
        cost = training_cost(trainer.model, batch)
    assert cost.gradients == 4 * numbers
    kinds = ("Linear", "Conv1D")
    products = sum(item.weight.numel() for item in paper.model.modules() if type(item).__name__ in kinds)
    read = reading_cost(paper.model, batch)
    assert read.activations < cost.activations / 2 and 2 * read.flops < cost.flops < 4 * read.flops
    assert 0.5 * 2 * products * 60 < read.flops < 2 * 2 * products * 60


def test_packed_weights_take_less(llama_base: Base, tmp_path: Path) -> None:
    paper = meta_base(llama_base.path, "tiny", dtype=torch.bfloat16)
    packed = sum(
        item.weight.numel()
        for name, item in paper.model.named_modules()
        if isinstance(item, torch.nn.Linear) and name != "lm_head"
    )
    assert weight_bytes(paper) - weight_bytes(paper, bits=4) == packed * 2 - int(packed * 4.5 / 8)
    values = json.loads((llama_base.path / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert weight_bytes(meta_base(tmp_path, "tiny", dtype=torch.bfloat16)) == weight_bytes(paper, bits=4)


def test_faults_are_told(llama_base: Base, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(CorruptFileError, match="no such thing") as caught:
        meta_base(tmp_path, "mine", dtype=torch.float32)
    assert str(caught.value.where).endswith("config.json")
    with pytest.raises(UsageError, match="no room for answers of 8"):
        meta_rows(meta_base(llama_base.path, "tiny", dtype=torch.float32), rows=1, tokens=8, answer=8)


def measured(folder: Path, *shape: object) -> tuple[int, int]:
    """Return the bytes of loading, and those of two steps beyond, of a process of its own."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("measured_step.py")), str(folder)]
    variables = {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, shape)], capture_output=True, text=True, env=os.environ | variables, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, steps = done.stdout.split()
    return int(weights), int(steps)


def predicted(folder: Path, parametrization: str, rows: int, tokens: int, answer: int) -> tuple[int, int]:
    paper = meta_base(folder, "measured", dtype=torch.float32)
    weights = weight_bytes(paper)
    with trainer_of(paper, HarvestRecipe.model_validate({"parametrization": parametrization, "rank": 8})) as trainer:
        cost = training_cost(trainer.model, meta_rows(paper, rows=rows, tokens=tokens, answer=answer))
        moments = 8 * sum(item.numel() for item in trainer.parameters.values())
    return weights, cost.activations + cost.gradients + moments


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's counts are those of Linux")
@pytest.mark.parametrize("parametrization", ["lora", "frame"])
def test_memory_is_what_a_real_process_takes(llama_base: Base, tmp_path: Path, parametrization: str) -> None:
    import transformers as hf

    sizes = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6, "vocab_size": 4096}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512}
    with quiet_transformers():
        hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads)).save_pretrained(tmp_path)
    for path in llama_base.path.glob("tokenizer*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shape = (parametrization, 32, 128, 16)
    assert predicted(tmp_path, *shape)[1] == pytest.approx(measured(tmp_path, *shape)[1], rel=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [("lora", 12, 64, 8), ("frame", 4, 256, 255)])
def test_memory_of_smollm2(shape: tuple[str, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ICMLORA_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name)
    folder = pull("smollm2-135m", Home.from_environment()).path
    (weights, steps), (real_weights, real_steps) = predicted(folder, *shape), measured(folder, *shape)
    assert weights == pytest.approx(real_weights, rel=CLOSE)
    assert steps == pytest.approx(real_steps, rel=CLOSE)
