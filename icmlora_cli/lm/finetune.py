"""Training one LoRA with PEFT on the frozen base; stopped at any step, it goes on where it was."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from icmlora_cli.config.recipes import HarvestRecipe
from icmlora_cli.errors import TrainingDiverged
from icmlora_cli.lm.batching import IGNORED, answer_log_probs, collate, training_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.targets import target_modules
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.training_state import load_state, save_state


@dataclass
class LoraTrainer:
    """The base with one LoRA on it, which is set anew for each task.

    Args:
        loaded: the frozen base.
        recipe: how to train.
    """

    loaded: LoadedBase
    recipe: HarvestRecipe
    peft_model: PeftModel = field(init=False)
    parameters: dict[str, torch.nn.Parameter] = field(init=False)
    fan_in_fan_out: bool = field(init=False)

    def __post_init__(self) -> None:
        endings = target_modules(self.loaded.model, self.recipe.target_modules)
        leaves = {name.rsplit(".", 1)[-1]: type(module).__name__ for name, module in self.loaded.model.named_modules()}
        self.fan_in_fan_out = any(leaves.get(ending.rsplit(".", 1)[-1]) == "Conv1D" for ending in endings)
        config = LoraConfig(
            r=self.recipe.rank,
            lora_alpha=self.recipe.alpha,
            target_modules=list(endings),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            fan_in_fan_out=self.fan_in_fan_out,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what PEFT still calls in transformers
            self.peft_model = get_peft_model(self.loaded.model, config)
        named = self.peft_model.named_parameters()
        self.parameters = {name: item for name, item in named if item.requires_grad}

    def close(self) -> None:
        """Take the LoRA off, which leaves the base as it was."""
        self.peft_model.unload()

    def reset(self) -> None:
        """Set lora_A to the values that the recipe's seed gives for every task, and lora_B to zero."""
        for name, parameter in self.parameters.items():
            with torch.no_grad():
                if ".lora_B." in name:
                    parameter.zero_()
                    continue
                digest = hashlib.sha256(f"{self.recipe.seed}:{name}".encode()).digest()
                source = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
                bound = 1.0 / math.sqrt(parameter.shape[1])  # as PEFT's kaiming_uniform_(a=sqrt(5))
                values = torch.rand(parameter.shape, generator=source) * 2 * bound - bound
                parameter.copy_(values)

    def adapter(self) -> Adapter:
        """Return a copy of the LoRA as it is now, fp32 on the CPU."""
        factors: dict[str, Factors] = {}
        for name, lora_A in self.parameters.items():
            if ".lora_A." in name:
                module = name.removeprefix("base_model.model.").split(".lora_A.")[0]
                lora_B = self.parameters[name.replace(".lora_A.", ".lora_B.")]
                factors[module] = Factors(_copy(lora_A), _copy(lora_B))
        return Adapter(self.loaded.base.model_id, self.recipe.alpha, factors, fan_in_fan_out=self.fan_in_fan_out)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().cpu().clone()


def learning_rate(step: int, recipe: HarvestRecipe) -> float:
    """Return the one-cycle rate of a step: a cosine from 1/25 of the peak up to it, then a cosine down to zero."""
    rising = max(1, round(recipe.warmup * recipe.steps))
    if step < rising:
        share, low = (step + 1) / rising, recipe.learning_rate / 25
        return low + (recipe.learning_rate - low) * 0.5 * (1 - math.cos(math.pi * share))
    share = (step + 1 - rising) / max(1, recipe.steps - rising)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def kept_steps(recipe: HarvestRecipe) -> tuple[int, ...]:
    """Return after how many steps a checkpoint is kept; the last is ``recipe.steps``."""
    steps = [recipe.steps - index * recipe.keep_every for index in range(recipe.keep)]
    return tuple(sorted(step for step in steps if step > 0))


def finetune(
    trainer: LoraTrainer,
    rows: Sequence[Encoded],
    *,
    state: Path,
    identity: str,
    on_step: Callable[[int, float], None],
    on_checkpoint: Callable[[int, Adapter], None],
) -> float:
    """Train the LoRA on one task, from its saved state where there is one.

    Args:
        trainer: the base with its LoRA.
        rows: the task's training examples; the loss is on their answers only.
        state: where the training state is saved.
        identity: what the state must be of (task data, recipe, base); another's state is not used.
        on_step: told the steps done and the step's loss, nats per answer token.
        on_checkpoint: given each checkpoint that is to be kept.

    Returns:
        The last step's loss.

    Raises:
        TrainingDiverged: if the loss is not finite.
    """
    recipe, loaded = trainer.recipe, trainer.loaded
    trainer.reset()
    parameters = list(trainer.parameters.values())
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    resumed = load_state(state, trainer.parameters, optimizer, identity=identity)
    plan = training_batches(
        [row.length for row in rows], batch_size=recipe.batch_size, steps=recipe.steps, seed=recipe.seed
    )
    loss_value = math.nan
    for step in range(resumed.step if resumed else 0, recipe.steps):
        batch = collate([rows[index] for index in plan[step]], loaded.tokenizer.pad_token_id, loaded.device)
        log_probs, _ = answer_log_probs(trainer.peft_model, batch)
        loss = -log_probs.sum() / (batch.labels != IGNORED).sum()
        loss_value = float(loss.detach())
        if not math.isfinite(loss_value):
            raise TrainingDiverged(
                f"the loss is {loss_value} at step {step + 1}", hint="lower learning_rate in the harvest recipe"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        optimizer.step()
        on_step(step + 1, loss_value)
        if step + 1 in kept_steps(recipe):
            on_checkpoint(step + 1, trainer.adapter())
        if (step + 1) % recipe.save_every == 0 and step + 1 < recipe.steps:
            save_state(state, trainer.parameters, optimizer, step=step + 1, identity=identity)
    return loss_value
