"""Writing what gen made: a PEFT folder or a merged model, with its card and ``icmlora.json``."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from icmlora_cli.errors import AlreadyExists
from icmlora_cli.generator.checkpoint import Generator
from icmlora_cli.lm.load import LoadedBase, quiet_transformers
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.licences import no_derivatives
from icmlora_cli.registry.provenance import ABOUT
from icmlora_cli.report.cards import CARD, Data, adapter_card, merged_card
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.merge import merge, merged
from icmlora_cli.weights.shape import DTYPES, Dtype
from icmlora_cli.workflows.gen_options import recorded


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
        about, data = self.generator.about, Data.of_manifest(self.generator.about)
        return {
            "schema": "icmlora.generated/1",
            "task_text": self.text,
            "merged": self.merged,
            "seed": self.seed,
            "generator": {"name": self.folder.name, "key": about.get("key"), "sha256": about.get("sha256")},
            "base": {
                "model_id": self.base.model_id,
                "revision": self.base.revision,
                "weight_hash": self.base.weight_hash,
                "licence": self.base.licence,
            },
            "tasks": about.get("tasks"),
            "licences": about.get("licences"),
            "unlicensed": data.unlicensed,
            "datasets": list(data.datasets),
            "no_derivatives": list(self.no_derivatives),
            "sources": about.get("sources"),
            "cost": about.get("cost"),
            "versions": provenance.versions(),
            "command": provenance.command_line(),
        }

    @property
    def data(self) -> Data:
        """What it learned from; of a merged model, the base's licence is among the licences."""
        data = Data.of_manifest(self.generator.about)
        if not self.merged or self.base.licence is None:
            return data
        return replace(data, licences=sorted({*data.licences, self.base.licence}))

    @property
    def no_derivatives(self) -> tuple[str, ...]:
        """The licences of what it learned from that forbid derivatives."""
        return no_derivatives(self.data.licences)

    def card(self, remarks: Sequence[str]) -> str:
        """Return the README.md."""
        name, model, data = self.folder.name, self.base.model_id, self.data
        if self.merged:
            return merged_card(base_model=model, task_text=self.text, generator=name, data=data, remarks=remarks)
        tasks = self.generator.about.get("tasks")
        return adapter_card(
            base_model=model,
            task_text=self.text,
            generator=name,
            tasks=len(tasks) if isinstance(tasks, dict) else 0,
            seed=self.seed,
            data=data,
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


def write(
    out: Path,
    adapter: Adapter,
    origin: Origin,
    loaded: LoadedBase,
    *,
    dtype: Dtype | None,
    added: Mapping[str, object],
    remarks: Sequence[str],
) -> None:
    """Write the folder, whole or not at all; one that is there is replaced.

    Args:
        out: the folder.
        adapter: what was made.
        origin: by what, from what.
        loaded: the base; it is the same afterwards.
        dtype: of a merged model's weights; None leaves them as they are loaded.
        added: what options add to ``icmlora.json``.
        remarks: what they add to the card.

    Raises:
        OutOfSpace: if the disk is full.
    """
    with files.new_folder(out.absolute()) as folder:
        if origin.merged:
            _write_merged(folder, loaded, adapter, dtype)
        else:
            write_adapter(folder, adapter, revision=origin.base.revision)
        files.write_text(folder / CARD, origin.card(remarks))
        files.write_json(folder / ABOUT, origin.about() | dict(added) | {"files": listed(folder)})


def listed(folder: Path) -> dict[str, dict[str, object]]:
    """Return bytes and SHA-256 of each file but the card, which may be edited."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
        for path in sorted(folder.iterdir())
        if path.name != CARD
    }


def _write_merged(folder: Path, loaded: LoadedBase, adapter: Adapter, dtype: Dtype | None) -> None:
    with quiet_transformers():
        if dtype is None:
            with merged(loaded.model, adapter):
                loaded.model.save_pretrained(folder)
        else:
            model = copy.deepcopy(loaded.model).float()  # the sum is rounded once, to what is asked for
            merge(model, adapter)
            model.to(DTYPES[dtype]).save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
