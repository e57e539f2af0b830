"""A registered task, as its manifest and its file of examples say it."""

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
from icmlora_cli.tasks.examples import Example, Picture
from icmlora_cli.tasks.splits import Part
from icmlora_cli.tasks.task_file import Template, TemplateSpec

MANIFEST = "task.json"
EXAMPLES = "examples.jsonl"
IMAGES = "images"  # the folder of the images, each called by the hash of its bytes
IMAGE_NAME = re.compile(r"[0-9a-f]{64}\.(png|jpg|webp|bmp)")

_PLACE = re.compile(r"\{(description|input|output)\}")


@dataclass(frozen=True)
class PromptTemplate:
    """How a task writes an example as a prompt and an answer.

    Args:
        kind: ``plain``, where prompt and answer are written one after the other; ``chat``, where the prompt is a user's
            message in the base model's own chat template; or ``text``, where there is no prompt and the whole passage
            is scored and learned.
        prompt: the pattern of the prompt, with ``{input}`` and perhaps ``{description}``; empty for ``text``.
        answer: the pattern of the answer, with ``{output}``; the answer is what is scored and learned.
    """

    kind: Literal["plain", "chat", "text"]
    prompt: str
    answer: str

    @classmethod
    def from_spec(cls, template: Template) -> "PromptTemplate":
        """Return the template that a task file's ``template`` names or describes."""
        if isinstance(template, TemplateSpec):
            return cls("plain", template.prompt, template.answer)
        return _WORDS[template]

    def to_spec(self) -> str | dict[str, str]:
        """Return the ``template`` of a task file that gives this template: its name, or its prompt and answer."""
        words = [word for word, template in _WORDS.items() if template == self]
        return words[0] if words else {"prompt": self.prompt, "answer": self.answer}

    def split_by(self, example: Example) -> str:
        """Return the text whose hash decides an example's part: its input, or the passage if it is plain text.

        Of an example with an image it is the image's hash, so that one image is in the same part of every task.
        """
        if example.picture is not None:
            return example.picture.sha256
        return example.output if self.kind == "text" else example.input

    def render(self, example: Example, *, description: str | None = None) -> tuple[str, str]:
        """Return the prompt and the answer of an example, before any chat template.

        Args:
            example: the example.
            description: the task in words; it replaces ``{description}``, or comes on a line before the prompt if the
                template has no such place. None leaves it out.
        """
        values = {"description": description or "", "input": example.input, "output": example.output}
        prompt = self.prompt
        if description and "{description}" not in prompt:
            prompt = "{description}\n" + prompt
        return _filled(prompt, values, "output"), _filled(self.answer, values, "input")


QA = PromptTemplate("plain", "Q: {input}\nA:", " {output}\n")
CHAT = PromptTemplate("chat", "{input}", "{output}")
TEXT = PromptTemplate("text", "", "{output}")
IMAGE = PromptTemplate("plain", "{input}", "{output}")
_WORDS: Mapping[str, PromptTemplate] = {"qa": QA, "chat": CHAT, "text": TEXT, "image": IMAGE}


def _filled(text: str, values: Mapping[str, str], untouched: str) -> str:
    # All fields are filled in one pass, so that braces within a value are not taken for fields.
    return _PLACE.sub(lambda match: match[0] if match[1] == untouched else values[match[1]], text)


def data_hash(rows: Sequence[Mapping[str, object]], template: PromptTemplate, descriptions: Sequence[str]) -> str:
    """Return the SHA-256 of everything that a task's adapter is trained on.

    Args:
        rows: the input, output and part of each example.
        template: how an example is written.
        descriptions: the task in words; the first one counts if the template writes it into every prompt.
    """
    trained_on = [descriptions[0]] if "{description}" in template.prompt else []
    return files.sha256_json([rows, vars(template), *trained_on])


@dataclass(frozen=True)
class Task:
    """A registered task.

    Args:
        name: the task's name, which is unique in the registry.
        descriptions: the task in words, in one or more ways, the main one first.
        template: how examples are written.
        metric: the metric that scores it, such as ``exact_match`` or ``nll``; for plain text, ``bits_per_character`` or
            ``perplexity``.
        split: ``train``, or ``unseen`` if the task is kept out of the generator's training.
        licence: the licence of the examples; None if it is not known.
        source: where the examples come from; None if it is not known.
        family: the name of the group of related tasks that it belongs to; None if there is none.
        data_hash: the hash of what its adapter is trained on, whatever the order of the examples; see ``data_hash``.
        counts: the number of examples in each part.
        folder: the folder that the task is in.
        splits: the shares of the parts ``validation`` and ``test``.
        examples_sha256: the hex SHA-256 of the file with the examples.
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
        """Whether it has examples; a task that only describes an imported adapter has none."""
        return any(self.counts.values())

    def examples(self, part: Part) -> tuple[Example, ...]:
        """Return the examples of one part, in an order that depends only on their content.

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
        return tuple(self._example(row) for row in rows if row["part"] == part)

    def _example(self, row: Mapping[str, str]) -> Example:
        name = row.get("image")
        if name is None:
            return Example(row["input"], row["output"])
        path = self.folder / IMAGES / name
        return Example(row["input"], row["output"], picture=Picture(path.stem, path.suffix, path))

    def read_as(self) -> tuple[str | None, tuple[str, ...]]:
        """Return the rule by which rows became examples, and the columns that no example holds.

        The rule is None for a built-in task, and for a task whose examples are in its task file.

        Raises:
            CorruptFileError: If ``task.json`` is broken.
        """
        made = TaskManifest.read(self.folder / MANIFEST).made
        read_as = made.examples if made is not None else None
        return (None, ()) if read_as is None else (read_as.rule, read_as.not_read)

    def to_manifest(self) -> TaskManifest:
        """Return what ``task.json`` holds, without when and how the task was added."""
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
        """Read a task's manifest; its examples are not read.

        Args:
            folder: the folder that the task is in.
            name: the task's name, if the folder has another one while it is moved; None takes the folder's name.

        Raises:
            FileNotFoundError: If there is no manifest.
            CorruptFileError: If the manifest is broken, or is that of another task.
        """
        path, name = folder / MANIFEST, name or folder.name
        try:
            manifest = TaskManifest.read(path)
        except CorruptFileError as error:
            raise _corrupt(path, name, error.message) from error
        if manifest.name != name:
            raise _corrupt(path, name, f"its manifest is that of {manifest.name[:120]!r}")
        template = PromptTemplate(manifest.template.kind, manifest.template.prompt, manifest.template.answer)
        return cls(
            name=name,
            descriptions=manifest.descriptions,
            template=template,
            metric=manifest.metric,
            split=manifest.split,
            licence=manifest.licence,
            source=manifest.source,
            family=manifest.family,
            data_hash=manifest.data_hash,
            counts=manifest.counts,
            folder=folder,
            splits=manifest.splits,
            examples_sha256=manifest.examples_sha256,
        )


def _corrupt(path: Path, name: str, what: str) -> CorruptFileError:
    return CorruptFileError(
        f"task {name!r} is damaged: {what}",
        where=str(path),
        hint=f"add it again with --force, or remove it: icmlora task remove {name} --yes",
    )
