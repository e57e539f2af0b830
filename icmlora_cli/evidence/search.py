"""Makes an adapter of a text and a few examples, and keeps what predicts the examples best that were left out.

Text and examples are evidence of the task. Several candidates are tried on it: the base alone, the adapter of the text,
that of text and examples, the best of many samples, the best harvested adapter of a training task where there are any
at hand, and cores that are trained on the examples: from zero, from the best of all these, and from the text's adapter.
Each is judged by cross-validation: whatever examples a candidate is made with, it is scored on others.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch

from icmlora_cli.generator.checkpoint import REMEMBERED, Generator
from icmlora_cli.lm.core_tuning import CoreBase, CoreFolds, TunedCores, TuningRecipe, tune_cores
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter

Kind = Literal["base", "text", "text and examples", "sample", "harvested", "adapted"]
UNTRAINED: Sequence[Kind] = ("base", "text", "text and examples", "sample", "harvested")
JUDGE = -1  # stands for the separate examples that judge, among the numbers of examples
FOLDS = 3  # of a cross-validation with more than LEAVE_ONE_OUT examples
LEAVE_ONE_OUT = 3
ROWS_A_STEP = 24  # of all folds of one start together
SCREENED = 15  # examples at most on which all candidates are scored; more are only trained on
VERSION = 4  # of what is tried and how it is chosen; scores of another version are not used again
REMEMBERED_ROWS = 480  # rows at most on which remembered tasks are scored: some 15 s on two CPU cores
TUNING = TuningRecipe()
NEAR = 0.25  # of the learning rate, for cores that start from a candidate: it is near already, and overfits soon


@dataclass(frozen=True)
class Tried:
    """One candidate, and how well it predicts the examples.

    Args:
        kind: What the candidate is made of.
        detail: Which sample it is, or how it was adapted; empty where there is nothing to say.
        held_out: The NLL of examples that the candidate was neither made with nor chosen by, nats per token, as the
            mean over all examples; None where there are too few examples to leave one out.
        nll: The NLL of all examples under the candidate itself, nats per token.
    """

    kind: Kind
    detail: str
    held_out: float | None
    nll: float

    @property
    def name(self) -> str:
        """The kind and the detail."""
        return _named(self.kind, self.detail)


@dataclass(frozen=True)
class Evidence:
    """What was tried on text and examples, and what was kept.

    Args:
        examples: The number of examples.
        folds: The number of folds of the cross-validation; 0 where there are too few examples, or where separate
            examples judged.
        judges: The number of separate examples that judged; 0 where the examples judged one another.
        tried: The candidates.
        kept: The index of the candidate with the lowest held-out NLL.
        steps: The number of optimizer steps that were taken.
        out_of_time: Whether the budget ended before the training had come to its own end.
        seconds: The wall time.
    """

    examples: int
    folds: int
    judges: int
    tried: tuple[Tried, ...]
    kept: int
    steps: int
    out_of_time: bool
    seconds: float

    @property
    def told(self) -> str:
        """A sentence on what was kept and why, for the card."""
        kept, base = self.tried[self.kept], self.tried[0]
        how = f"{self.judges} further examples" if self.judges else f"cross-validation ({self.folds} folds)"
        if kept.held_out is None or base.held_out is None:
            return f"Of {len(self.tried)} candidates, {kept.name} was kept, by its NLL on the one example given."
        return (
            f"Of {len(self.tried)} candidates, {kept.name} predicts the {self.examples} given examples best, by {how}: "
            f"{kept.held_out:.4f} nats a token on examples that were left out; the base alone: {base.held_out:.4f}."
        )


@dataclass(frozen=True)
class CoreCandidate:
    """The cores of a candidate, with its kind and what there is to say of it.

    Args:
        kind: What the candidate is made of.
        detail: Which sample it is, or how it was adapted; empty where there is nothing to say.
        cores: The cores, fp32 [modules, R, R].
        of_examples: Whether other examples would have given other cores under the same name.
    """

    kind: Kind
    detail: str
    cores: torch.Tensor
    of_examples: bool = False

    @property
    def name(self) -> str:
        """The kind and the detail."""
        return _named(self.kind, self.detail)


@dataclass(frozen=True)
class SearchOptions:
    """How much is tried.

    Args:
        samples: How many samples are taken given the text, and how many given text and examples.
        seconds: The wall time after which no further training step begins.
        recipe: How the adapted candidate is trained.
        seed: The seed of the first draw of z; each further draw has the next higher one.
    """

    samples: int
    seconds: float
    recipe: TuningRecipe = TUNING
    seed: int = 0


@dataclass(frozen=True)
class EvidenceSearch:
    """The search for the adapter that fits a text and examples best.

    Args:
        generator: The generator.
        reader: The reader of task vectors from the generator's base.
        base: The base with the generator's codec on it.
        text: The task in words.
        examples: The examples that candidates are made with, one or more.
        rows: For each example, its rows of token ids: one, or of plain text one a window.
        options: How much is tried.
        judges: Rows of separate examples that judge the candidates; empty for cross-validation.
        harvested: The cores of training tasks' harvested adapters that are at hand, fp32 [modules, R, R], by the tasks'
            names. They are tried in place of what the generator remembers of these tasks.
        kind: The kind of the template by which the generator reads the examples, such as ``plain``.
        clock: Tells the time in seconds.
        on_progress: Called with what is done, how many steps of it are done, and how many there are at most.
    """

    generator: Generator
    reader: VectorReader
    base: CoreBase
    text: str
    examples: tuple[Example, ...]
    rows: tuple[tuple[Encoded, ...], ...]
    options: SearchOptions
    judges: tuple[Encoded, ...] = ()
    harvested: Mapping[str, torch.Tensor] = field(default_factory=dict)
    kind: str = "plain"
    clock: Callable[[], float] = time.monotonic
    on_progress: Callable[[str, int, int], None] = lambda label, done, total: None

    @cached_property
    def flat(self) -> list[Encoded]:
        """All rows: those of the examples, then the judges'."""
        return [row for rows in self.rows for row in rows] + list(self.judges)

    @cached_property
    def owners(self) -> list[int]:
        """For each row the index of its example; ``JUDGE`` for a judge."""
        owned = [index for index, rows in enumerate(self.rows) for _ in rows]
        return owned + [JUDGE] * len(self.judges)

    @cached_property
    def screened(self) -> list[int]:
        """The rows on which all candidates are scored: those of the first examples, and the judges."""
        return [at for at, owner in enumerate(self.owners) if owner < SCREENED]

    @cached_property
    def folds(self) -> list[frozenset[int]]:
        """For each fold the examples that it leaves out; ``JUDGE`` stands for the judges."""
        if self.judges:
            return [frozenset({JUDGE})]
        count = len(self.examples)
        size = count if count <= LEAVE_ONE_OUT else FOLDS
        return [frozenset(range(fold, count, size)) for fold in range(size)] if count > 1 else []

    def run(self) -> tuple[Adapter, Evidence]:
        """Try all candidates, and return the adapter of the best one with what was tried."""
        started = self.clock()
        scored: dict[str, torch.Tensor] = {}
        folds = [self._fold(out, scored) for out in self.folds]
        whole = self._fold(frozenset({JUDGE}), scored)
        tried, candidates = self._compared(folds, whole)
        steps, out_of_time = 0, False
        if folds:
            adapted, steps, out_of_time = self._adapted(folds, whole, started + self.options.seconds)
            for name, tuned in adapted.items():
                if tuned.steps:
                    candidate = CoreCandidate("adapted", f"{tuned.steps} steps from {name}", tuned.cores[-1])
                    nll = float(self._scores([candidate])[0, whole.inside].mean())
                    tried.append(Tried("adapted", candidate.detail, tuned.held_out, nll))
                    candidates.append(candidate)
        kept = self._choose(tried, len(whole.candidates))
        evidence = Evidence(
            examples=len(self.examples),
            folds=0 if self.judges else len(folds),
            judges=len(self.judges),
            tried=tuple(tried),
            kept=kept,
            steps=steps,
            out_of_time=out_of_time,
            seconds=self.clock() - started,
        )
        chosen, codec = candidates[kept], self.generator.codec
        rank = codec.width if chosen.kind in ("harvested", "adapted") else self.generator.rank
        return codec.decode(chosen.cores, rank=rank), evidence

    def _scores(self, candidates: Sequence[CoreCandidate]) -> torch.Tensor:
        """Return the NLL of the screened rows under candidates, fp32 [candidates, screened rows]."""
        rows = [self.flat[at] for at in self.screened]
        return self.base.scores(rows, torch.stack([item.cores for item in candidates]))

    @cached_property
    def _of_text(self) -> list[CoreCandidate]:
        """The candidates that are made without examples."""
        words = self.reader.read_text(self.text)
        text = self.generator.cores(words, None)
        count = self.options.samples
        remembered = max(count, REMEMBERED_ROWS // max(1, len(self.screened)))
        samples = self.generator.samples(words, None, count, self.options.seed, remembered=remembered)
        base, described = CoreCandidate("base", "", torch.zeros_like(text)), CoreCandidate("text", "", text)
        return [base, described, *self._sampled(samples, "the text", of_examples=False)]

    def _sampled(
        self, samples: Mapping[str, torch.Tensor], source: str, *, of_examples: bool
    ) -> Iterator[CoreCandidate]:
        """Yield the candidates of samples, with the harvested adapter of a remembered task where it is at hand."""
        for name, cores in samples.items():
            task = name.removeprefix(REMEMBERED)
            if task == name:
                yield CoreCandidate("sample", f"{name} given {source}", cores, of_examples=of_examples)
            elif task in self.harvested:
                yield CoreCandidate("harvested", task, self.harvested[task])
            else:
                yield CoreCandidate("sample", name, cores)

    def _of_both(self, examples: Sequence[Example]) -> list[CoreCandidate]:
        """Return the candidates for which the generator reads examples too: as many as it is used to, and as fit.

        There are none where these are fewer than two.
        """
        shown = list(examples)[: self.reader.recipe.shots]
        while len(shown) > 1 and not self.reader.can_show(shown, self.kind):
            shown.pop()
        if len(shown) < 2:
            return []
        readings = self.reader.readings(self.text, shown, self.kind)
        samples = self.generator.samples(*readings, self.options.samples, self.options.seed)
        drawn = self._sampled(samples, "text and examples", of_examples=True)
        return [CoreCandidate("text and examples", "", self.generator.cores(*readings), of_examples=True), *drawn]

    def _fold(self, out: frozenset[int], scored: dict[str, torch.Tensor]) -> "_Fold":
        """Return the candidates that are made without the examples that a fold leaves out, and their scores.

        Args:
            out: The examples that the fold leaves out.
            scored: The scores of the candidates that need no examples, or that are the same whatever the examples, by
                name; those that are missing are added.
        """
        kept = [example for at, example in enumerate(self.examples) if at not in out]
        candidates = {item.name: item for item in (*self._of_text, *self._of_both(kept))}
        anew = [item for item in candidates.values() if item.of_examples or item.name not in scored]
        scores = dict(zip([item.name for item in anew], self._scores(anew), strict=True)) if anew else {}
        scored |= {item.name: scores[item.name] for item in anew if not item.of_examples}
        table = torch.stack([(scores | scored)[name] for name in candidates])
        outside = [at for at, row in enumerate(self.screened) if self.owners[row] in out]
        inside = [at for at in range(len(self.screened)) if at not in set(outside)]
        return _Fold(list(candidates.values()), table, inside, outside)

    def _compared(self, folds: list["_Fold"], whole: "_Fold") -> tuple[list[Tried], list[CoreCandidate]]:
        """Return the best candidate of each kind that needs no training, with its scores."""
        tried, candidates = list[Tried](), list[CoreCandidate]()
        for kind in UNTRAINED:
            at = whole.best_of(kind)
            if at is None:
                continue
            held = [fold.scores[best, fold.outside] for fold in folds if (best := fold.best_of(kind)) is not None]
            held_out = float(torch.cat(held).mean()) if held and len(held) == len(folds) else None
            chosen = whole.candidates[at]
            tried.append(Tried(kind, chosen.detail, held_out, float(whole.scores[at, whole.inside].mean())))
            candidates.append(chosen)
        return tried, candidates

    def _adapted(
        self, folds: list["_Fold"], whole: "_Fold", deadline: float
    ) -> tuple[dict[str, TunedCores], int, bool]:
        """Train cores from zero, from the best candidate and from the text's, for each fold, and on all examples.

        The last fold of each start leaves no example out: it is what would be kept. It judges nothing, unless separate
        examples judge.

        Returns:
            The cores by the name of their start, the number of steps that were taken, and whether time ran out.
        """
        left_out = [self._rows_of(out) for out in self.folds]
        judges = [[self.screened[at] for at in fold.outside] for fold in folds]
        if not self.judges:
            folds, left_out, judges = [*folds, whole], [*left_out, frozenset()], [*judges, []]
        best = torch.stack([fold.best.cores for fold in folds])
        starts = {"the base": CoreFolds(torch.zeros_like(best), left_out, judges)}
        if best.any():  # else it is the base itself
            starts[whole.best.name] = CoreFolds(best, left_out, judges, NEAR)
        text = next(item for item in self._of_text if item.kind == "text")
        if text.name not in starts and text.cores.any():
            starts[text.name] = CoreFolds(text.cores.expand_as(best), left_out, judges, NEAR)
        recipe = replace(
            self.options.recipe, batch_size=min(self.options.recipe.batch_size, max(1, ROWS_A_STEP // len(left_out)))
        )
        out_of_time = False

        def enough(step: int) -> bool:
            nonlocal out_of_time
            out_of_time = self.clock() >= deadline
            self.on_progress("train on the examples", step, recipe.steps)
            return out_of_time

        tuned = tune_cores(self.base, self.flat, list(starts.values()), recipe, enough=enough)
        taken = max(step for item in tuned for step, _ in item.curve)
        return dict(zip(starts, tuned, strict=True)), taken, out_of_time

    def _rows_of(self, out: frozenset[int]) -> frozenset[int]:
        """Return the rows of the examples that a fold leaves out."""
        return frozenset(at for at, owner in enumerate(self.owners) if owner in out)

    def _choose(self, tried: Sequence[Tried], pool: int) -> int:
        """Return the index of the candidate that is kept.

        A candidate that could not be judged on what was left out is not kept where others could. Where no example could
        be left out, one of many is only kept if it is better by what its choice among so many costs: the logarithm of
        their number, in nats of the whole answer (the minimum description length).
        """
        held = {at: item.held_out for at, item in enumerate(tried) if item.held_out is not None}
        if held:
            return min(held, key=lambda at: held[at])
        tokens = sum(len(row.answer_ids) for row in self.flat)
        costs = [
            item.nll + (math.log(pool) / tokens if item.kind in ("sample", "harvested") else 0.0) for item in tried
        ]
        return min(range(len(tried)), key=lambda at: costs[at])


@dataclass(frozen=True)
class _Fold:
    """Candidates that are made without what a fold leaves out.

    Args:
        candidates: The candidates.
        scores: The NLL of each row under each of them, fp32 [candidates, rows].
        inside: The indices of the rows by which they are chosen.
        outside: The indices of the rows on which the choice is judged.
    """

    candidates: list[CoreCandidate]
    scores: torch.Tensor
    inside: list[int]
    outside: list[int]

    @property
    def best(self) -> CoreCandidate:
        """The candidate with the lowest NLL on the rows inside."""
        return self.candidates[int(self.scores[:, self.inside].mean(1).argmin())]

    def best_of(self, kind: str) -> int | None:
        """Return the index of the best candidate of a kind on the rows inside; None where there is none."""
        among = [at for at, item in enumerate(self.candidates) if item.kind == kind]
        return min(among, key=lambda at: float(self.scores[at, self.inside].mean())) if among else None


def _named(kind: Kind, detail: str) -> str:
    return f"{kind} ({detail})" if detail else kind
