"""Task vectors: hidden states of the frozen base while it sees a task.

A task vector here is the *condition* of the generator, as in the paper (ICM-LoRA, arXiv 2501.17635, section 3.2). It
is not the weight difference that "task arithmetic" calls by the same name.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from icmlora_cli.config.recipes import VectorRecipe
from icmlora_cli.errors import UsageFault
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import text_ids
from icmlora_cli.registry import files
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.home import Home

MAX_TEXT = 2000
MAX_PASSAGES = 512  # tokens of passages in one prompt, each with an equal share: a page tells what kind of text it is
VERSION = 1  # of the prompts below; part of the cache's key


def checked_text(text: str) -> str:
    """Return a task's text, trimmed.

    Raises:
        UsageFault: if it is empty or longer than 2,000 characters.
    """
    stripped = " ".join(text.split())
    if not stripped:
        raise UsageFault(
            "the task text is empty", hint='say what the adapter should do: icmlora gen "Give the antonym."'
        )
    if len(stripped) > MAX_TEXT:
        raise UsageFault(
            f"the task text has {len(stripped):,} characters; at most {MAX_TEXT:,} are read",
            hint="say the task in a sentence or two",
        )
    return stripped


@dataclass(frozen=True)
class VectorReader:
    """Reads task vectors, each once: they are cached by base, prompt and settings.

    Args:
        loaded: the frozen base.
        recipe: layer, shots and draws.
        home: where the cache is.
    """

    loaded: LoadedBase
    recipe: VectorRecipe
    home: Home

    @property
    def layer(self) -> int:
        """The index of the hidden state that is read (0 are the embeddings)."""
        depth = int(self.loaded.model.config.get_text_config().num_hidden_layers)
        return max(1, min(depth, round(self.recipe.layer * depth)))

    @property
    def size(self) -> int:
        """The number of values in a vector: the base's hidden size."""
        return int(self.loaded.model.config.get_text_config().hidden_size)

    def text(self, description: str) -> torch.Tensor:
        """Return the vector of a description: mean over its prompt's tokens, fp32 [hidden].

        Raises:
            UsageFault: if the text is empty or too long.
        """
        return self._read(f"Task: {checked_text(description)}\nQ:", pooling="mean")

    def fresh_text(self, description: str) -> torch.Tensor:
        """Return what ``text`` does, computed anew: for timing it."""
        return self._compute(f"Task: {checked_text(description)}\nQ:", pooling="mean")

    def demonstrations(self, examples: Sequence[Example], query: str) -> torch.Tensor:
        """Return the vector of k examples and an open question: the last token's state, fp32 [hidden]."""
        shown = "".join(f"Q: {item.input}\nA: {item.output}\n" for item in examples)
        return self._read(f"{shown}Q: {query}\nA:", pooling="last")

    def passages(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vector of passages of plain text: mean over their tokens, fp32 [hidden].

        Each is cut so that all fit into 512 tokens, or into as many as the base reads.
        """
        room = min(MAX_PASSAGES, max_tokens(self.loaded))
        share = max(1, room // len(texts) - 3)  # the rest is for the empty lines between, and a special token
        return self._read("\n\n".join(self._start(text, share) for text in texts), pooling="mean")

    def _start(self, text: str, tokens: int) -> str:
        tokenizer = self.loaded.tokenizer
        ids = text_ids(tokenizer, text)
        if len(ids) <= tokens:
            return text
        start = tokenizer.decode(ids[:tokens], clean_up_tokenization_spaces=False)
        return str(start).rstrip("\ufffd")  # half of a character

    def draws(self, examples: Sequence[Example], *, seed: int, kind: str = "plain") -> torch.Tensor:
        """Return vectors of several random draws of demonstrations, fp32 [draws, hidden].

        Args:
            examples: what is drawn from.
            seed: of the draws.
            kind: of the task's template; the examples of ``text`` are passages.
        """
        picker = random.Random(seed)
        rows: list[torch.Tensor] = []
        for _ in range(self.recipe.draws):
            if kind == "text":
                chosen = picker.sample(list(examples), min(self.recipe.shots, len(examples)))
                rows.append(self.passages([item.output for item in chosen]))
                continue
            chosen = picker.sample(list(examples), min(self.recipe.shots + 1, len(examples)))
            rows.append(self.demonstrations(chosen[:-1], chosen[-1].input))
        return torch.stack(rows)

    def _read(self, prompt: str, *, pooling: str) -> torch.Tensor:
        identity = [VERSION, self.loaded.base.weight_hash, str(self.loaded.dtype), self.layer, pooling, prompt]
        key = files.sha256_json(identity)
        path = self.home.vectors / key[:2] / f"{key}.safetensors"
        if path.is_file():
            try:
                return load_file(path)["vector"]
            except (SafetensorError, KeyError):
                path.unlink()
        vector = self._compute(prompt, pooling)
        files.write_with(path, lambda temporary: save_file({"vector": vector}, temporary))
        return vector

    def _compute(self, prompt: str, pooling: str) -> torch.Tensor:
        ids = self.loaded.tokenizer(prompt, return_tensors="pt").input_ids.to(self.loaded.device)
        with torch.inference_mode():
            states = self.loaded.model(
                input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=1
            ).hidden_states
        hidden = states[self.layer][0].float()  # (tokens, hidden)
        vector: torch.Tensor = hidden.mean(0) if pooling == "mean" else hidden[-1]
        return vector.cpu().clone()
