"""Two LoRAs that PEFT and a plain training loop made, beside harvested ones: what a generator keeps of their effect."""

import json
import os
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.workflows.adapters.import_adapters import ImportRequest, run
from icmlora_cli.workflows.base.pull import pull
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.train import train

FOREIGN = {"pick_last_of_3": 2, "sentiment_word": 16}  # task to rank
HARVESTED = ("pick_first_of_3", "capitalize_word")


def fine_tune(task: Task, base: Base, rank: int, folder: Path, steps: int = 60) -> None:
    """Train a LoRA by PEFT alone, with an init, scaling, modules and loss mask of its own, and save it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1000 + rank)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=4 * rank, use_rslora=rank > 8, init_lora_weights="gaussian",
        target_modules=["q_proj", "v_proj"] if rank < 8 else ["q_proj", "k_proj", "v_proj", "o_proj"],
    )  # fmt: skip
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32), config)
    parameters = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3 if rank < 8 else 5e-4)
    examples = task.examples("train")
    order = torch.randperm(len(examples)).repeat(1 + steps * 12 // len(examples))
    for step in range(steps):
        rows = []
        for index in order[step * 12 : (step + 1) * 12].tolist():
            prompt = tokenizer(f"Q: {examples[index].input}\nA:").input_ids
            answer = tokenizer(f" {examples[index].output}\n").input_ids
            rows.append((prompt + answer, [-100] * len(prompt) + answer))
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
        labels = torch.tensor([own + [-100] * (longest - len(own)) for _, own in rows])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    model.save_pretrained(folder)


@pytest.mark.slow
def test_foreign_adapters_keep_their_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ICMLORA_TEST_CACHE" in os.environ:  # where SmolLM2 is already
        monkeypatch.setenv("ICMLORA_CACHE", os.environ["ICMLORA_TEST_CACHE"])
    else:
        monkeypatch.delenv("HF_HUB_OFFLINE")
    home = Home.from_environment()
    base = pull("smollm2-135m", home)
    store = TaskStore(home)
    tasks = {name: store.add_builtin(name) for name in (*HARVESTED, *FOREIGN)}
    harvest.run(
        [tasks[name] for name in HARVESTED], base, resolve(HarvestRecipe, Path("harvest/demo"), "harvest", {}), home
    )
    for name, rank in FOREIGN.items():
        fine_tune(tasks[name], base, rank, tmp_path / name)
        written = json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8"))
        assert written["r"] == rank and written["lora_alpha"] == 4 * rank
        run(ImportRequest(str(tmp_path / name), task=name, any_base_name=True), base, home)
    trained = train.run(list(tasks.values()), base, resolve(TrainRecipe, Path("train/default"), "train", {}), home)
    recipe = EvalRecipe(methods=("base", "generated", "harvested"), limit=100)
    result = evaluate.run([tasks[name] for name in FOREIGN], base, EvalRequest(recipe, trained.folder), home).result
    for name, rank in FOREIGN.items():
        before, after, kept = (
            result.score(name, method).figures["exact_match"].value for method in ("base", "harvested", "generated")
        )
        share = (kept - before) / (after - before)
        print(f"{name}, rank {rank}: base {before:.2f}, imported {after:.2f}, generated {kept:.2f}, kept {share:.2f}")
        assert after > before + 0.5  # the foreign adapter does something
        assert share >= 0.9
