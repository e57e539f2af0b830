"""Methods whose adapters a generator makes.

It makes them from the task's text, from text and examples, from a wrong text (a control), as the best of K samples, or
as ``gen --examples`` does.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from icmlora_cli.evidence.search import VERSION, EvidenceSearch, SearchOptions
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.core_tuning import CoreBase
from icmlora_cli.lm.lengths import task_rows
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.method import Served, TaskContext, UnavailableError, Uses
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import spread

WORDS = (  # what random texts are made of
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
    """Return the adapter that a generator makes of a task text, of demonstrations, or of both.

    Args:
        generator: the trained generator.
        reader: the reader of task vectors from the generator's base.
        text: the task in words; None leaves the slot of the text empty.
        examples: two or more demonstrations; fewer leave their slot empty.
        kind: the kind of the template by which the demonstrations are written, such as ``plain``.
        seed: the seed of z; None takes the prior's mean.
    """
    return generator.generate(*reader.readings(text, examples, kind), seed=seed)


@dataclass(frozen=True)
class GeneratorSource:
    """A generator with its reader: all that methods need to generate adapters.

    Args:
        generator: the trained generator.
        reader: the reader of task vectors, with the settings of the generator's training.
        key: the hash of all that decides the generator's training; it is part of the methods' identities.
    """

    generator: Generator
    reader: VectorReader
    key: str

    def make(self, text: str | None, examples: Sequence[Example] = (), *, kind: str = "plain") -> Adapter:
        """Return the adapter of a text and of examples, which are written by the template of the given kind."""
        return generate_adapter(self.generator, self.reader, text, examples, kind=kind)

    def seconds(self, context: TaskContext) -> float:
        """Return how long it takes to generate the task's adapter from its text, in seconds of wall time.

        The text is read anew rather than taken from the cache of readings.
        """
        started = time.monotonic()
        self.generator.generate(self.reader.read_text(context.text, fresh=True), None)
        return time.monotonic() - started


TextOf = Callable[[TaskContext], str]
"""Returns the text that a method is given of a task: its description or, for controls, another text."""


def right_text(context: TaskContext) -> str:
    """Return the task's main description."""
    return context.text


def random_text(context: TaskContext) -> str:
    """Return a text of eight words drawn at random, which are always the same for a task."""
    digest = hashlib.sha256(f"random text of {context.task.name}".encode()).digest()
    return " ".join(random.Random(digest).sample(WORDS, 8)).capitalize() + "."


@dataclass(frozen=True)
class GeneratedMethod:
    """The adapter that a generator makes, with z at the prior's mean.

    Args:
        source: the generator with its reader.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        text_of: the function that returns the text that the generator is given.
        with_shots: whether the generator is given the k examples too.
        uses: what the method knows of the task.
    """

    source: GeneratorSource
    name: str = "generated"
    title: str = "generated from the description"
    text_of: TextOf = right_text
    with_shots: bool = False
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the generator's key, the text, and whether examples are used."""
        return [self.source.key, self.text_of(context), self.with_shots]

    def serve(self, context: TaskContext) -> Served:
        """Return the generated adapter, and the text it was made from if that is not the task's description.

        Raises:
            UnavailableError: If the method uses examples and the task has fewer than two.
        """
        if self.with_shots and len(context.shots) < 2:
            raise UnavailableError("the task has fewer than two training examples to show")
        text, shots = self.text_of(context), context.shots if self.with_shots else ()
        adapter = self.source.make(text, shots, kind=context.task.template.kind)
        return Served(adapter, about={} if text == context.text else {"text": text})


@dataclass(frozen=True)
class CompanionMethod:
    """The adapter of another generator that learned from the same harvest: the paper's Conv1d CVAE or COND P-DIFF.

    Args:
        load: the function that returns the other generator, or raises UnavailableError if it is not trained.
        key: all that decides the other generator, in JSON's types: its harvest and its recipe.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
    """

    load: Callable[[], GeneratorSource]
    key: object
    name: str
    title: str
    uses: Uses = "text"

    def identity(self, context: TaskContext) -> object:
        """Return the other generator's key and the text."""
        return [self.key, context.text]

    def serve(self, context: TaskContext) -> Served:
        """Return the adapter that the other generator makes of the task's description.

        Raises:
            UnavailableError: If that generator is not trained.
        """
        return Served(self.load().make(context.text))


Judge = Callable[[TaskContext, Adapter], float]
"""Returns the mean NLL of an adapter on the answers of the context's shots, in nats per token; lower is better."""


@dataclass(frozen=True)
class BestOfMethod:
    """The best of K generated adapters, chosen by the k examples.

    All are made from text and examples: one with z at the prior's mean, and K - 1 with a drawn z.

    Args:
        source: the generator with its reader.
        judge: the function that scores a candidate on the examples.
        samples: K, the number of candidates.
        seed: the seed of the first draw of z; each further draw has the next higher seed.
        name: the method's name in tables and JSON.
        uses: what the method knows of the task.
    """

    source: GeneratorSource
    judge: Judge
    samples: int
    seed: int
    name: str = "best-of"
    uses: Uses = "text and examples"

    @property
    def title(self) -> str:
        """The method's title for people."""
        return f"best of {self.samples} samples on the examples"

    def identity(self, context: TaskContext) -> object:
        """Return the generator's key, the text, K and the seed."""
        return [self.source.key, context.text, self.samples, self.seed]

    def serve(self, context: TaskContext) -> Served:
        """Return the candidate with the lowest NLL on the shots.

        Raises:
            UnavailableError: If the task has fewer than two training examples.
        """
        if len(context.shots) < 2:
            raise UnavailableError("the task has fewer than two training examples to choose with")
        source, kind = self.source, context.task.template.kind
        text_reading, shots_reading = source.reader.readings(context.text, context.shots, kind)
        seeds: list[int | None] = [None, *range(self.seed, self.seed + self.samples - 1)]
        candidates = [source.generator.generate(text_reading, shots_reading, seed=seed) for seed in seeds]
        scores = [self.judge(context, candidate) for candidate in candidates]
        best = min(range(len(scores)), key=lambda index: scores[index])
        about: dict[str, object] = {"sample": best, "nll_on_shots": [round(value, 4) for value in scores]}
        about["spread"] = round(spread(candidates), 4)
        return Served(candidates[best], about=about)


@dataclass(frozen=True)
class EvidenceMethod:
    """What ``icmlora gen TEXT --examples FILE`` keeps of all that it tries on text and examples.

    Args:
        source: the generator with its reader.
        base: the base with the generator's codec on it.
        options: how much is tried, and for how long.
        tasks: the names of the training tasks whose harvested adapters are at hand.
        harvested: returns these adapters' cores by the tasks' names.
        name: the method's name in tables and JSON.
        title: the method's title for people.
        uses: what the method knows of the task.
    """

    source: GeneratorSource
    base: CoreBase
    options: SearchOptions
    tasks: Sequence[str]
    harvested: Callable[[], Mapping[str, torch.Tensor]]
    name: str = "gen-examples"
    title: str = "what gen --examples keeps, given description and k examples"
    uses: Uses = "text and examples"

    def identity(self, context: TaskContext) -> object:
        """Return the generator's key, the text, what is tried, and the version of the search."""
        return [self.source.key, context.text, asdict(self.options), VERSION, sorted(self.tasks)]

    def serve(self, context: TaskContext) -> Served:
        """Return the adapter that predicts examples best that it was not made with, and what was tried.

        Raises:
            UnavailableError: If the task has no training example.
            UsageError: If an example is longer than what the base reads.
        """
        if not context.shots:
            raise UnavailableError("the task has no training example to try anything on")
        rows = tuple(tuple(task_rows(self.base.loaded, context.task, [shot])) for shot in context.shots)
        source, kind = self.source, context.task.template.kind
        search = EvidenceSearch(
            source.generator,
            source.reader,
            self.base,
            context.text,
            context.shots,
            rows,
            self.options,
            harvested=self.harvested(),
            kind=kind,
        )
        adapter, evidence = search.run()
        return Served(adapter, about=asdict(evidence))
