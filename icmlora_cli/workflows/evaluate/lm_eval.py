"""Scores adapters with EleutherAI's lm-evaluation-harness on a base that is loaded already (extra ``lm-eval``)."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from icmlora_cli.errors import IcmloraError, NotFoundError, UsageError
from icmlora_cli.lm.load import LoadedBase, quiet_transformers
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.progress import OnProgress, Progress, silent

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@dataclass(frozen=True)
class HarnessRequest:
    """What lm-eval is asked to score, and how.

    Args:
        tasks: Names or patterns of lm-eval's tasks, groups and tags.
        include: A folder with the user's own task files; None knows lm-eval's tasks only. A task file can run Python
            code of its folder.
        limit: The most documents that are scored of each task; None scores all.
        num_fewshot: The number of examples in each prompt; None takes what the task says.
        batch_size: The number of requests in one forward pass.
        max_length: The most tokens that the model reads at once; None takes as many as it was made for.
    """

    tasks: tuple[str, ...]
    include: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 8
    max_length: int | None = None


@dataclass(frozen=True)
class HarnessFigure:
    """The value of one metric of a task.

    Args:
        value: The value in lm-eval's unit.
        stderr: The standard error; None where lm-eval has none.
        higher_is_better: Whether a higher value is better; None where the task does not say.
    """

    value: float
    stderr: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class HarnessResult:
    """The scores that lm-eval gave to adapters.

    Args:
        figures: The figures by the adapter's name, lm-eval's task (or group), and metric. A metric is named
            ``exact_match``, or ``exact_match,strict-match`` where lm-eval filters the answers first.
        samples: The number of documents that were scored of each task.
        version: The version of lm-eval.
        limit: The most documents that were scored of each task; None for all.
        seconds: The wall time in seconds.
    """

    figures: Mapping[str, Mapping[str, Mapping[str, HarnessFigure]]]
    samples: Mapping[str, int]
    version: str
    limit: int | None
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        figures = {
            name: {
                task: {metric: dict(vars(figure)) for metric, figure in metrics.items()}
                for task, metrics in tasks.items()
            }
            for name, tasks in self.figures.items()
        }
        return dict(vars(self)) | {"figures": figures, "samples": dict(self.samples)}


def check(request: HarnessRequest) -> None:
    """Check that lm-eval is installed and knows the tasks, before anything is scored.

    Raises:
        NotFoundError: If lm-eval has no such task.
        UsageError: If lm-eval is not installed, or ``request.include`` is no folder.
    """
    with _quiet():
        _checked(_harness(request.include)[2], request.tasks)


def run(
    adapters: Mapping[str, Adapter | None],
    loaded: LoadedBase,
    request: HarnessRequest,
    *,
    on_progress: OnProgress = silent,
) -> HarnessResult:
    """Score each adapter on lm-eval's tasks; nothing is written to stdout or stderr.

    Args:
        adapters: The adapters by name, scored in this order; None stands for the base alone. Each is merged into the
            base while it is scored.
        loaded: The base; its weights are the same afterwards.
        request: The tasks, and how they are scored.
        on_progress: Called before each adapter, and at the end.

    Raises:
        IcmloraError: If lm-eval fails (such as at a dataset that cannot be fetched).
        NotFoundError: If lm-eval has no such task.
        UsageError: If no task is named, lm-eval is not installed, or ``request.include`` is no folder.
    """
    started = time.monotonic()
    if not request.tasks:
        raise UsageError("no task of lm-eval is named", hint="such as: --lm-eval hellaswag")
    with _quiet():
        hflm, simple_evaluate, manager, version = _harness(request.include)
        names = _checked(manager, request.tasks)
        model = hflm(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size=request.batch_size,
            max_length=request.max_length,
        )
    figures: dict[str, Mapping[str, Mapping[str, HarnessFigure]]] = {}
    samples: dict[str, int] = {}
    for index, (name, adapter) in enumerate(adapters.items()):
        on_progress(Progress("lm-eval", name, index, len(adapters), ", ".join(names)))
        with merged(loaded.model, adapter), _quiet():
            try:
                results = simple_evaluate(
                    model=model,
                    tasks=names,
                    task_manager=manager,
                    limit=request.limit,
                    num_fewshot=request.num_fewshot,
                    log_samples=False,
                )
            except Exception as error:  # tasks run code of many authors, which may raise anything
                raise _failed(names, error) from error
        figures[name] = _figures(results)
        samples |= {task: int(counts["effective"]) for task, counts in results.get("n-samples", {}).items()}
    on_progress(Progress("lm-eval", ", ".join(names), len(adapters), len(adapters)))
    return HarnessResult(figures, samples, version, request.limit, time.monotonic() - started)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence lm-eval and its tasks, which print on the terminal, and restore torch's random state afterwards."""
    nowhere = io.StringIO()
    with redirect_stdout(nowhere), redirect_stderr(nowhere), quiet_transformers(), torch.random.fork_rng(devices=[]):
        yield


def _harness(include_path: Path | None) -> "tuple[Any, Any, TaskManager, str]":
    """Return lm-eval's model class, its entry point, its tasks, and its version."""
    if include_path is not None and not include_path.is_dir():
        raise UsageError(f"there is no folder {str(include_path)!r}", where=str(include_path.absolute()))
    try:
        from importlib.metadata import version

        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UsageError(
            f"lm-evaluation-harness cannot be imported: {error}", hint='pip install "icmlora[lm-eval]"'
        ) from error
    manager = TaskManager(include_path=None if include_path is None else str(include_path))
    return HFLM, simple_evaluate, manager, version("lm_eval")


def _checked(manager: "TaskManager", tasks: Sequence[str]) -> list[str]:
    """Return the names of lm-eval's tasks that match the given names and patterns, each once."""
    names: list[str] = []
    for task in tasks:
        matches = sorted(manager.match_tasks([task]))
        if not matches:
            close = get_close_matches(task, manager.all_tasks, n=5)
            raise NotFoundError(
                f"lm-eval has no task {task!r}" + (f"; close: {', '.join(close)}" if close else ""),
                hint="all of them: lm-eval ls tasks; a folder of your own: --lm-eval-include FOLDER",
            )
        names += [name for name in matches if name not in names]
    return names


def _failed(names: Sequence[str], error: Exception) -> IcmloraError:
    lines = str(error).strip().splitlines()
    return IcmloraError(
        f"lm-eval failed on {', '.join(names)}: {type(error).__name__}: {lines[0] if lines else 'it says no more'}",
        hint="a task fetches its dataset from the hub unless that is in the cache or its files are local; "
        "try the task alone: lm-eval run --tasks ... --limit 2",
    )


def _figures(output: Mapping[str, Any]) -> dict[str, dict[str, HarnessFigure]]:
    """Return the numbers of lm-eval's ``results``, whose keys are ``metric,filter`` and ``metric_stderr,filter``."""
    figures: dict[str, dict[str, HarnessFigure]] = {}
    for task, results in output["results"].items():
        higher = output.get("higher_is_better", {}).get(task, {})
        for key, value in results.items():
            metric, _, filtered = key.partition(",")
            if not isinstance(value, int | float) or metric.endswith("_stderr") or not filtered:
                continue
            stderr = results.get(f"{metric}_stderr,{filtered}")
            figures.setdefault(task, {})[metric if filtered == "none" else key] = HarnessFigure(
                float(value), float(stderr) if isinstance(stderr, int | float) else None, higher.get(metric)
            )
    return figures
