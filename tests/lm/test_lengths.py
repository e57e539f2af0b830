"""Examples that are too long for the base are refused with task, example and lengths, before anything is trained."""

import pytest

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.lengths import fits, task_rows
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.methods.method import TaskContext
from icmlora_cli.methods.prompting import BaseMethod, InContextMethod
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.splits import Part, part_of
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.workflows.evaluate.scores import MethodScorer
from icmlora_cli.workflows.evaluate.task_metric import task_metric
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.progress import Progress
from icmlora_cli.workflows.train.episode_tasks import read_tasks
from tests.train_recipes import train_recipe

RECIPE = HarvestRecipe(steps=2, batch_size=4, keep=1, rank=2)
MESSAGE = r"task long: one example has [\d,]+ tokens \('word word .*\.\.\.'\); the base reads 512 at once"


def long_task(home: Home, part: Part) -> Task:
    """Register a task, of which one example of a part has more than 700 tokens."""
    number = next(number for number in range(100) if part_of(f"{'word ' * 700}{number}") == part)
    rows = [Example(f"w{index}", "v") for index in range(40)] + [Example(f"{'word ' * 700}{number}", "v")]
    spec = TaskSpec.model_validate(
        {"name": "long", "description": "Long.", "examples": [{"input": "a", "output": "b"}]}
    )
    return TaskStore(home).add(spec, rows)[0]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_harvest_refuses_before_it_trains(tiny_base: Base, home: Home, part: Part) -> None:
    told: list[Progress] = []
    with pytest.raises(UsageError, match=MESSAGE) as caught:
        harvest.run([long_task(home, part)], tiny_base, RECIPE, home, device="cpu", on_progress=told.append)
    assert caught.value.hint and str(caught.value.where).endswith("examples.jsonl")
    assert not told


def test_evaluation_refuses_a_test_example(llama_base: Base, home: Home) -> None:
    loaded, task = load_base(llama_base, device="cpu"), long_task(home, "test")
    context = TaskContext(task, ())
    scorer = MethodScorer(loaded, described=False, limit=None, outputs=1)
    with pytest.raises(UsageError, match=MESSAGE):
        scorer.score(BaseMethod(), context, None, "key")
    with pytest.raises(UsageError, match=MESSAGE):
        task_metric(loaded, task, task.examples("test"))


def test_in_context_without_room_has_no_figures(llama_base: Base, home: Home) -> None:
    loaded, task = load_base(llama_base, device="cpu"), long_task(home, "train")
    scorer = MethodScorer(loaded, described=False, limit=2, outputs=1)
    score = scorer.score(InContextMethod(), TaskContext(task, task.examples("train")), None, "key")
    assert score.reason is not None and "longer than what the base reads" in score.reason


def test_episodes_leave_long_queries_out_and_count_them(llama_base: Base, home: Home) -> None:
    reader = VectorReader(load_base(llama_base, device="cpu"), VectorRecipe(shots=1, draws=1), home)
    task = long_task(home, "train")
    short = EpisodeRecipe(max_tokens=100, builtin="none")
    recipe = train_recipe(episodes=short, vectors=reader.recipe)
    (read,) = read_tasks([task], [], reader, recipe, short)
    assert read.left_out == 1 and len(read.queries) == task.counts["train"] - 1
    wide = EpisodeRecipe(max_tokens=9000, builtin="none")
    with pytest.raises(UsageError, match="task long: one example has"):
        read_tasks([task], [], reader, recipe.model_copy(update={"episodes": wide}), wide)


def test_what_fits_is_rendered(llama_base: Base, home: Home) -> None:
    loaded, task = load_base(llama_base, device="cpu"), long_task(home, "train")
    rows = task_rows(loaded, task, task.examples("test"))
    assert len(rows) == task.counts["test"] and fits(loaded, rows)
