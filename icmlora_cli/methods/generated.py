"""Methods that a generator makes: from the text, from text and examples, from the wrong text, the best of K samples."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import spread

WORDS = (
    "anchor apple autumn barrel basket battery blanket bottle bridge bucket butter button candle canvas carpet castle "
    "ceiling cellar chimney circle cloud copper corner cotton cradle curtain desert dinner drawer engine feather fence "
    "finger forest garden glacier hammer harbour helmet hollow island jacket kettle kitchen ladder lantern leather "
    "lemon marble meadow mirror mountain needle orchard oxygen pebble pencil pepper pillow planet pocket puzzle rabbit "
    "ribbon saddle shadow shelter silver spider sponge stable statue summer temple thunder ticket timber tunnel valley "
    "velvet village violin walnut whisper window winter yellow"
).split()


def generate_adapter(
    generator: Generator,
    reader: VectorReader,
    text: str | None,
    examples: Sequence[Example] = (),
    *,
    kind: str = "plain",
    seed: int | None = None,
) -> Adapter:
    """Return the adapter of a task text and, where given, of demonstrations.

    Args:
        generator: a trained generator.
        reader: reads task vectors from the generator's base.
        text: the task in words; None leaves the slot empty.
        examples: two or more demonstrations, or none.
        kind: of their template.
        seed: of z; None takes the prior's mean.
    """
    return generator.generate(*reader.readings(text, examples, kind), seed=seed)


@dataclass(frozen=True)
class GeneratorSource:
    """A generator with its reader.

    Args:
        generator: the networks.
        reader: reads task vectors as the generator was trained with.
        key: what makes the generator what it is, for identities.
    """

    generator: Generator
    reader: VectorReader
    key: str

    def make(self, text: str | None, examples: Sequence[Example] = (), *, kind: str = "plain") -> Adapter:
        """Return the adapter of a text and of examples, written by a template of a kind."""
        return generate_adapter(self.generator, self.reader, text, examples, kind=kind)

    def seconds(self, context: TaskContext) -> float:
        """Return the wall time of generating the task's adapter from its text, read anew rather than from the cache."""
        started = time.monotonic()
        self.generator.generate(self.reader.read_text(context.text, fresh=True), None)
        return time.monotonic() - started


TextOf = Callable[[TaskContext], str]
"""Chooses the text that a method is told, rightly or, for the controls, wrongly."""


def right_text(context: TaskContext) -> str:
    """Return the task's own description."""
    return context.text


def random_text(context: TaskContext) -> str:
    """Return eight words drawn at random, the same ones for a task each time."""
    digest = hashlib.sha256(f"random text of {context.task.name}".encode()).digest()
    return " ".join(random.Random(digest).sample(WORDS, 8)).capitalize() + "."


@dataclass(frozen=True)
class GeneratedMethod:
    """The adapter that a generator makes, z at the prior's mean.

    Args:
        source: the generator.
        name: of the method.
        title: of the method.
        text_of: the text that it is told.
        with_shots: it sees the k examples too.
        uses: what it knows of the task.
    """

    source: GeneratorSource
    name: str = "generated"
    title: str = "generated from the description"
    text_of: TextOf = right_text
    with_shots: bool = False
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the generator and the text."""
        return [self.source.key, self.text_of(context), self.with_shots]

    def serve(self, context: TaskContext) -> Served:
        """Return the generated adapter, and the text where it is not the task's own.

        Raises:
            UnavailableError: if it should see examples and there are fewer than two.
        """
        if self.with_shots and len(context.shots) < 2:
            raise UnavailableError("the task has fewer than two training examples to show")
        text, shots = self.text_of(context), context.shots if self.with_shots else ()
        adapter = self.source.make(text, shots, kind=context.task.template.kind)
        return Served(adapter, about={} if text == context.text else {"text": text})


@dataclass(frozen=True)
class CompanionMethod:
    """The adapter of another generator that learned from the same harvest: the paper's Conv1d CVAE, COND P-DIFF.

    Args:
        load: returns that generator, once it is trained; raises UnavailableError where there is none.
        key: what makes it what it is, the harvest and its recipe, and whose harvest it should be.
        name: of the method.
        title: of the method.
    """

    load: Callable[[], GeneratorSource]
    key: object
    name: str
    title: str
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the generator and the text."""
        return [self.key, context.text]

    def serve(self, context: TaskContext) -> Served:
        """Return the adapter that it generates from the description.

        Raises:
            UnavailableError: if that generator is not there.
        """
        return Served(self.load().make(context.text))


Judge = Callable[[TaskContext, Adapter], float]
"""Scores an adapter on the context's shots: mean NLL of the answers in nats per token, lower is better."""


@dataclass(frozen=True)
class BestOfMethod:
    """The best of K adapters on the k examples: the prior's mean and K - 1 draws of z, from text and examples.

    Args:
        source: the generator.
        judge: scores a candidate on the examples.
        samples: K.
        seed: of the first draw; the others follow.
    """

    source: GeneratorSource
    judge: Judge
    samples: int
    seed: int
    name: str = "best-of"
    uses: Uses = "text and examples"

    @property
    def title(self) -> str:
        """A few words for people."""
        return f"best of {self.samples} samples on the examples"

    def identity(self, context: TaskContext) -> object:
        """Return the generator, the text, K and the seed."""
        return [self.source.key, context.text, self.samples, self.seed]

    def serve(self, context: TaskContext) -> Served:
        """Return the candidate with the lowest NLL on the shots.

        Raises:
            UnavailableError: if the task has fewer than two examples.
        """
        if len(context.shots) < 2:
            raise UnavailableError("the task has fewer than two training examples to choose with")
        words, shown = self.source.reader.readings(context.text, context.shots, context.task.template.kind)
        seeds: list[int | None] = [None, *range(self.seed, self.seed + self.samples - 1)]
        candidates = [self.source.generator.generate(words, shown, seed=seed) for seed in seeds]
        scores = [self.judge(context, candidate) for candidate in candidates]
        best = min(range(len(scores)), key=lambda index: scores[index])
        about: dict[str, object] = {"sample": best, "nll_on_shots": [round(value, 4) for value in scores]}
        about["spread"] = round(spread(candidates), 4)
        return Served(candidates[best], about=about)
