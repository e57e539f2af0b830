"""Making adapters of texts with a generator and its base, both loaded once, as the options ask for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from icmlora_cli.disk import files
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, average
from icmlora_cli.weights.adapter_form import cast, dtype_name, leading, scaled
from icmlora_cli.weights.compare import compare
from icmlora_cli.workflows.gen.explain import Explanation, Seen, explain, read_seen
from icmlora_cli.workflows.gen.learned import Learned, learned_adapters
from icmlora_cli.workflows.gen.options import GenInputs, GenOptions, GenRequest
from icmlora_cli.workflows.gen.select import CandidateScore, CandidateScorer, Selection, best_of, check_gate, seeds_of
from icmlora_cli.workflows.gen.write import Provenance, write
from icmlora_cli.workflows.merge.write import WrittenModel
from icmlora_cli.workflows.progress import OnProgress


@dataclass(frozen=True)
class GenResult:
    """A generated adapter or merged model.

    Args:
        folder: where it is.
        task_text: what it was asked for.
        merged: whether it is a whole model.
        format: ``peft`` or ``gguf``.
        rank: of the adapter.
        bytes: of the folder.
        seconds: wall time.
        seed: of z; None for the prior's mean.
        dtype: of the written tensors.
        scale: what delta-W was multiplied by.
        error: relative error of delta-W that a lower rank and number format cost; 0 without.
        shown: how many examples the generator was shown beside the text.
        selection: how samples and base scored on examples; None without examples to score on.
        explanation: what it is near to; None if that was not asked for.
        no_derivatives: licences of what the generator (and, merged, the base) learned from that forbid derivatives.
        notes: what there is to say of how the example files were read.
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
    explanation: Explanation | None
    no_derivatives: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """An adapter as it is written, and what is told of it."""

    adapter: Adapter
    seed: int | None
    error: float
    selection: Selection | None
    explanation: Explanation | None


@dataclass(frozen=True)
class AdapterGenerator:
    """A generator with its base, loaded once for any number of texts.

    Args:
        generator: the networks.
        base: its base model.
        reader: reads task vectors as the generator was trained with, from the loaded base.
        store: where harvested adapters are.
        request: what is asked for.
        inputs: the example files that it names.
        on_progress: told of what takes time.
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
        """The options."""
        return self.request.options

    @property
    def loaded(self) -> LoadedBase:
        """The base."""
        return self.reader.loaded

    @cached_property
    def learned(self) -> Learned:
        """The harvested adapters that the generator learned from, where they are here."""
        return learned_adapters(self.generator, self.store, self.base)

    @cached_property
    def seen(self) -> Seen:
        """The training tasks as the generator reads them."""
        return read_seen(self.generator, self.reader, self.on_progress)

    @cached_property
    def candidate_scorer(self) -> CandidateScorer | None:
        """What scores on the examples; None without any."""
        return None if self.inputs.judged is None else CandidateScorer.of(self.loaded, self.inputs.judged)

    @cached_property
    def controls(self) -> tuple[CandidateScore, CandidateScore | None]:
        """The scores of the base and, for the gate, of the average adapter, where any of its adapters is here."""
        assert self.candidate_scorer is not None
        known = tuple(self.learned.adapters.values()) if self.options.gate else ()
        return self.candidate_scorer(None), self.candidate_scorer(average(known)) if known else None

    def make(self, text: str) -> Generated:
        """Return the adapter of a text, the best one where there are examples to choose by.

        Raises:
            GateRefusedError: if the gate is set, and the adapter is no better than the base or the average.
            UsageError: if examples are too long for the base.
        """
        shown = self.inputs.shown
        kind = "plain" if shown is None else shown.template.kind
        if shown is not None:
            self.reader.check_examples(shown.examples, kind)
        words, demonstrations = self.reader.readings(text, self.inputs.demonstrations, kind)
        assert words is not None

        def whole(seed: int | None) -> Adapter:
            return self.generator.generate(words, demonstrations, seed=seed)

        selection = None
        if self.candidate_scorer is None:
            seed, adapter = self.request.seed, self._shaped(whole(self.request.seed))
        else:
            adapter, selection = self._chosen(self.candidate_scorer, lambda seed: self._shaped(whole(seed)))
            seed = selection.candidates[selection.kept].seed
        costs = self.options.rank is not None or self.request.dtype is not None
        error = self._error(adapter, whole(seed)) if costs else 0.0
        told = explain(self.generator, words, adapter, self.seen, self.learned) if self.options.explain else None
        return Generated(adapter, seed, error, selection, told)

    def _chosen(
        self, candidate_scorer: CandidateScorer, make: Callable[[int | None], Adapter]
    ) -> tuple[Adapter, Selection]:
        seeds = seeds_of(self.options.count, self.request.seed)
        adapter, kept, candidates = best_of(make, seeds, candidate_scorer, self.on_progress)
        base, mean = self.controls
        selection = Selection(
            file=candidate_scorer.file.path.name,
            examples=len(candidate_scorer.file.examples),
            shown=self.inputs.overlap,
            candidates=candidates,
            kept=kept,
            base=base,
            average=mean,
            averaged=len(self.learned.adapters) if mean is not None else 0,
            learned=self.learned.count if self.options.gate else 0,
        )
        if self.options.gate:
            check_gate(selection, str(candidate_scorer.file.path.absolute()))
        return adapter, selection

    def _error(self, adapter: Adapter, whole: Adapter) -> float:
        return compare(adapter, scaled(whole, self.options.scale)).all.error

    def _shaped(self, adapter: Adapter) -> Adapter:
        """Return an adapter in the form that is written."""
        options = self.options
        if options.rank is not None:
            adapter = leading(adapter, options.rank)
        if options.scale != 1.0:
            adapter = scaled(adapter, options.scale)
        return adapter if self.request.dtype is None else cast(adapter, self.request.dtype)

    def write(self, out: Path, text: str, generated: Generated, started: float) -> GenResult:
        """Write what was generated of a text.

        Args:
            out: the folder.
            text: the task in words.
            generated: its adapter.
            started: when its making began, by ``time.monotonic``.

        Raises:
            OutOfSpaceError: if the disk is full; the folder is then what it was before.
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
            explanation=generated.explanation,
            no_derivatives=provenance.no_derivatives,
        )

    def _dtype(self, model: WrittenModel | None) -> str:
        """Return the number format of what was written."""
        if model is not None:
            return model.dtype
        return self.options.dtype or (dtype_name(self.loaded.dtype) if self.request.merged else "fp32")

    def _remarks(self, generated: Generated) -> Sequence[str]:
        """Return what the card says of the options."""
        options, remarks = self.options, list[str]()
        if self.inputs.shown is not None:
            remarks.append(f"Beside the text the generator was shown {len(self.inputs.demonstrations)} examples.")
        if generated.selection is not None:
            found, kept = generated.selection, generated.selection.candidates[generated.selection.kept]
            count = len(found.candidates)
            which = f", the best of {count} samples" if count > 1 else ""
            remarks.append(
                f"NLL on {found.examples} examples{which}: {kept.nll:.4f} nats a token; the base alone: "
                f"{found.base.nll:.4f}."
            )
        if options.rank is not None:
            remarks.append(f"Kept: {options.rank} of {self.generator.rank} singular directions of each module.")
        if options.scale != 1.0:
            remarks.append(f"delta-W is multiplied by {options.scale:g}.")
        if generated.error:
            remarks.append(f"Relative error of delta-W against the generator's own adapter: {generated.error:.4f}.")
        return remarks


def _added(generated: Generated) -> dict[str, object]:
    return {
        "error": generated.error,
        "selection": None if generated.selection is None else asdict(generated.selection),
        "explanation": None if generated.explanation is None else asdict(generated.explanation),
    }
