"""The request to a generator besides the text: examples to show and to choose by, the gate, the output's form."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from icmlora_cli.disk import files
from icmlora_cli.errors import UsageError
from icmlora_cli.manifests.output import Generated
from icmlora_cli.registry.task_record import IMAGE, PromptTemplate
from icmlora_cli.tasks.examples import Example, have_pictures
from icmlora_cli.tasks.sources import read_examples

if TYPE_CHECKING:  # loading torch takes seconds, and checking options does not need it
    from icmlora_cli.weights.adapter_form import Dtype, Format
    from icmlora_cli.weights.gguf.model import Stored

SAMPLES = 16  # drawn with --select where --samples is not given
MAX_SHOWN = 64  # the most demonstrations, since each is read together with all before it
EVIDENCE_SAMPLES = 8  # drawn with --examples where --samples is not given: given the text, and as many given both
BUDGET = 60.0  # seconds for what examples are worth: about as long as one waits

Template = Literal["qa", "chat", "text"]


@dataclass(frozen=True)
class GenOptions:
    """The options of gen; the defaults give a plain adapter from the text alone.

    Args:
        examples: A file with examples of the task, which are evidence beside the text.
        budget: The seconds that may be spent on the examples; 0 has the generator read them, and no more.
        select: A file with examples that judge, and that nothing is made with.
        samples: The number of samples; None takes 16 with ``select`` alone, 8 with examples, and otherwise 1.
        template: The template by which the examples become prompts, as in a task file.
        gate: Whether an adapter is refused unless it beats the base and the average adapter on the examples.
        rank: The number of singular directions of each module that are kept; None keeps the generator's rank.
        dtype: The number format of the written tensors; None takes fp32 for an adapter, and for a merged model the
            format in which its base is loaded. ``q8_0`` is only for merged models as GGUF.
        scale: The factor by which delta-W is multiplied.
        explain: Whether the nearest tasks and adapters are named, and how far the text is from the training texts.
        format: ``peft`` for PEFT and transformers, or ``gguf`` for llama.cpp.
    """

    examples: Path | None = None
    budget: float = BUDGET
    select: Path | None = None
    samples: int | None = None
    template: Template = "qa"
    gate: bool = False
    rank: int | None = None
    dtype: "Stored | None" = None
    scale: float = 1.0
    explain: bool = False
    format: "Format" = "peft"

    @property
    def searches(self) -> bool:
        """Whether candidates are tried on the examples, rather than the generator just reads them."""
        return self.examples is not None and self.budget > 0

    @property
    def count(self) -> int:
        """The number of samples that are drawn."""
        if self.searches:
            return self.samples or EVIDENCE_SAMPLES
        return self.samples or (1 if self.select is None else SAMPLES)

    def check(self) -> None:
        """Check that the options do not contradict each other.

        Raises:
            UsageError: If they do.
        """
        if not math.isfinite(self.budget) or self.budget < 0:
            raise UsageError(
                f"--budget {self.budget} is no time", hint="--budget with seconds such as 60; 0 tries nothing"
            )
        if self.select is None and not self.searches and self.count > 1:
            raise UsageError(
                f"--samples {self.samples} needs examples to choose by",
                hint=f"--samples {self.samples} --examples FILE, a file with examples of the task",
            )
        if self.gate and self.select is None and self.examples is None:
            raise UsageError(
                "--gate needs examples to compare on", hint="--gate --select FILE, a file with examples of the task"
            )
        if not math.isfinite(self.scale) or self.scale == 0:
            raise UsageError(
                f"--scale {self.scale} leaves no adapter", hint="--scale with a number such as 0.5; 1 changes nothing"
            )


PLAIN = GenOptions()


@dataclass(frozen=True)
class ExampleFile:
    """The examples of a task, read from a file.

    Args:
        path: The path of the file, as the user gave it.
        examples: The examples in the file's order, without repetitions.
        template: The template by which the examples become prompts.
        notes: Remarks on the rule by which the file was read, and on what was left out.
    """

    path: Path
    examples: tuple[Example, ...]
    template: PromptTemplate
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, each with the file's name."""
        return tuple(f"{self.path.name}: {note}" for note in self.notes)

    def identity(self) -> dict[str, object]:
        """Return the number of the examples and their hash, which do not depend on the file's name."""
        rows = [item.content for item in self.examples]
        return {"examples": len(self.examples), "sha256": files.sha256_json(rows)}


@dataclass(frozen=True)
class GenInputs:
    """The example files of a run, read once.

    Args:
        shown: The demonstrations, of ``--examples``; None without any.
        judged: The examples by which samples are chosen and on which the gate compares: those of ``--select``, or with
            ``--gate`` alone the demonstrations; None without any.
    """

    shown: ExampleFile | None = None
    judged: ExampleFile | None = None

    @property
    def demonstrations(self) -> tuple[Example, ...]:
        """The examples that the generator reads besides the text."""
        return () if self.shown is None else self.shown.examples

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the files were read."""
        files_read = dict.fromkeys(file for file in (self.shown, self.judged) if file is not None)
        return tuple(note for file in files_read for note in file.told)

    @property
    def overlap(self) -> int:
        """How many of the examples that adapters are scored on are demonstrations too."""
        return len(set(self.demonstrations) & set(() if self.judged is None else self.judged.examples))


def read_given(options: GenOptions) -> GenInputs:
    """Read the example files that the options name.

    Raises:
        SpecError: If rows are bad, or there is no example.
        UsageError: If there is no such file, it is of another format, or it has too few or too many to show.
    """
    shown = None if options.examples is None else read_file(options.examples, options.template)
    if shown is not None and not options.searches and not 2 <= len(shown.examples) <= MAX_SHOWN:
        few = len(shown.examples) < 2
        raise UsageError(
            f"{shown.path} has {'one example' if few else f'{len(shown.examples):,} examples'}; "
            f"from 2 to {MAX_SHOWN} are shown with --budget 0",
            where=str(shown.path.absolute()),
            hint="add another example" if few else f"put up to {MAX_SHOWN} in a file of their own; 5 are usual",
        )
    judged = None if options.select is None else read_file(options.select, options.template)
    return GenInputs(shown, judged or (shown if options.gate else None))


def read_file(path: Path, template: Template) -> ExampleFile:
    """Read a file of examples.

    Raises:
        SpecError: If rows are bad, or there is no example.
        UsageError: If there is no such file, or it is of another format.
    """
    loaded = read_examples(path, text=template == "text")
    written = IMAGE if have_pictures(loaded.examples) and template == "qa" else PromptTemplate.from_spec(template)
    return ExampleFile(path, loaded.examples, written, loaded.told())


@dataclass(frozen=True)
class GenRequest:
    """What is asked of a generator, whatever the text; the commands and the server make one for each run.

    Args:
        folder: The folder of the trained generator.
        merged: Whether the whole merged model is written instead of the adapter alone.
        seed: The seed with which z is drawn from the prior; None takes the prior's mean. Either is repeatable bit for
            bit. Of several samples it is the seed of the first draw, and 0 for None.
        options: Examples to show and to choose by, the gate, and the form of what is written.
    """

    folder: Path
    merged: bool = False
    seed: int | None = None
    options: GenOptions = PLAIN

    @property
    def dtype(self) -> "Dtype | None":
        """The number format that is asked for an adapter's factors; None where none is, and for a merged model."""
        return None if self.merged or self.options.dtype == "q8_0" else self.options.dtype

    def check(self) -> None:
        """Check that the options suit each other and what is written.

        Raises:
            UsageError: If they do not.
        """
        self.options.check()
        gguf = self.options.format == "gguf"
        if self.options.dtype == "q8_0" and not (gguf and self.merged):
            raise UsageError(
                "--dtype q8_0 is only for a whole model as GGUF",
                hint="--merge --format gguf --dtype q8_0; or --dtype fp16",
            )
        if self.options.dtype == "bf16" and gguf and not self.merged:
            raise UsageError("a LoRA in GGUF is fp32 or fp16", hint="--dtype fp16, or leave it out")

    @property
    def plain(self) -> bool:
        """Whether all options have their defaults, in which case ``icmlora.json`` does not list them."""
        return self.options == PLAIN

    def asked(self, inputs: GenInputs) -> dict[str, object]:
        """Return, in JSON's types, all that decides what is written besides text, generator and base."""
        options = self.options
        return {
            "merged": self.merged,
            "seed": self.seed,
            "examples": None if inputs.shown is None else inputs.shown.identity(),
            "budget": None if inputs.shown is None else options.budget,
            "select": None if options.select is None or inputs.judged is None else inputs.judged.identity(),
            "samples": options.count,
            "template": options.template if inputs.shown or inputs.judged else "qa",
            "gate": options.gate,
            "rank": options.rank,
            "dtype": options.dtype,
            "scale": options.scale,
            "explain": options.explain,
            "format": options.format,
        }


def recorded(manifest: Generated) -> dict[str, object]:
    """Return what ``GenRequest.asked`` gave for an output of gen, from its ``icmlora.json``."""
    if manifest.options is not None:
        # what was done before manifests named a format and a budget
        default: dict[str, object] = {"format": "peft", "budget": 0.0 if manifest.options.get("examples") else None}
        return default | dict(manifest.options)
    plain = GenRequest(Path(), manifest.merged).asked(GenInputs())
    return plain | {"seed": manifest.seed}
