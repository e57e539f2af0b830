"""A registered task: what its manifest says, and its examples."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError
from icmlora_cli.manifests.task import TaskManifest, TemplateText
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import Part
from icmlora_cli.tasks.task_file import Template, TemplateSpec

MANIFEST = "task.json"
EXAMPLES = "examples.jsonl"

_PLACE = re.compile(r"\{(description|input|output)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """How a task writes an example.

    Args:
        kind: ``plain`` prompt and answer; ``chat``: the prompt is a user's message in the base's own chat template;
            or ``text``: no prompt, all of a passage is scored and learned.
        prompt: holds ``{input}``, and may hold ``{description}``; of ``text``, nothing.
        answer: holds ``{output}``; this is what is scored and learned.
    """

    kind: Literal["plain", "chat", "text"]
    prompt: str
    answer: str

    @classmethod
    def from_spec(cls, template: Template) -> "PromptTemplate":
        """Return what a task file's ``template`` stands for."""
        if isinstance(template, TemplateSpec):
            return cls("plain", template.prompt, template.answer)
        return _WORDS[template]

    def to_spec(self) -> str | dict[str, str]:
        """Return the ``template`` of a task file that stands for this."""
        words = [word for word, template in _WORDS.items() if template == self]
        return words[0] if words else {"prompt": self.prompt, "answer": self.answer}

    def split_by(self, example: Example) -> str:
        """Return what decides which part of the task an example is in: its input, or the passage of plain text."""
        return example.output if self.kind == "text" else example.input

    def render(self, example: Example, *, description: str | None = None) -> tuple[str, str]:
        """Return the prompt and the answer of an example, before any chat template.

        Args:
            example: what to write.
            description: put in its place, or else on a line before the prompt; None leaves it out.
        """
        values = {"description": description or "", "input": example.input, "output": example.output}
        prompt = self.prompt
        if description and "{description}" not in prompt:
            prompt = "{description}\n" + prompt
        return _filled(prompt, values, "output"), _filled(self.answer, values, "input")


QA = PromptTemplate("plain", "Q: {input}\nA:", " {output}\n")
CHAT = PromptTemplate("chat", "{input}", "{output}")
TEXT = PromptTemplate("text", "", "{output}")
_WORDS: Mapping[str, PromptTemplate] = {"qa": QA, "chat": CHAT, "text": TEXT}


def _filled(text: str, values: Mapping[str, str], untouched: str) -> str:
    # one pass: braces within a value are that value's own
    return _PLACE.sub(lambda match: match[0] if match[1] == untouched else values[match[1]], text)


def data_hash(rows: Sequence[Mapping[str, object]], template: PromptTemplate, descriptions: Sequence[str]) -> str:
    """Return the SHA-256 of all that a task's adapter is trained on: the rows, and what is written around them.

    Args:
        rows: input, output and part of each example.
        template: how an example is written.
        descriptions: the first of them counts where the template writes it into every prompt.
    """
    told = [descriptions[0]] if "{description}" in template.prompt else []
    return files.sha256_json([rows, vars(template), *told])


@dataclass(frozen=True)
class Task:
    """A registered task.

    Args:
        name: unique in the registry.
        descriptions: the task in words, the main one first.
        template: how examples are written.
        metric: ``exact_match`` or ``nll``; of plain text, ``bits_per_character`` or ``perplexity``.
        split: ``train``, or ``unseen``: kept out of the generator's training.
        licence: of the examples, if known.
        source: where the examples come from, if known.
        family: a group of related tasks, if any.
        data_hash: of the examples (in any order), their parts and the template; not of the descriptions.
        counts: examples in each part.
        folder: where the task is.
        splits: shares of the parts ``validation`` and ``test``.
        examples_sha256: of the file with the examples.
    """

    name: str
    descriptions: tuple[str, ...]
    template: PromptTemplate
    metric: str
    split: Literal["train", "unseen"]
    licence: str | None
    source: str | None
    family: str | None
    data_hash: str
    counts: Mapping[str, int] = field(hash=False)
    folder: Path
    splits: Mapping[str, float] = field(hash=False)
    examples_sha256: str

    @property
    def has_examples(self) -> bool:
        """Whether there is anything to train on or to score: not so where an imported adapter was described."""
        return any(self.counts.values())

    def examples(self, part: Part) -> tuple[Example, ...]:
        """Return the examples of one part, in an order that only their content decides.

        Raises:
            CorruptFileError: If the examples are missing, or are not those that were registered.
        """
        path = self.folder / EXAMPLES
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise _corrupt(path, self.name, "its examples are missing") from None
        if hashlib.sha256(data).hexdigest() != self.examples_sha256:
            raise _corrupt(path, self.name, "its examples are not those that were registered")
        rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line]
        return tuple(Example(row["input"], row["output"]) for row in rows if row["part"] == part)

    def read_as(self) -> tuple[str | None, tuple[str, ...]]:
        """Return the rule by which rows became examples, and the columns that no example holds.

        The rule is None where that is not known: a built-in task, or one whose examples are in its task file.

        Raises:
            CorruptFileError: If ``task.json`` is broken.
        """
        made = TaskManifest.read(self.folder / MANIFEST).made
        held = made.examples if made is not None else None
        return (None, ()) if held is None else (held.rule, held.not_read)

    def to_manifest(self) -> TaskManifest:
        """Return what ``task.json`` holds, but for when and how it was made."""
        return TaskManifest(
            schema="icmlora.task/1",
            name=self.name,
            descriptions=self.descriptions,
            template=TemplateText(**vars(self.template)),
            metric=self.metric,
            split=self.split,
            splits=self.splits,
            licence=self.licence,
            source=self.source,
            family=self.family,
            data_hash=self.data_hash,
            counts=self.counts,
            examples_sha256=self.examples_sha256,
        )

    @classmethod
    def read(cls, folder: Path, name: str | None = None) -> "Task":
        """Return the task of a folder; its examples are not looked at.

        Args:
            folder: where it is.
            name: the task's, where the folder has another one for a while.

        Raises:
            FileNotFoundError: If there is no manifest.
            CorruptFileError: If the manifest is broken, or is another task's.
        """
        path, name = folder / MANIFEST, name or folder.name
        try:
            held = TaskManifest.read(path)
        except CorruptFileError as error:
            raise _corrupt(path, name, error.message) from error
        if held.name != name:
            raise _corrupt(path, name, f"its manifest is that of {held.name[:120]!r}")
        template = PromptTemplate(held.template.kind, held.template.prompt, held.template.answer)
        return cls(
            name=name,
            descriptions=held.descriptions,
            template=template,
            metric=held.metric,
            split=held.split,
            licence=held.licence,
            source=held.source,
            family=held.family,
            data_hash=held.data_hash,
            counts=held.counts,
            folder=folder,
            splits=held.splits,
            examples_sha256=held.examples_sha256,
        )


def _corrupt(path: Path, name: str, what: str) -> CorruptFileError:
    return CorruptFileError(
        f"task {name!r} is damaged: {what}",
        where=str(path),
        hint=f"add it again with --force, or remove it: icmlora task remove {name} --yes",
    )
