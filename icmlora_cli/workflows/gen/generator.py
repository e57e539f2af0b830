"""Makes and writes adapters of texts with a generator and its base, which are loaded once for all texts."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from icmlora_cli.disk import files
from icmlora_cli.errors import TrainingDivergedError
from icmlora_cli.evidence.search import Evidence, EvidenceSearch, SearchOptions
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.core_tuning import CoreBase
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, average
from icmlora_cli.weights.adapter_form import cast, dtype_name, leading, scaled
from icmlora_cli.weights.compare import compare
from icmlora_cli.workflows.gen.explain import Explanation, Seen, explain, read_seen
from icmlora_cli.workflows.gen.learned import Learned, learned_adapters
from icmlora_cli.workflows.gen.options import ExampleFile, GenInputs, GenOptions, GenRequest
from icmlora_cli.workflows.gen.select import (
    Candidate,
    CandidateScore,
    CandidateScorer,
    Selection,
    best_of,
    check_gate,
    encoded,
    rows_of,
    seeds_of,
)
from icmlora_cli.workflows.gen.write import Provenance, write
from icmlora_cli.workflows.merge.write import WrittenModel
from icmlora_cli.workflows.progress import OnProgress, Progress


@dataclass(frozen=True)
class GenResult:
    """A generated adapter or merged model, as it was written.

    Args:
        folder: The folder that was written.
        task_text: The text that it was made from.
        merged: Whether it is a whole model.
        format: The format, ``peft`` or ``gguf``.
        rank: The rank of the adapter.
        bytes: The size of the folder in bytes.
        seconds: The wall time in seconds.
        seed: The seed of z; None stands for the prior's mean.
        dtype: The number format of the written tensors.
        scale: The factor by which delta-W was multiplied.
        error: The relative error in delta-W of a lower rank and number format; 0 where neither was asked for.
        shown: How many examples the generator read besides the text.
        selection: How samples and base scored on examples; None without examples to score on.
        evidence: What was tried on the examples that were given; None where nothing was tried.
        explanation: What text and adapter are near to; None where that was not asked for.
        no_derivatives: The licences that forbid derivatives, of what the generator learned from and of a merged base.
        notes: Remarks on how the example files were read.
    """

    folder: Path
    task_text: str
    merged: bool
    format: str
    rank: int
    bytes: int
    seconds: float
    seed: int | None
    dtype: str
    scale: float
    error: float
    shown: int
    selection: Selection | None
    evidence: Evidence | None
    explanation: Explanation | None
    no_derivatives: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GeneratedAdapter:
    """An adapter before it is written, with the figures that the result reports.

    Args:
        adapter: The adapter in the form that is written.
        seed: The seed of z; None stands for the prior's mean.
        error: The relative error in delta-W of a lower rank and number format; 0 where neither was asked for.
        selection: How samples and base scored on examples; None without examples to score on.
        evidence: What was tried on the examples that were given; None where nothing was tried.
        explanation: What text and adapter are near to; None where that was not asked for.
    """

    adapter: Adapter
    seed: int | None
    error: float
    selection: Selection | None
    evidence: Evidence | None
    explanation: Explanation | None


@dataclass(frozen=True)
class Scoring:
    """How adapters are scored on the examples, and the scores that they are compared with.

    Args:
        scorer: Scores adapters on the examples.
        base: The scores of the base alone.
        average: The scores of the average adapter; None without the gate, or where the registry has no adapter of it.
    """

    scorer: CandidateScorer
    base: CandidateScore
    average: CandidateScore | None


@dataclass(frozen=True)
class AdapterGenerator:
    """A generator with its base, loaded once for any number of texts; ``generate.adapter_generator_on`` makes it.

    Args:
        generator: The networks of the generator.
        base: The base model of the generator.
        reader: Reads task vectors from the loaded base as in the training of the generator.
        store: Where harvested adapters are.
        request: What is asked of the generator.
        inputs: The example files that the request names.
        on_progress: Called at each step that takes time.
    """

    generator: Generator
    base: Base
    reader: VectorReader
    store: AdapterStore
    request: GenRequest
    inputs: GenInputs
    on_progress: OnProgress

    @property
    def options(self) -> GenOptions:
        """The options of the request."""
        return self.request.options

    @property
    def loaded(self) -> LoadedBase:
        """The loaded base."""
        return self.reader.loaded

    @cached_property
    def learned(self) -> Learned:
        """The harvested adapters that the generator learned from, as far as the registry has them."""
        return learned_adapters(self.generator, self.store, self.base)

    @cached_property
    def harvested_cores(self) -> dict[str, torch.Tensor]:
        """The cores of these adapters, fp32 [modules, R, R], by the task's name."""
        return self.learned.cores(self.generator.codec)

    @cached_property
    def seen(self) -> Seen:
        """The training tasks as the generator reads them."""
        return read_seen(self.generator, self.reader, self.on_progress)

    @cached_property
    def core_base(self) -> CoreBase:
        """The base with the generator's codec on it."""
        return CoreBase(self.loaded, self.generator.codec)

    @cached_property
    def scoring(self) -> Scoring | None:
        """How adapters are scored on the examples, with the scores of base and average; None without examples."""
        if self.inputs.judged is None:
            return None
        scorer = CandidateScorer.of(self.loaded, self.inputs.judged)
        known = tuple(self.learned.adapters.values()) if self.options.gate else ()
        return Scoring(scorer, scorer(None), scorer(average(known)) if known else None)

    def make(self, text: str) -> GeneratedAdapter:
        """Return the adapter of a text; where there are examples, the one that predicts them best of what was tried.

        Raises:
            GateRefusedError: If the gate is set, and the adapter is no better than the base or the average.
            TrainingDivergedError: If the generator makes numbers that are not finite.
            UsageError: If examples are too long for the base.
        """
        try:
            return self._make(text)
        except TrainingDivergedError as error:
            raise TrainingDivergedError(error.message, where=str(self.request.folder), hint=error.hint) from error

    def _make(self, text: str) -> GeneratedAdapter:
        examples, kind = self.inputs.shown, "plain"
        if examples is not None:
            kind = examples.template.kind
            if not self.options.searches:
                self.reader.check_examples(examples.examples, kind)
        words = self.reader.read_text(text)
        costs = self.options.rank is not None or self.request.dtype is not None
        seed, evidence, selection = self.request.seed, None, None
        if self.options.searches and examples is not None:
            whole, evidence = self._search(text, examples)
            seed, adapter = None, self._shaped(whole)
            if self.scoring is not None:
                selection = self._selection(self.scoring, (self._judged(self.scoring, adapter, evidence),), 0)
        else:
            _, demonstrations = self.reader.readings(None, self.inputs.demonstrations, kind)

            def make(seed: int | None) -> Adapter:
                return self.generator.generate(words, demonstrations, seed=seed)

            if self.scoring is None:
                whole = make(seed)
                adapter = self._shaped(whole)
            else:
                seeds = seeds_of(self.options.count, seed)
                best = best_of(lambda seed: self._shaped(make(seed)), seeds, self.scoring.scorer, self.on_progress)
                adapter, seed = best.adapter, seeds[best.index]
                selection = self._selection(self.scoring, best.candidates, best.index)
                whole = make(seed) if costs else adapter
        error = self._error(adapter, whole) if costs else 0.0
        explanation = explain(self.generator, words, adapter, self.seen, self.learned) if self.options.explain else None
        return GeneratedAdapter(adapter, seed, error, selection, evidence, explanation)

    def _search(self, text: str, file: ExampleFile) -> tuple[Adapter, Evidence]:
        """Return the adapter that predicts the examples of a file best, and what was tried."""
        judged = None if self.options.select is None else self.inputs.judged
        search = EvidenceSearch(
            self.generator,
            self.reader,
            self.core_base,
            text,
            file.examples,
            rows_of(self.loaded, file),
            SearchOptions(self.options.count, self.options.budget, seed=self.request.seed or 0),
            () if judged is None else encoded(self.loaded, judged),
            self.harvested_cores,
            file.template.kind,
            on_progress=lambda label, done, total: self.on_progress(Progress("gen", label, done, total)),
        )
        return search.run()

    def _judged(self, scoring: Scoring, adapter: Adapter, evidence: Evidence) -> Candidate:
        """Return the scores of the adapter that was found on examples that it was not made with."""
        if self.options.select is not None:
            score = scoring.scorer(adapter)
            return Candidate(None, score.nll, score.exact_match)
        kept = evidence.tried[evidence.kept]
        return Candidate(None, kept.nll if kept.held_out is None else kept.held_out, None)

    def _selection(self, scoring: Scoring, candidates: tuple[Candidate, ...], kept: int) -> Selection:
        """Return how candidates, base and average scored, if the gate lets the one that is kept pass."""
        file, nll = scoring.scorer.file, candidates[kept].nll
        selection = Selection(
            file=file.path.name,
            examples=len(file.examples),
            shown=self.inputs.overlap,
            candidates=candidates,
            kept=kept,
            base=scoring.base,
            average=scoring.average,
            averaged=len(self.learned.records) if scoring.average is not None else 0,
            learned=self.learned.count if self.options.gate else 0,
        )
        if self.options.gate:
            check_gate(selection, math.inf if nll is None else nll, str(file.path.absolute()))
        return selection

    def _error(self, adapter: Adapter, whole: Adapter) -> float:
        return compare(adapter, scaled(whole, self.options.scale)).all.error

    def _shaped(self, adapter: Adapter) -> Adapter:
        """Return an adapter in the form that is written: its rank, scale and number format as the options say."""
        options = self.options
        if options.rank is not None:
            adapter = leading(adapter, options.rank)
        if options.scale != 1.0:
            adapter = scaled(adapter, options.scale)
        return adapter if self.request.dtype is None else cast(adapter, self.request.dtype)

    def write(self, out: Path, text: str, generated: GeneratedAdapter, started: float) -> GenResult:
        """Write what was generated of a text.

        Args:
            out: The folder to write.
            text: The task in words.
            generated: The adapter that ``make`` returned for the text.
            started: The time at which its making began, by ``time.monotonic``.

        Raises:
            OutOfSpaceError: If the disk is full; the folder is then what it was before.
        """
        added = {} if self.request.plain else {"options": self.request.asked(self.inputs)} | _added(generated)
        provenance = Provenance(
            self.generator,
            self.request.folder,
            self.base,
            text,
            generated.seed,
            self.request.merged,
            self.options.format,
        )
        model = write(
            out, generated.adapter, provenance, self.loaded,
            dtype=self.options.dtype, added=added, remarks=self._remarks(generated), on_progress=self.on_progress,
        )  # fmt: skip
        return GenResult(
            folder=out,
            task_text=text,
            merged=self.request.merged,
            format=self.options.format,
            rank=generated.adapter.rank,
            bytes=files.folder_bytes(out),
            seconds=time.monotonic() - started,
            seed=generated.seed,
            dtype=self._dtype(model),
            scale=self.options.scale,
            error=generated.error,
            shown=len(self.inputs.demonstrations),
            selection=generated.selection,
            evidence=generated.evidence,
            explanation=generated.explanation,
            no_derivatives=provenance.no_derivatives,
        )

    def _dtype(self, model: WrittenModel | None) -> str:
        """Return the number format of what was written."""
        if model is not None:
            return model.dtype
        return self.options.dtype or (dtype_name(self.loaded.dtype) if self.request.merged else "fp32")

    def _remarks(self, generated: GeneratedAdapter) -> Sequence[str]:
        """Return the sentences that the card has about the options."""
        options, remarks = self.options, list[str]()
        if generated.evidence is not None:
            remarks.append(generated.evidence.told)
        elif self.inputs.shown is not None:
            remarks.append(f"Beside the text the generator was shown {len(self.inputs.demonstrations)} examples.")
        if generated.selection is not None:
            selection, chosen = generated.selection, generated.selection.candidates[generated.selection.kept]
            count = len(selection.candidates)
            which = f", the best of {count} samples" if count > 1 else ""
            remarks.append(
                f"NLL on {selection.examples} examples{which}: {chosen.nll:.4f} nats a token; the base alone: "
                f"{selection.base.nll:.4f}."
            )
        if options.rank is not None:
            remarks.append(f"Kept: {options.rank} of {self.generator.rank} singular directions of each module.")
        if options.scale != 1.0:
            remarks.append(f"delta-W is multiplied by {options.scale:g}.")
        if generated.error:
            remarks.append(f"Relative error of delta-W against the generator's own adapter: {generated.error:.4f}.")
        return remarks


def _added(generated: GeneratedAdapter) -> dict[str, object]:
    return {
        "error": generated.error,
        "selection": None if generated.selection is None else asdict(generated.selection),
        "evidence": None if generated.evidence is None else asdict(generated.evidence),
        "explanation": None if generated.explanation is None else asdict(generated.explanation),
    }
