"""A process that trains two steps on a base and prints the most bytes that its memory rose by, as the kernel counts.

Arguments: the base's folder, the parametrization, rows, tokens, tokens of the answer. It prints the bytes that loading
took and those that the steps took beyond. The C library must give freed memory back (MALLOC_MMAP_THRESHOLD_).
"""

import re
import sys
from pathlib import Path

import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.lm.batching import IGNORED, TokenBatch, answer_log_probs
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.optimise import adamw, take_step
from icmlora_cli.lm.trainers import make_trainer
from icmlora_cli.registry.bases import Base


def memory(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main(folder: str, parametrization: str, rows: int, tokens: int, answer: int) -> None:
    import peft  # noqa: F401 - what is imported later is not the base's memory
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    base = Base("measured", "measured", None, Path(folder), "", "folder", None, 0, "")
    before = memory("VmRSS")
    loaded = load_base(base, device="cpu")
    for item in loaded.model.parameters():
        item.sum()  # a file that is mapped into memory counts when it is read
    after = memory("VmRSS")
    trainer = make_trainer(loaded, HarvestRecipe.model_validate({"parametrization": parametrization, "rank": 8}))
    trainer.reset()
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % 300
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    batch = TokenBatch(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), ids[:, -answer:].clone())
    optimizer = adamw(trainer)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
    start = memory("VmRSS")
    for step in range(2):
        log_probs, _ = answer_log_probs(trainer.model, batch)
        loss = -log_probs.sum() / (batch.labels != IGNORED).sum()
        take_step(loss, optimizer, trainer.recipe, step)
    print(after - before, memory("VmHWM") - start)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
