"""Chooses among samples of a generator by examples, and refuses one that does not beat the base and the average."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from icmlora_cli.errors import GateRefusedError, UsageError
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import aggregate, max_tokens, score_texts
from icmlora_cli.lm.prompts import Encoded, encode, encode_text
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.gen.options import ExampleFile
from icmlora_cli.workflows.progress import OnProgress, Progress


@dataclass(frozen=True)
class CandidateScore:
    """The scores of an adapter, or of the base alone, on examples.

    Args:
        nll: The mean over examples of the answer's NLL, nats per token; of plain text, the NLL of all its tokens.
        exact_match: The share of answers that greedy decoding writes exactly, 0 to 1; None for plain text.
    """

    nll: float
    exact_match: float | None


@dataclass(frozen=True)
class Candidate:
    """The scores of one sample, in the form in which it would be written.

    Args:
        seed: The seed of z; None stands for the prior's mean.
        nll: The NLL on the examples, nats per token; None where it is not finite.
        exact_match: The share of answers that greedy decoding writes exactly, 0 to 1; None for plain text.
    """

    seed: int | None
    nll: float | None
    exact_match: float | None


@dataclass(frozen=True)
class Selection:
    """How samples, base and average scored on examples, and which sample was chosen.

    Args:
        file: The name of the file of examples.
        examples: The number of examples.
        shown: How many of these the generator had read too.
        candidates: The scores of the samples, in the order in which they were drawn.
        kept: The index of the chosen sample, which has the lowest NLL; of equal ones, the first.
        base: The scores of the base alone.
        average: The scores of the average adapter; None without the gate, or where the registry has no adapter of it.
        averaged: How many adapters are averaged.
        learned: How many harvested adapters the generator learned from.
    """

    file: str
    examples: int
    shown: int
    candidates: tuple[Candidate, ...]
    kept: int
    base: CandidateScore
    average: CandidateScore | None = None
    averaged: int = 0
    learned: int = 0


def rows_of(loaded: LoadedBase, file: ExampleFile) -> tuple[tuple[Encoded, ...], ...]:
    """Return for each example of a file its rows of token ids: one, or of plain text one for each window.

    Raises:
        UsageError: If an example is longer than what the base reads.
    """
    rows = tuple(
        tuple(encode_text(loaded.family, example.output))
        if file.template.kind == "text"
        else (encode(loaded.family, file.template, example),)
        for example in file.examples
    )
    limit = max_tokens(loaded)
    for index, own in enumerate(rows, start=1):
        longest = max(row.length for row in own)
        if longest > limit:
            raise UsageError(
                f"example {index} has {longest:,} tokens; the base reads {limit:,} at once",
                where=str(file.path.absolute()),
                hint="leave it out, or shorten it",
            )
    return rows


def encoded(loaded: LoadedBase, file: ExampleFile) -> tuple[Encoded, ...]:
    """Return a file's examples as token ids: a row for each example, or for each window of a plain text.

    Raises:
        UsageError: If an example is longer than what the base reads.
    """
    return tuple(row for rows in rows_of(loaded, file) for row in rows)


@dataclass(frozen=True)
class Best:
    """The sample that ``best_of`` chose.

    Args:
        adapter: The adapter of the sample.
        index: The index of the sample among the candidates.
        nll: The NLL of the sample on the examples, nats per token.
        candidates: The scores of all samples, in the order of their seeds.
    """

    adapter: Adapter
    index: int
    nll: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class CandidateScorer:
    """Scores adapters, or the base alone, on the examples of a file.

    Args:
        loaded: The base.
        file: The examples.
        rows: The examples as token ids; empty for plain text.
    """

    loaded: LoadedBase
    file: ExampleFile
    rows: tuple[Encoded, ...]

    @classmethod
    def of(cls, loaded: LoadedBase, file: ExampleFile) -> "CandidateScorer":
        """Return the scorer of a file's examples.

        Raises:
            UsageError: If an example is longer than what the base reads.
        """
        if file.template.kind == "text":
            return cls(loaded, file, ())
        return cls(loaded, file, encoded(loaded, file))

    def __call__(self, adapter: Adapter | None) -> CandidateScore:
        """Return the scores of an adapter merged into the base; None scores the base alone."""
        with merged(self.loaded.model, adapter):
            if self.file.template.kind == "text":
                texts = score_texts(self.loaded, [example.output for example in self.file.examples])
                return CandidateScore(aggregate(texts).nats_per_token, None)
            scores = score_rows(self.loaded, self.rows)
            return CandidateScore(scores.mean_nll, scores.exact_match)


def seeds_of(count: int, seed: int | None) -> tuple[int | None, ...]:
    """Return the seeds of the samples: of one, ``seed`` itself; of several, None for the mean, then seeds on."""
    first = seed or 0
    return (seed,) if count == 1 else (None, *range(first, first + count - 1))


def best_of(
    make: Callable[[int | None], Adapter],
    seeds: Sequence[int | None],
    scorer: CandidateScorer,
    on_progress: OnProgress,
) -> Best:
    """Return the sample with the lowest NLL; only the best one so far is in memory at any time.

    Args:
        make: Returns the adapter of a seed, in the form in which it would be written.
        seeds: The seeds of the samples.
        scorer: Scores the samples on the examples.
        on_progress: Called after each sample.

    Raises:
        UsageError: If no sample has a finite NLL.
    """
    best: tuple[float, int, Adapter] | None = None
    candidates: list[Candidate] = []
    for index, seed in enumerate(seeds):
        adapter = make(seed)
        score = scorer(adapter)
        finite = math.isfinite(score.nll)
        candidates.append(Candidate(seed, score.nll if finite else None, score.exact_match))
        if finite and (best is None or score.nll < best[0]):
            best = (score.nll, index, adapter)
        on_progress(Progress("gen", "score the samples", index + 1, len(seeds)))
    if best is None:
        raise UsageError("the base writes no numbers with this adapter", hint="lower --scale")
    nll, index, adapter = best
    return Best(adapter, index, nll, tuple(candidates))


def compared(selection: Selection) -> str | None:
    """Return a remark on the adapters that the gate's average lacks; None where it has all of them."""
    if not selection.learned:
        return "the generator learned from no harvested adapters; only the base is compared"
    if selection.averaged == selection.learned:
        return None
    remark = (
        f"{selection.averaged or 'none'} of the {selection.learned} adapters that the generator learned from are here"
    )
    return remark + ("; the average is of these" if selection.averaged else "; only the base is compared")


def check_gate(selection: Selection, nll: float, where: str) -> None:
    """Refuse an adapter whose NLL on the examples is not below the base's and the average adapter's.

    Args:
        selection: The scores of base and average.
        nll: The adapter's NLL on the examples, nats per token.
        where: The path of the examples' file.

    Raises:
        GateRefusedError: If it is no better than one of them.
    """
    others: dict[str, float] = {"base": selection.base.nll}
    if selection.average is not None:
        others["average"] = selection.average.nll
    beaten_by = [name for name, value in others.items() if not nll < value]
    if not beaten_by:
        return
    titles: Mapping[str, str] = {
        "base": "the base",
        "average": f"the average of {selection.averaged} harvested adapters",
    }
    remark = compared(selection)
    figures = ", ".join(f"{titles[name]} {value:.4f}" for name, value in others.items())
    raise GateRefusedError(
        f"the adapter is no better than {' and '.join(titles[name] for name in beaten_by)} on {selection.file}: "
        f"NLL {nll:.4f} nats a token, {figures}; nothing was written" + (f" ({remark})" if remark else ""),
        {"adapter": nll} | others,
        where=where,
        hint="say the task in other words, show --examples, raise --samples, or leave out --gate",
    )
