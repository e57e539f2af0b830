"""Task vectors: hidden states of the frozen base while it sees a task.

A task vector here is the *condition* of the generator, as in the paper (ICM-LoRA, arXiv 2501.17635, section 3.2). It
is not the weight difference that "task arithmetic" calls by the same name.

The states are those of ``lm.families``. Of an encoder-decoder base a description's are the encoder's at its tokens;
those of examples with an open question are the decoder's at its start, from which the answer would come. An example
with an image is read alone, with its answer, at the last position: of an encoder-decoder base, of the decoder's.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import scoring_batches
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.prompts import Encoded, ids_after, open_ids, text_ids
from icmlora_cli.lm.tensor_cache import cached, keep
from icmlora_cli.tasks.examples import Example, have_pictures
from icmlora_cli.tasks.task_text import checked_text

MAX_PASSAGES = 512  # tokens of passages in one prompt, each with an equal share: a page tells what kind of text it is
READ_AT_ONCE = 16  # prompts
LARGEST = 65504.0  # of fp16, in which states are kept
MAX_EXAMPLE_TOKENS = 1024
VERSION = 2  # of the prompts below and of the cached files; part of the cache's key


def _shown(examples: Sequence[Example]) -> str:
    return "".join(f"Q: {item.input}\nA: {item.output}\n" for item in examples)


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt that is read token by token.

    Args:
        ids: The token ids of the prompt.
        kept: positions of those whose states are kept.
    """

    ids: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class VectorReader:
    """Reads task vectors, each once: they are cached by base, prompt and settings.

    Args:
        loaded: the frozen base.
        recipe: layer, shots and draws.
        home: where the cache is. A cache that is damaged or cannot be written is no error: what it lacks is read
            again.
        on_note: Called with a remark for the user where a cached file is damaged.
    """

    loaded: LoadedBase
    recipe: VectorRecipe
    home: Home
    on_note: Callable[[str], None] = lambda note: None

    @property
    def layer(self) -> object:
        """Which states are read: of a decoder alone the index of its layer (0 are the embeddings)."""
        return self.loaded.family.place(self.recipe.layer)

    @property
    def size(self) -> int:
        """The number of values in a vector: the base's hidden size."""
        return int(self.loaded.model.config.get_text_config().hidden_size)

    def text(self, description: str) -> torch.Tensor:
        """Return the vector of a description: mean over its prompt's tokens, fp32 [hidden].

        Raises:
            UsageError: if the text is empty or too long.
        """
        return self._read(self.text_prompt(description), pooling="mean")

    def fresh_text(self, description: str) -> torch.Tensor:
        """Return what ``text`` does, computed anew: for timing it."""
        return self._compute(self._ids(self.text_prompt(description)), pooling="mean")

    def demonstrations(self, examples: Sequence[Example], query: str) -> torch.Tensor:
        """Return the vector of k examples and an open question: the last state, fp32 [hidden].

        It is that of the last token; where an encoder reads the prompt, that of the decoder at its start.
        """
        return self._read(f"{_shown(examples)}Q: {query}\nA:", pooling="last")

    def passages(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vector of passages of plain text: mean over their tokens, fp32 [hidden].

        Each is cut so that all fit into 512 tokens, or into as many as the base reads.
        """
        room = min(MAX_PASSAGES, max_tokens(self.loaded))
        share = max(1, room // len(texts) - 3)  # the rest is for the empty lines between, and a special token
        return self._read("\n\n".join(self._start(text, share) for text in texts), pooling="mean")

    def read_text(self, description: str, *, fresh: bool = False) -> torch.Tensor:
        """Return what a generator reads of a description, fp32 [T, hidden]: its vector, or all tokens' states.

        Args:
            description: the task in words.
            fresh: compute it anew: for timing it.

        Raises:
            UsageError: if the text is empty or too long.
        """
        if self.recipe.pooling == "mean":
            return (self.fresh_text(description) if fresh else self.text(description))[None]
        prompt = self.text_states(description)
        if fresh:
            return self._states([prompt.ids])[0].float().cpu()
        return self.read_all([prompt])[0].float()

    def read_examples(self, examples: Sequence[Example], kind: str = "plain") -> torch.Tensor:
        """Return what a generator reads of k examples, fp32 [T, hidden].

        With pooling it is their one vector (see ``examples_vector``), else the states of one prompt that shows them
        all, or of images one state each. Nothing but the k examples is looked at.

        Args:
            examples: two or more.
            kind: The kind of the task's template; the examples of ``text`` are passages, and are read together.
        """
        if have_pictures(examples):
            states = self.picture_states(examples)
            return states if self.recipe.pooling == "tokens" else states.mean(0, keepdim=True)
        if self.recipe.pooling == "tokens" and kind != "text":
            return self.read_all([self.examples_states(examples)])[0].float()
        return self.examples_vector(examples, kind)[None]

    def readings(
        self, text: str | None, examples: Sequence[Example] = (), kind: str = "plain"
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return what a generator reads of a text and of examples, each fp32 [T, hidden] or None.

        Args:
            text: the task in words, if any.
            examples: demonstrations, if any; one alone gives none.
            kind: The kind of the task's template, such as ``plain``.
        """
        words = None if text is None else self.read_text(text)
        return words, None if len(examples) < 2 else self.read_examples(examples, kind)

    def check_examples(self, examples: Sequence[Example], kind: str = "plain") -> None:
        """Check that ``read_examples`` can show all examples at once; passages, and what is read by tokens, are cut.

        Raises:
            UsageError: if they are too long for the base.
        """
        if not self.can_show(examples, kind):
            count, limit = len(text_ids(self.loaded.tokenizer, _shown(examples))), max_tokens(self.loaded)
            raise UsageError(
                f"the {len(examples)} examples have {count:,} tokens; the base reads {limit:,} at once",
                hint="show fewer or shorter examples",
            )

    def can_show(self, examples: Sequence[Example], kind: str = "plain") -> bool:
        """Return whether ``read_examples`` can show all examples at once; what is too long is cut where it can be."""
        if kind == "text" or self.recipe.pooling == "tokens" or have_pictures(examples):
            return True
        return len(text_ids(self.loaded.tokenizer, _shown(examples))) < max_tokens(self.loaded)

    def picture_states(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return a state for each example with an image: at the last position of its answer, fp32 [k, hidden].

        The base reads the image, the input and the answer; of an encoder-decoder it is the decoder's last position.

        Raises:
            UsageError: if the base reads no images, or an example is too long for it.
        """
        return torch.stack([self._picture_state(item) for item in examples])

    def _picture_state(self, example: Example) -> torch.Tensor:
        family, loaded = self.loaded.family, self.loaded
        row = family.row(example.input, example.output, example.picture)
        self._check_length(row.length)
        identity = [VERSION, loaded.base.weight_hash, str(loaded.dtype), self.layer, "image", row.content]
        key = files.sha256_json(identity)
        path = self.home.vectors / key[:2] / f"{key}.safetensors"
        if (found := cached(path, self.on_note)) is not None:
            return found["vector"]

        def read(_: int) -> torch.Tensor:
            return family.states([row], loaded.device, self.recipe.layer)[0][-1].float().cpu().clone()

        vector = loaded.micro_batch.whole("reading", 1, read)
        keep(path, {"vector": vector})
        return vector

    def examples_vector(self, examples: Sequence[Example], kind: str = "plain") -> torch.Tensor:
        """Return the vector of k examples, fp32 [hidden].

        As many vectors are read as there are examples, each with one of them as the open question and the others as
        demonstrations, and averaged. Examples with images are read one by one, with their answers, and averaged.

        Args:
            examples: two or more.
            kind: The kind of the task's template; the examples of ``text`` are passages, and are read together.
        """
        if kind == "text":
            return self.passages([example.output for example in examples])
        if have_pictures(examples):
            return self.picture_states(examples).mean(0)
        rows = [
            self.demonstrations([*examples[:index], *examples[index + 1 :]], example.input)
            for index, example in enumerate(examples)
        ]
        return torch.stack(rows).mean(0)

    def reading_draws(self, examples: Sequence[Example], *, seed: int, kind: str = "plain") -> list[torch.Tensor]:
        """Return readings of several random draws of demonstrations, fp32 [T, hidden] each, for training.

        Args:
            examples: what is drawn from.
            seed: The seed of the draws.
            kind: The kind of the task's template, such as ``plain``.
        """
        if self.recipe.pooling == "mean" or kind == "text":
            return [row[None] for row in self.draws(examples, seed=seed, kind=kind)]
        picker = random.Random(seed)
        count = min(self.recipe.shots, len(examples))
        return [self.read_examples(picker.sample(list(examples), count)) for _ in range(self.recipe.draws)]

    def text_prompt(self, description: str) -> str:
        """Return the prompt in which a description is read.

        Raises:
            UsageError: if the text is empty or too long.
        """
        return f"Task: {checked_text(description)}\nQ:"

    def text_states(self, description: str) -> "TokenPrompt":
        """Return what to read of a description, token by token: the states of all its prompt's tokens.

        Raises:
            UsageError: if the text is empty or too long.
        """
        ids = self.loaded.tokenizer(self.text_prompt(description)).input_ids
        return TokenPrompt(tuple(ids), tuple(range(len(ids))))

    def examples_states(self, examples: Sequence[Example]) -> "TokenPrompt":
        """Return what to read of k examples: the states from each ``A:`` to its answer's end, where the task shows.

        At most ``MAX_EXAMPLE_TOKENS`` are read, the last examples whole.
        """
        tokenizer = self.loaded.tokenizer
        ids, kept = list[int](), list[int]()
        before = ""
        for example in examples:
            question, answer = f"Q: {example.input}\nA:", f" {example.output}\n"
            ids += ids_after(tokenizer, before, question) if before else open_ids(tokenizer, question)
            answer_ids = ids_after(tokenizer, question, answer)
            kept += range(len(ids) - 1, len(ids) + len(answer_ids))
            ids += answer_ids
            before = answer
        closing = self.loaded.family.closing
        ids += closing
        cut = max(0, len(ids) - min(MAX_EXAMPLE_TOKENS, max_tokens(self.loaded)))
        return TokenPrompt(tuple(ids[cut:]), tuple(at - cut for at in kept if at >= cut))

    def question_state(self, examples: Sequence[Example]) -> "TokenPrompt":
        """Return what to read of k examples with pooling: the state at the last one's ``A:``, as an open question."""
        whole = self.examples_states(examples)
        last = examples[-1]
        answer = ids_after(self.loaded.tokenizer, f"Q: {last.input}\nA:", f" {last.output}\n")
        closing = self.loaded.family.closing
        ids = (*whole.ids[: len(whole.ids) - len(answer) - len(closing)], *closing)
        return TokenPrompt(ids, (self.loaded.family.last(ids),))

    def read_all(
        self, prompts: "Sequence[TokenPrompt]", *, on_batch: Callable[[int], None] | None = None
    ) -> list[torch.Tensor]:
        """Return the kept states of many prompts, fp16 [T, hidden] each, cached together.

        Args:
            prompts: from ``text_states`` and ``examples_states``.
            on_batch: told how many are done.
        """
        if not prompts:
            return []
        asked = [[item.ids, item.kept] for item in prompts]
        key = files.sha256_json([VERSION, self.loaded.base.weight_hash, str(self.loaded.dtype), self.layer, asked])
        path = self.home.vectors / "sets" / f"{key}.safetensors"
        if (found := cached(path, self.on_note)) is not None:
            return list(found["states"].split(found["lengths"].tolist()))
        out, done = [torch.empty(0)] * len(prompts), 0
        for indices in scoring_batches([len(item.ids) for item in prompts], batch_size=READ_AT_ONCE):
            for part, read in self.loaded.micro_batch.parts("reading", indices, partial(self._kept, prompts)):
                for index, states in zip(part, read, strict=True):
                    out[index] = states
                done += len(part)
                if on_batch is not None:
                    on_batch(done)
        keep(path, {"states": torch.cat(out), "lengths": torch.tensor([len(item) for item in out])})
        return out

    def _kept(self, prompts: "Sequence[TokenPrompt]", indices: Sequence[int]) -> list[torch.Tensor]:
        """Return the states of some prompts that are kept, fp16 [T, hidden] each, on the CPU."""
        read = self._states([prompts[index].ids for index in indices])
        return [
            states[list(prompts[index].kept)].clamp(-LARGEST, LARGEST).half().cpu()
            for index, states in zip(indices, read, strict=True)
        ]

    def _states(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the states of rows of token ids, [T, hidden] each."""
        family, loaded = self.loaded.family, self.loaded
        self._check_length(max(map(len, rows)))
        return family.states([Encoded(tuple(row), ()) for row in rows], loaded.device, self.recipe.layer)

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
            seed: The seed of the draws.
            kind: The kind of the task's template; the examples of ``text`` are passages.
        """
        picker = random.Random(seed)
        rows: list[torch.Tensor] = []
        for _ in range(self.recipe.draws):
            if kind == "text":
                chosen = picker.sample(list(examples), min(self.recipe.shots, len(examples)))
                rows.append(self.passages([item.output for item in chosen]))
                continue
            if have_pictures(examples):
                chosen = picker.sample(list(examples), min(self.recipe.shots, len(examples)))
                rows.append(self.picture_states(chosen).mean(0))
                continue
            chosen = picker.sample(list(examples), min(self.recipe.shots + 1, len(examples)))
            rows.append(self.demonstrations(chosen[:-1], chosen[-1].input))
        return torch.stack(rows)

    def _read(self, prompt: str, *, pooling: str) -> torch.Tensor:
        ids = self._ids(prompt)
        identity = [VERSION, self.loaded.base.weight_hash, str(self.loaded.dtype), self.layer, pooling, ids]
        key = files.sha256_json(identity)
        path = self.home.vectors / key[:2] / f"{key}.safetensors"
        if (found := cached(path, self.on_note)) is not None:
            return found["vector"]
        vector = self._compute(ids, pooling)
        keep(path, {"vector": vector})
        return vector

    def _ids(self, prompt: str) -> list[int]:
        ids: list[int] = self.loaded.tokenizer(prompt).input_ids
        return ids

    def _check_length(self, count: int) -> None:
        if count > (limit := max_tokens(self.loaded)):
            raise UsageError(
                f"what is to be read of a task has {count:,} tokens; the base reads {limit:,} at once",
                hint="give a shorter description, or fewer or shorter examples",
            )

    def _compute(self, ids: Sequence[int], pooling: str) -> torch.Tensor:
        self._check_length(len(ids))
        return self.loaded.micro_batch.whole("reading", 1, lambda _: self._vector(ids, pooling))

    def _vector(self, ids: Sequence[int], pooling: str) -> torch.Tensor:
        hidden = self._states([ids])[0].float()  # (tokens, hidden)
        vector: torch.Tensor = hidden[: len(ids)].mean(0) if pooling == "mean" else hidden[-1]
        return vector.cpu().clone()
