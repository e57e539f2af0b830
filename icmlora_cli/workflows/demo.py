"""The ``demo`` workflow: harvest, train, generate and evaluate on a small real language model; resumable."""

import time
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.recipes import resolve
from icmlora_cli.config.train import TrainRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.workflows.base.pull import resolve as resolve_base
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import OnProgress, silent
from icmlora_cli.workflows.registry import storage
from icmlora_cli.workflows.train import train

BASE = "smollm2-135m"
SEEN = (
    "pick_first_of_3",
    "pick_last_of_3",
    "first_letter_upper",
    "capitalize_word",
    "sentiment_word",
    "color_among_animals_3",
)
UNSEEN = ("pick_first_of_4", "pick_last_of_4", "past_word")  # the last is unlike all that it learns
SHOWN = "pick_last_of_3"  # the task whose adapter is written


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Args:
        home: The folder of the demo's registry.
        evaluation: The comparison of all methods.
        storage: The bytes of adapters and generator, and from how many tasks on a generator is smaller.
        adapter: The folder of a generated adapter.
        task_text: The text from which that adapter was generated.
        seconds: The wall time of this run in seconds.
    """

    home: Path
    evaluation: evaluate.EvalResult
    storage: storage.StorageReport
    adapter: Path
    task_text: str
    seconds: float


def run(
    home: Home, *, base: str = BASE, device: str | None = None, offline: bool = False, on_progress: OnProgress = silent
) -> DemoResult:
    """Run the demo; a run that was stopped goes on where it was.

    Args:
        home: The demo's own registry; its cache may be shared.
        base: The name of the base model.
        device: The torch device on which the base runs; None takes a GPU where there is one.
        offline: Whether nothing is fetched.
        on_progress: Called in every stage.

    Raises:
        BaseUnavailableError: If the base cannot be fetched.
        IcmloraError: If one of the stages fails.
    """
    started = time.monotonic()
    resolved = resolve_base(base, home, offline=offline, on_progress=on_progress)
    store = TaskStore(home)
    seen, unseen = _tasks(store, SEEN), _tasks(store, UNSEEN)
    harvest_recipe = resolve(HarvestRecipe, Path("harvest/demo"), "harvest", {})
    harvest.run(seen, resolved, harvest_recipe, home, device=device, on_progress=on_progress)
    train_recipe = resolve(TrainRecipe, Path("train/demo"), "train", {})
    generator = train.run(seen, resolved, train_recipe, home, name="demo", device=device, on_progress=on_progress)
    text = next(task for task in seen if task.name == SHOWN).descriptions[0]
    adapter = home.root / "adapter"
    request = GenRequest(generator.folder)
    generate.run(text, adapter, request, resolved, home, force=True, device=device, on_progress=on_progress)
    recipe = resolve(EvalRecipe, Path("eval/demo"), "eval", {})
    result = evaluate.run(
        seen + unseen,
        resolved,
        evaluate.EvalRequest(recipe, generator.folder),
        home,
        device=device,
        on_progress=on_progress,
    )
    return DemoResult(home.root, result, storage.run(home), adapter, text, time.monotonic() - started)


def _tasks(store: TaskStore, names: tuple[str, ...]) -> tuple[Task, ...]:
    return tuple(store.add_builtin(name) for name in names)
