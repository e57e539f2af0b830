"""The ``finetune`` workflow: an adapter, or a new one of delta-W zero, is trained on a few examples."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.disk import files
from icmlora_cli.errors import CorruptFileError, NotFoundError, TrainingDivergedError
from icmlora_cli.lm.adapter_base import adapter_base
from icmlora_cli.lm.finetune import finetune
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.trainers import AdapterTrainer, ContinuedTrainer, LoraTrainer
from icmlora_cli.manifests import output as manifests
from icmlora_cli.manifests.output import Finetuned, Generated, Output, read_output
from icmlora_cli.provenance.licences import no_derivatives
from icmlora_cli.provenance.versions import ABOUT, command_line, versions
from icmlora_cli.registry.bases import Base
from icmlora_cli.report.cards import CARD, CardData, tuned_card
from icmlora_cli.weights.adapter import CONFIG, WEIGHTS, Adapter, write_adapter
from icmlora_cli.weights.foreign.config import read_settings
from icmlora_cli.weights.foreign.open import open_adapter
from icmlora_cli.workflows.gen.options import ExampleFile, Template, read_file
from icmlora_cli.workflows.gen.select import CandidateScorer, encoded
from icmlora_cli.workflows.gen.write import listed
from icmlora_cli.workflows.output import check_folder
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

VERSION = 1  # of the procedure; a saved state of another version is not resumed
DEFAULTS = HarvestRecipe(steps=20, learning_rate=1e-3, keep=1)


@dataclass(frozen=True)
class ParentAdapter:
    """The adapter that a training starts from; ``read_parent`` reads it.

    Args:
        folder: The folder of the adapter.
        adapter: The factors of the adapter.
        sha256: The SHA-256 of its weights file.
        held: The content of its ``icmlora.json``; None where it has none.
    """

    folder: Path
    adapter: Adapter
    sha256: str
    held: Output | None

    @property
    def task_text(self) -> str | None:
        """The text from which it was generated; None where it was not generated."""
        return self.held.task_text if isinstance(self.held, Generated) else None

    def recorded(self) -> manifests.Parent:
        """Return what the ``icmlora.json`` of the trained adapter says of this one."""
        generated = self.held if isinstance(self.held, Generated) else None
        return manifests.Parent(
            name=self.folder.resolve().name,
            sha256=self.sha256,
            schema=None if self.held is None else self.held.schema_,
            task_text=None if generated is None else generated.task_text,
            generator=None if generated is None else generated.generator,
            seed=None if generated is None else generated.seed,
        )


@dataclass(frozen=True)
class FinetuneRequest:
    """What to train, on what.

    Args:
        examples: The file of examples: as for ``gen --examples``.
        recipe: Steps, batch size, learning rate and seed; without a parent, rank and alpha too.
        parent: The folder of the adapter to start from; None starts from delta-W zero.
        template: The name of the template by which the examples become prompts.
    """

    examples: Path
    recipe: HarvestRecipe = DEFAULTS
    parent: Path | None = None
    template: Template = "qa"


@dataclass(frozen=True)
class FinetuneResult:
    """The adapter that a training wrote, and the figures of the training.

    Args:
        folder: The folder of the adapter.
        parent: The folder of the adapter that it started from; None where it started from delta-W zero.
        base: The name of the base model.
        examples: The number of examples.
        steps: The number of optimizer steps.
        learning_rate: The peak learning rate.
        seed: The seed of the order of the examples and, without a parent, of lora_A.
        rank: The rank of the adapter.
        before: The NLL on the examples before the first step, nats per token: the mean over examples, or for plain
            text over tokens.
        after: The NLL on the examples after the last step, measured as ``before``.
        losses: For each step of this run, its number and the loss of its batch before the step, nats per answer token.
        resumed: How many steps an interrupted run had done, from which this one went on.
        bytes: The size of the folder in bytes.
        seconds: The wall time of this run in seconds.
        no_derivatives: The licences that forbid derivatives, of the adapter that it started from.
        notes: Remarks on how the examples were read.
    """

    folder: Path
    parent: Path | None
    base: str
    examples: int
    steps: int
    learning_rate: float
    seed: int
    rank: int
    before: float
    after: float
    losses: tuple[tuple[int, float], ...]
    resumed: int
    bytes: int
    seconds: float
    no_derivatives: tuple[str, ...]
    notes: tuple[str, ...]


def base_of(folder: Path) -> str:
    """Return the name of the base that an adapter to start from says it was made for; empty where it does not say.

    Raises:
        CorruptFileError: If its configuration is damaged.
        NotFoundError: If there is no such folder, no adapter in it, or a merged model.
        UnsupportedAdapterError: If it is of another kind than LoRA.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {str(folder)!r}", where=str(folder.absolute()), hint="--from out/")
    manifest = _manifest(folder)
    if manifest is not None and manifest.merged:
        raise NotFoundError(
            f"{folder} holds a merged model, no adapter", where=str(folder.absolute()), hint="without --merge"
        )
    return read_settings(folder).base_model


def read_parent(folder: Path, base: Base) -> ParentAdapter:
    """Read the adapter to start from: one that gen wrote, or any LoRA in PEFT's format.

    Args:
        folder: The PEFT folder.
        base: The base on which it is trained.

    Raises:
        CorruptFileError: If it is damaged.
        NotFoundError: If a file is missing, or the folder holds a merged model.
        UnsupportedAdapterError: If it is of another kind than LoRA, or more than one.
        WrongBaseError: If it was made for another base.
    """
    base_of(folder)
    adapter, digest = open_adapter(folder, adapter_base(base)), files.sha256_file(folder / WEIGHTS)
    manifest = _manifest(folder)
    listed_files = (manifest.files if manifest else None) or {}
    if WEIGHTS in listed_files and listed_files[WEIGHTS].sha256 != digest:
        raise CorruptFileError(f"{WEIGHTS} is not the file that {ABOUT} lists", where=str(folder / WEIGHTS))
    return ParentAdapter(folder, adapter, digest, manifest)


def _manifest(folder: Path) -> Output | None:
    return read_output(folder) if (folder / ABOUT).is_file() else None


def run(
    out: Path,
    request: FinetuneRequest,
    base: Base,
    *,
    force: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> FinetuneResult:
    """Train an adapter on a few examples, and write it as a PEFT folder.

    An interrupted run leaves its state beside ``out``; the same call then resumes it, with the same result.

    Args:
        out: The folder to write.
        request: The examples, how to train on them, and what to start from.
        base: The base model.
        force: Whether ``out`` is replaced if it exists.
        device: The torch device to train on; None takes a GPU where there is one.
        on_progress: Called after each step.

    Raises:
        AlreadyExistsError: If ``out`` exists and ``force`` is not set.
        CorruptFileError: If the parent does not fit the base.
        OutOfSpaceError: If the disk is full.
        SpecError: If the file of examples has faults.
        TrainingDivergedError: If a loss is not finite.
        UnsupportedAdapterError: If the parent is of another kind than LoRA, or more than one.
        UsageError: If there is no such file of examples, or an example is too long.
        WrongBaseError: If the parent was made for another base.
    """
    started = time.monotonic()
    check_folder(out, force)
    examples = read_file(request.examples, request.template)
    parent = None if request.parent is None else read_parent(request.parent, base)
    on_progress(Progress("finetune", "load the base", 0, request.recipe.steps))
    work = _Finetune(out, examples, load_base(base, device=device), request.recipe, parent, on_progress)
    return work.run(started)


@dataclass
class _Finetune:
    """One training, from the loaded base to the written folder."""

    out: Path
    examples: ExampleFile
    loaded: LoadedBase
    recipe: HarvestRecipe
    parent: ParentAdapter | None
    on_progress: OnProgress

    def run(self, started: float) -> FinetuneResult:
        rows = encoded(self.loaded, self.examples)
        losses: list[tuple[int, float]] = []

        def report(step: int, loss: float) -> None:
            losses.append((step, loss))
            self.on_progress(Progress("finetune", self.out.name, step, self.recipe.steps, f"loss {loss:.3f}"))

        state = self.out.absolute().with_name(f".{self.out.absolute().name}.finetune.safetensors")
        files.sweep(state, alone=False)
        trainer = self._trainer()
        try:
            trainer.reset()
            start = trainer.adapter()
            identity = files.sha256_json(self._identity())
            finetune(trainer, rows, state=state, identity=identity, on_step=report)
            adapter = trainer.adapter()
        finally:
            trainer.close()
        scorer = CandidateScorer.of(self.loaded, self.examples)
        before, after = scorer(start).nll, scorer(adapter).nll
        if not math.isfinite(before):
            raise TrainingDivergedError(
                f"before the first step the NLL on the examples is {before}",
                where=str(self.out.absolute()),
                hint="start from another adapter; or look whether the base is damaged: icmlora base show NAME --verify",
            )
        if not math.isfinite(after):
            raise TrainingDivergedError(
                f"after the last step the NLL on the examples is {after}",
                where=str(self.out.absolute()),
                hint=f"a lower --learning-rate than {self.recipe.learning_rate:g}",
            )
        self._write(adapter, before, after)
        state.unlink(missing_ok=True)
        return self._result(adapter, before, after, tuple(losses), started)

    def _trainer(self) -> AdapterTrainer:
        if self.parent is None:
            return LoraTrainer(self.loaded, self.recipe)
        return ContinuedTrainer(self.loaded, self.recipe, self.parent.adapter)

    def _identity(self) -> list[object]:
        recipe = self.recipe.model_dump(mode="json", exclude={"save_every", *self.recipe.later_defaults})
        start = None if self.parent is None else [self.parent.sha256, files.sha256_file(self.parent.folder / CONFIG)]
        weights, template = self.loaded.base.weight_hash, vars(self.examples.template)
        return [VERSION, weights, str(self.loaded.dtype), start, self.examples.identity(), template, recipe]

    @property
    def _data(self) -> CardData:
        return CardData() if self.parent is None or self.parent.held is None else CardData.of(self.parent.held)

    def _write(self, adapter: Adapter, before: float, after: float) -> None:
        base, recipe, parent = self.loaded.base, self.recipe, self.parent
        examples = self.examples.identity() | {"template": self.examples.template.kind}
        about = Finetuned(
            schema="icmlora.finetuned/1",
            merged=False,
            parent=None if parent is None else parent.recorded(),
            base=base.reference(),
            examples=manifests.TrainedOn.model_validate(examples),
            recipe=recipe.model_dump(mode="json"),
            figures={"before": before, "after": after},
            licences=tuple(self._data.licences),
            no_derivatives=no_derivatives(self._data.licences),
            versions=versions(),
            command=command_line(),
        )
        how = (
            f"Trained for {recipe.steps} steps on {len(self.examples.examples)} examples, peak rate "
            f"{recipe.learning_rate:g}: their NLL went from {before:.4f} to {after:.4f} nats a token."
        )
        with files.new_folder(self.out.absolute()) as folder:
            write_adapter(folder, adapter, self.loaded.shapes, revision=base.revision)
            card = tuned_card(
                base_model=base.model_id,
                parent=None if parent is None else parent.folder.resolve().name,
                task_text=None if parent is None else parent.task_text,
                how=how,
                data=self._data,
            )
            files.write_text(folder / CARD, card)
            about.model_copy(update={"files": listed(folder)}).write(folder / ABOUT)

    def _result(
        self, adapter: Adapter, before: float, after: float, losses: tuple[tuple[int, float], ...], started: float
    ) -> FinetuneResult:
        return FinetuneResult(
            folder=self.out,
            parent=None if self.parent is None else self.parent.folder,
            base=self.loaded.base.name,
            examples=len(self.examples.examples),
            steps=self.recipe.steps,
            learning_rate=self.recipe.learning_rate,
            seed=self.recipe.seed,
            rank=adapter.rank,
            before=before,
            after=after,
            losses=losses,
            resumed=self.recipe.steps - len(losses),
            bytes=files.folder_bytes(self.out),
            seconds=time.monotonic() - started,
            no_derivatives=no_derivatives(self._data.licences),
            notes=self.examples.told,
        )
