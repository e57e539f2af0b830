"""Gen: a task in words goes in, an adapter folder or a merged model comes out."""

import time
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.baselines.generated import generate_adapter
from icmlora_cli.config.recipes import VectorRecipe
from icmlora_cli.errors import AlreadyExists, BaseUnavailable, CorruptFile
from icmlora_cli.generator.checkpoint import Generator, load_generator
from icmlora_cli.lm.load import LoadedBase, load_base, quiet_transformers
from icmlora_cli.lm.task_vector import VectorReader, checked_text
from icmlora_cli.registry import files, provenance
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.home import Home
from icmlora_cli.report.cards import adapter_card, merged_card
from icmlora_cli.weights.adapter import Adapter, write_adapter
from icmlora_cli.weights.merge import merge
from icmlora_cli.workflows.progress import OnProgress, Progress, silent


@dataclass(frozen=True)
class GenResult:
    """A generated adapter or merged model.

    Args:
        folder: where it is.
        task_text: what it was asked for.
        merged: whether it is a whole model.
        rank: of the adapter.
        bytes: of the folder.
        seconds: wall time.
    """

    folder: Path
    task_text: str
    merged: bool
    rank: int
    bytes: int
    seconds: float


def vector_recipe(generator: Generator) -> VectorRecipe:
    """Return how the generator's task vectors are read.

    Raises:
        CorruptFile: if ``generator.json`` does not say.
    """
    recipe = generator.about.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("vectors"), dict):
        raise CorruptFile("generator.json does not say how task vectors are read")
    return VectorRecipe.model_validate(recipe["vectors"])


def check_base(generator: Generator, base: Base) -> None:
    """Check that the generator was trained on this very base.

    Raises:
        BaseUnavailable: if the weights differ.
    """
    about = generator.about.get("base")
    wanted = about.get("weight_hash") if isinstance(about, dict) else None
    if wanted != base.weight_hash:
        name = about.get("name") if isinstance(about, dict) else "another base"
        raise BaseUnavailable(
            f"the generator was trained on {name}, and the weights of {base.name} are not those",
            where=str(base.path),
            hint=f"--base {name}, or train a generator on {base.name}: icmlora train --base {base.name}",
        )


def base_name(folder: Path) -> str | None:
    """Return the name of the base that a generator's folder names, or None."""
    about = files.read_json(folder / "generator.json").get("base")
    return str(about["name"]) if isinstance(about, dict) and "name" in about else None


def run(
    text: str,
    out: Path,
    generator_folder: Path,
    base: Base,
    home: Home,
    *,
    merged: bool = False,
    seed: int | None = None,
    force: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> GenResult:
    """Generate an adapter and write it as a PEFT folder, or merged into its base.

    Args:
        text: the task in words.
        out: the folder to write.
        generator_folder: a trained generator's.
        base: the base model that it was trained on.
        home: the registry, for cached task vectors.
        merged: write the whole merged model instead of the adapter.
        seed: draw z from the prior with this seed; None takes its mean. Either is repeatable bit for bit.
        force: replace ``out`` if it exists.
        device: where the base reads the text.
        on_progress: told of the three steps.

    Raises:
        UsageFault: if the text is empty or too long.
        AlreadyExists: if ``out`` exists and ``force`` is not set.
        BaseUnavailable: if the base is not the generator's.
        CorruptFile: if the generator is broken.
        OutOfSpace: if the disk is full.
    """
    started = time.monotonic()
    text = checked_text(text)
    _check_out(out, force)
    generator = load_generator(generator_folder)
    check_base(generator, base)
    on_progress(Progress("gen", "load the base", 0, 3))
    loaded = load_base(base, device=device)
    on_progress(Progress("gen", "read the task", 1, 3))
    reader = VectorReader(loaded, vector_recipe(generator), home)
    adapter = generate_adapter(generator, reader, text, seed=seed)
    on_progress(Progress("gen", "write", 2, 3))
    about = _about(generator, generator_folder, base, text, seed, merged)
    with files.new_folder(out.absolute()) as folder:
        if merged:
            _write_merged(folder, loaded, adapter)
            card = merged_card(base_model=base.model_id, task_text=text, generator=generator_folder.name)
        else:
            write_adapter(folder, adapter, revision=base.revision)
            card = _adapter_card(generator, generator_folder, base, text, seed)
        files.write_text(folder / "README.md", card)
        files.write_json(folder / "icmlora.json", about)
    on_progress(Progress("gen", "write", 3, 3))
    return GenResult(out, text, merged, adapter.rank, files.folder_bytes(out), time.monotonic() - started)


def _check_out(out: Path, force: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise AlreadyExists(f"{out} exists", where=str(out.absolute()), hint="--force replaces it, or name another -o")
    ours = out.is_dir() and (out / "icmlora.json").is_file()
    if not ours:
        raise AlreadyExists(
            f"{out} is not something that icmlora wrote, so --force does not replace it",
            where=str(out.absolute()),
            hint="name another folder with -o",
        )


def _write_merged(folder: Path, loaded: LoadedBase, adapter: Adapter) -> None:
    merge(loaded.model, adapter)
    with quiet_transformers():
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def _adapter_card(generator: Generator, folder: Path, base: Base, text: str, seed: int | None) -> str:
    tasks, licences, cost = (generator.about.get(name) for name in ("tasks", "licences", "cost"))
    return adapter_card(
        base_model=base.model_id,
        task_text=text,
        generator=folder.name,
        tasks=len(tasks) if isinstance(tasks, dict) else 0,
        seed=seed,
        licences=licences if isinstance(licences, list) else [],
        cost=cost if isinstance(cost, dict) else {},
    )


def _about(
    generator: Generator, folder: Path, base: Base, text: str, seed: int | None, merged: bool
) -> dict[str, object]:
    return {
        "schema": "icmlora.generated/1",
        "task_text": text,
        "merged": merged,
        "seed": seed,
        "generator": {"name": folder.name, "key": generator.about.get("key"), "sha256": generator.about.get("sha256")},
        "base": {
            "model_id": base.model_id,
            "revision": base.revision,
            "weight_hash": base.weight_hash,
            "licence": base.licence,
        },
        "tasks": generator.about.get("tasks"),
        "licences": generator.about.get("licences"),
        "sources": generator.about.get("sources"),
        "cost": generator.about.get("cost"),
        "versions": provenance.versions(),
        "command": provenance.command_line(),
    }
