"""The ``gen`` workflow: a task in words goes in, an adapter folder or a merged model comes out."""

import time
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from icmlora_cli.config.train import TrainRecipe, VectorRecipe, nested
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import BaseUnavailableError, CorruptFileError, UsageError
from icmlora_cli.generator.checkpoint import Generator, load_generator, read_config
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.bases import Base
from icmlora_cli.tasks.task_text import checked_text
from icmlora_cli.workflows.gen.generator import AdapterGenerator, GenResult
from icmlora_cli.workflows.gen.options import GenInputs, GenRequest, read_given
from icmlora_cli.workflows.gen.write import check_format
from icmlora_cli.workflows.output import check_folder
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, notes_of_vectors, silent

__all__ = [
    "GenResult",
    "adapter_generator_on",
    "base_name",
    "check",
    "check_base",
    "load_adapter_generator",
    "run",
    "vector_recipe",
]


def vector_recipe(generator: Generator) -> VectorRecipe:
    """Return the settings by which the generator reads task vectors, from the recipe in ``generator.json``.

    Raises:
        CorruptFileError: If ``generator.json`` has no such settings.
    """
    if generator.manifest.recipe is None:
        raise CorruptFileError("generator.json does not say how task vectors are read")
    try:
        return TrainRecipe.model_validate(nested(generator.manifest.recipe)).data.vectors
    except ValidationError as error:
        raise CorruptFileError("generator.json does not say how task vectors are read") from error


def check_base(generator: Generator, base: Base) -> None:
    """Check that the generator was trained on this very base.

    Raises:
        BaseUnavailableError: If the weights differ.
    """
    weight_hash, name = generator.manifest.base.weight_hash, generator.manifest.base.name
    if weight_hash != base.weight_hash:
        raise BaseUnavailableError(
            f"the generator was trained on {name}, and the weights of {base.name} are not those",
            where=str(base.path),
            hint=f"--base {name}, or train a generator on {base.name}: icmlora train --base {base.name}",
        )


def base_name(folder: Path) -> str:
    """Return the name of the base that a generator was trained on.

    Raises:
        CorruptFileError: If ``generator.json`` is broken.
    """
    return read_config(folder).base.name


def check(request: GenRequest, base: Base) -> tuple[Generator, GenInputs]:
    """Check a request, and read the generator and the example files; the base is not loaded.

    Raises:
        UsageError: If the options contradict each other or do not suit the generator.
        SpecError: If a file with examples has faults.
        BaseUnavailableError: If the generator was trained on another base.
        CorruptFileError: If the generator is broken.
        UnsupportedAdapterError: If the format cannot express what is asked for.
    """
    options = request.options
    request.check()
    inputs = read_given(options)
    generator = load_generator(request.folder)
    check_base(generator, base)
    check_format(request, base)
    if options.rank is not None and options.rank > generator.rank:
        raise UsageError(
            f"--rank {options.rank} is more than the rank of this generator's adapters, {generator.rank}",
            where=str(request.folder),
            hint=f"--rank {generator.rank} or less",
        )
    return generator, inputs


def load_adapter_generator(
    request: GenRequest,
    generator: Generator,
    inputs: GenInputs,
    base: Base,
    home: Home,
    device: str | None,
    on_progress: OnProgress,
) -> AdapterGenerator:
    """Load the base, and return what makes adapters with it; the arguments are those of ``adapter_generator_on``.

    Raises:
        CorruptFileError: If the base is damaged.
        UsageError: If there is no such device.
    """
    on_progress(Progress("gen", "load the base", 0, 3))
    return adapter_generator_on(
        load_base(base, device=device, on_note=notes_of_memory(on_progress)),
        request,
        generator,
        inputs,
        home,
        on_progress,
    )


def adapter_generator_on(
    loaded: LoadedBase,
    request: GenRequest,
    generator: Generator,
    inputs: GenInputs,
    home: Home,
    on_progress: OnProgress,
) -> AdapterGenerator:
    """Return what makes adapters with a base that is loaded already.

    Args:
        loaded: The base of the generator.
        request: What is asked of the generator.
        generator: The generator, as ``check`` read it.
        inputs: The example files, as ``check`` read them.
        home: The registry, for cached task vectors and harvested adapters.
        on_progress: Called at each step that takes time.
    """
    reader = VectorReader(loaded, vector_recipe(generator), home, notes_of_vectors(on_progress))
    return AdapterGenerator(generator, loaded.base, reader, AdapterStore(home), request, inputs, on_progress)


def run(
    text: str,
    out: Path,
    request: GenRequest,
    base: Base,
    home: Home,
    *,
    force: bool = False,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> GenResult:
    """Generate an adapter and write it as PEFT or GGUF, alone or merged into its base.

    Args:
        text: The task in words.
        out: The folder to write.
        request: The generator, and what is asked of it.
        base: The base model that the generator was trained on.
        home: The registry, for cached task vectors and harvested adapters.
        force: Whether ``out`` is replaced if it exists.
        device: The torch device on which the base reads the text; None takes a GPU where there is one.
        on_progress: Called at each of the three steps.

    Raises:
        UsageError: If the text is empty or too long, or the options contradict each other or do not suit the generator.
        SpecError: If a file with examples has faults.
        AlreadyExistsError: If ``out`` exists and ``force`` is not set.
        BaseUnavailableError: If the generator was trained on another base.
        CorruptFileError: If the generator is broken.
        GateRefusedError: If the adapter is no better than the base or the average; nothing is written then.
        OutOfSpaceError: If the disk is full.
        UnsupportedAdapterError: If the format cannot be written for the base.
    """
    started = time.monotonic()
    text = checked_text(text)
    check_folder(out, force)
    generator, inputs = check(request, base)
    adapter_generator = load_adapter_generator(request, generator, inputs, base, home, device, on_progress)
    on_progress(Progress("gen", "read the task", 1, 3))
    generated = adapter_generator.make(text)
    on_progress(Progress("gen", "write", 2, 3))
    result = adapter_generator.write(out, text, generated, started)
    on_progress(Progress("gen", "write", 3, 3))
    return replace(result, notes=inputs.notes)
