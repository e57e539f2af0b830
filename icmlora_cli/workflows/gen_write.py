"""Writing what gen made: a PEFT folder or a merged model, with its card and ``icmlora.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.errors import AlreadyExists, UsageFault
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.skeleton import checkpoint_of
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.bases import Base
from icmlora_cli.report.cards import adapter_card, merged_card
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.changes import combined, steps_of
from icmlora_cli.weights.shape import Dtype
from icmlora_cli.workflows.gen_options import recorded
from icmlora_cli.workflows.merge_write import WrittenModel, write_model
from icmlora_cli.workflows.progress import OnProgress

ABOUT = "icmlora.json"


@dataclass(frozen=True)
class Origin:
    """What an adapter was made by, and from.

    Args:
        generator: the networks.
        folder: the generator's.
        base: its base model.
        text: the task in words.
        seed: of z; None for the prior's mean.
        merged: a whole model is written.
    """

    generator: Generator
    folder: Path
    base: Base
    text: str
    seed: int | None
    merged: bool

    def about(self) -> dict[str, object]:
        """Return what ``icmlora.json`` holds, but for what options add."""
        about = self.generator.about
        return {
            "schema": "icmlora.generated/1",
            "task_text": self.text,
            "merged": self.merged,
            "seed": self.seed,
            "generator": {"name": self.folder.name, "key": about.get("key"), "sha256": about.get("sha256")},
            "base": self.base.about(),
            "tasks": about.get("tasks"),
            "licences": about.get("licences"),
            "sources": about.get("sources"),
            "cost": about.get("cost"),
            "versions": provenance.versions(),
            "command": provenance.command_line(),
        }

    def card(self, remarks: Sequence[str]) -> str:
        """Return the README.md."""
        name, model = self.folder.name, self.base.model_id
        if self.merged:
            return merged_card(base_model=model, task_text=self.text, generator=name, remarks=remarks)
        tasks, licences, cost = (self.generator.about.get(key) for key in ("tasks", "licences", "cost"))
        return adapter_card(
            base_model=model,
            task_text=self.text,
            generator=name,
            tasks=len(tasks) if isinstance(tasks, dict) else 0,
            seed=self.seed,
            licences=licences if isinstance(licences, list) else [],
            cost=cost if isinstance(cost, dict) else {},
            remarks=remarks,
        )


def identity(about: Mapping[str, object]) -> list[object]:
    """Return, of an ``icmlora.json``, what decides the bytes beside it: text, generator, base and options."""
    generator, base = about.get("generator"), about.get("base")
    made_by = [generator.get("key"), generator.get("sha256")] if isinstance(generator, dict) else []
    weights = base.get("weight_hash") if isinstance(base, dict) else None
    return [about.get("task_text"), made_by, weights, recorded(about)]


def is_free(out: Path) -> bool:
    """Tell whether nothing is there, or an empty folder."""
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))


def check_out(out: Path, force: bool) -> None:
    """Check that a folder may be written.

    Raises:
        AlreadyExists: if it is there and ``force`` is not set, or it is nothing that icmlora wrote.
    """
    if is_free(out):
        return
    if not force:
        raise AlreadyExists(f"{out} exists", where=str(out.absolute()), hint="--force replaces it, or name another -o")
    ours = out.is_dir() and (out / ABOUT).is_file()
    if not ours:
        raise AlreadyExists(
            f"{out} is not something that icmlora wrote, so --force does not replace it",
            where=str(out.absolute()),
            hint="name another folder with -o",
        )


def check_apart(out: Path, inputs: Sequence[Path]) -> None:
    """Check that writing a folder does not do away with what it is made of.

    Raises:
        UsageFault: if it is one of the inputs, or one lies in it.
    """
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise UsageFault(
                f"{out} {'is' if path.resolve() == out.resolve() else 'holds'} what it would be made of",
                where=str(path),
                hint="name another folder with -o",
            )


def write(
    out: Path,
    adapter: Adapter,
    origin: Origin,
    *,
    dtype: Dtype | None,
    added: Mapping[str, object],
    remarks: Sequence[str],
    on_progress: OnProgress,
) -> WrittenModel | None:
    """Write the folder, whole or not at all; one that is there is replaced.

    Args:
        out: the folder.
        adapter: what was made.
        origin: by what, from what.
        dtype: of a merged model's weights; None leaves them as the base has them.
        added: what options add to ``icmlora.json``.
        remarks: what they add to the card.
        on_progress: told of a merged model's files.

    Returns:
        What a merged model is; None of an adapter.

    Raises:
        CorruptFile: if the adapter does not fit the base's files, or a merged number is not finite.
        OutOfSpace: if the disk is full.
        UnsupportedAdapter: if the base's files cannot be changed.
        UsageFault: if the folder is, or holds, the base.
    """
    check_apart(out, [origin.base.path])
    model = None
    with files.new_folder(out.absolute()) as folder:
        if origin.merged:
            checkpoint = checkpoint_of(origin.base)
            changes = combined([(steps_of(adapter, checkpoint.shapes), 1.0)])
            model = write_model(folder, checkpoint, changes, dtype=dtype, on_progress=on_progress)
        else:
            write_adapter(folder, adapter, revision=origin.base.revision)
        files.write_text(folder / "README.md", origin.card(remarks))
        files.write_json(folder / ABOUT, origin.about() | dict(added))
    return model
