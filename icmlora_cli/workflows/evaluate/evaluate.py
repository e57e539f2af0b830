"""The ``eval`` workflow: methods are compared on held-out test examples through one loaded base; resumable."""

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from icmlora_cli.config.evaluate import EvalRecipe
from icmlora_cli.disk import files
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import AlreadyExistsError, UsageError
from icmlora_cli.lm.architectures import is_encoder_decoder, only_decoders
from icmlora_cli.lm.load import load_base
from icmlora_cli.manifests.notes import ScoreTime, Timings
from icmlora_cli.methods.method import Method, TaskContext
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task
from icmlora_cli.report.html import write_report
from icmlora_cli.report.result import RESULT, Result, write_result
from icmlora_cli.report.tables import TABLE, markdown
from icmlora_cli.tasks.unrelated import unrelated_passages
from icmlora_cli.workflows.evaluate import lm_eval, lm_eval_rows
from icmlora_cli.workflows.evaluate.lm_eval import HarnessRequest
from icmlora_cli.workflows.evaluate.methods import EvalContext, evaluation, methods_of
from icmlora_cli.workflows.evaluate.result import compose, oracle
from icmlora_cli.workflows.evaluate.scores import MethodScorer, RawScore, read_score, write_score
from icmlora_cli.workflows.gen.generate import check_base
from icmlora_cli.workflows.progress import OnProgress, Progress, notes_of_memory, silent

SCORES = "scores"
TIMINGS = "timings.json"


@dataclass(frozen=True)
class EvalRequest:
    """What an evaluation compares, and how.

    Args:
        recipe: The methods, and how they are scored.
        generator_folder: The folder of the generator that is scored; None leaves out the methods that need one.
        lm_eval: Tasks of lm-eval on which base, generated and harvested adapters are scored as well; None leaves
            lm-eval out.
    """

    recipe: EvalRecipe
    generator_folder: Path | None = None
    lm_eval: HarnessRequest | None = None


@dataclass(frozen=True)
class EvalResult:
    """A finished evaluation.

    Args:
        folder: The folder with ``result.json``, ``table.md``, ``report.html``, ``timings.json`` and ``scores/``.
        result: The content of ``result.json``.
        scored: How many scores this run computed; the others are from an earlier run, or have no figures.
        lm_eval: The scores on lm-eval's tasks, one row for each adapter; None where they were not asked for.
        seconds: The wall time of this run in seconds.
    """

    folder: Path
    result: Result
    scored: int
    lm_eval: list[dict[str, object]] | None
    seconds: float


def default_folder(home: Home, generator_folder: Path | None, protocol: str) -> Path:
    """Return the result folder where the user names none: ``results/<generator>-<protocol>`` in the registry."""
    name = "no-generator" if generator_folder is None else generator_folder.name
    return home.root / "results" / f"{name}-{protocol}"


def run(
    tasks: Sequence[Task],
    base: Base,
    request: EvalRequest,
    home: Home,
    *,
    out: Path | None = None,
    device: str | None = None,
    on_progress: OnProgress = silent,
) -> EvalResult:
    """Score the methods on the tasks' test examples and write the result folder.

    Each score is written as soon as it is known. A run that was stopped goes on from there, and writes the same
    ``result.json`` as an uninterrupted one, except for methods that train for a given wall time.

    Args:
        tasks: The tasks on whose test examples the methods are scored.
        base: The base model.
        request: The methods, how they are scored, and the generator.
        home: The registry.
        out: The result folder; None takes ``default_folder``.
        device: The torch device on which the base runs; None takes a GPU where there is one.
        on_progress: Called before each method of each task, and after each task.

    Raises:
        UsageError: If there is no task, no method can be scored, or lm-eval is to score a base that has an encoder.
        AlreadyExistsError: If ``out`` holds something else.
        BaseUnavailableError: If the generator is of another base.
        CorruptFileError: If a generator or adapter is broken.
        OutOfSpaceError: If the disk is full.
    """
    started = time.monotonic()
    recipe, generator_folder = request.recipe, request.generator_folder
    if not tasks:
        raise UsageError("there is no task to score", hint="icmlora task list")
    folder = (out or default_folder(home, generator_folder, recipe.protocol)).absolute()
    _check_out(folder)
    if request.lm_eval is not None:
        lm_eval.check(request.lm_eval)
    loaded = load_base(base, device=device, on_note=notes_of_memory(on_progress))
    if request.lm_eval is not None:
        only_decoders(loaded.model, base.public_name, "--lm-eval")
    shared = evaluation(tasks, loaded, home, recipe, generator_folder, on_progress)
    if shared.generator is not None:
        check_base(shared.generator, base)
    methods = methods_of(shared)
    if not methods:
        raise UsageError("none of the methods asked for can be there without a generator", hint="icmlora train")
    passages = unrelated_passages() if recipe.unrelated and not is_encoder_decoder(loaded.model.config) else ()
    scorer = MethodScorer(loaded, recipe.protocol == "described", recipe.limit, recipe.outputs, passages)
    contexts = [context_of(task, shared) for task in tasks]
    scores: list[RawScore] = []
    scored = 0
    for index, context in enumerate(contexts):
        task_scores, new = _score_task(shared, scorer, context, methods, folder, (index, len(tasks)), on_progress)
        scores += task_scores
        scored += new
    result = compose(shared, contexts, methods, scores)
    _write(folder, result, scores)
    harnessed = None if request.lm_eval is None else lm_eval_rows.run(shared, tasks, request.lm_eval, folder)
    return EvalResult(folder, result, scored, harnessed, time.monotonic() - started)


def _score_task(
    shared: EvalContext,
    scorer: MethodScorer,
    context: TaskContext,
    methods: Sequence[Method],
    folder: Path,
    place: tuple[int, int],
    on_progress: OnProgress,
) -> tuple[list[RawScore], int]:
    """Return the scores of the methods on a task, from their files where these hold them, and how many are new.

    Args:
        shared: The base, the generator and the training tasks.
        scorer: Scores a method.
        context: The task with its shots.
        methods: The methods, in order.
        folder: The result folder.
        place: The index of the task, and how many there are.
        on_progress: Called before each method, and after the last one.
    """
    record, adapter = shared.library.store.newest(shared.loaded.base, context.task), oracle(shared, context.task)
    compared_with = None if record is None else record.checkpoints[-1].sha256
    scores: list[RawScore] = []
    new, (index, tasks), name = 0, place, context.task.name
    for done, method in enumerate(methods):
        on_progress(Progress("eval", name, done, len(methods), method.name, index, tasks))
        path = folder / SCORES / context.task.name / f"{method.name}.json"
        key = scorer.key(method, context, compared_with)
        score = read_score(path, key)
        if score is None:
            score = scorer.score(method, context, adapter, key)
            write_score(path, score)
            new += score.reason is None
        scores.append(score)
    on_progress(Progress("eval", name, len(methods), len(methods), "", index + 1, tasks))
    return scores, new


def context_of(task: Task, shared: EvalContext) -> TaskContext:
    """Return what methods may know of a task; its shots are drawn from its part ``train`` by the recipe's seed."""
    examples = list(task.examples("train"))
    digest = hashlib.sha256(f"{shared.recipe.seed}:shots:{task.name}".encode()).digest()
    shots = random.Random(digest).sample(examples, min(shared.recipe.shots, len(examples)))
    return TaskContext(task, tuple(shots))


def _check_out(folder: Path) -> None:
    if not folder.exists():
        return
    empty = folder.is_dir() and not any(folder.iterdir())
    if not empty and not (folder / SCORES).is_dir() and not (folder / RESULT).is_file():
        raise AlreadyExistsError(
            f"{folder.name} is there and holds no evaluation", where=str(folder), hint="name another folder with -o"
        )


def _write(folder: Path, result: Result, scores: Sequence[RawScore]) -> None:
    times = tuple(ScoreTime(task=score.task, method=score.method, seconds=score.seconds) for score in scores)
    Timings(schema="icmlora.timings/2", unit="seconds", scores=times).write(folder / TIMINGS)
    files.write_text(folder / TABLE, markdown(result))
    write_result(folder, result)
    write_report(folder, result)
