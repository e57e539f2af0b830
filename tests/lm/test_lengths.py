"""Examples that are too long for the base are refused with task, example and lengths, before anything is trained."""

import pytest

from icmlora_cli.cli.harvest import cut_warning
from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.lengths import cut_rows, fits, task_rows
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import DecoderCoder, Encoded, encode_text
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


def test_rows_lose_the_start_of_their_prompt_and_it_is_counted() -> None:
    rows = [Encoded((1, 2, 3), (4,)), Encoded((1, 2, 3, 4, 5), (6, 7)), Encoded((2, 3), (4, 5, 6, 7))]
    done = cut_rows(rows, 4, keep_first=1)
    assert done.rows == [rows[0], Encoded((1, 5), (6, 7)), Encoded((3,), (4, 5, 6))]
    assert (done.cut, done.tokens, done.longest) == (2, 3 + 2, 7)
    assert cut_rows(rows, 4, keep_first=None).rows[1] == Encoded((4, 5), (6, 7))
    assert cut_rows(rows, 2, keep_first=1).rows == [Encoded((3,), (4,)), Encoded((5,), (6,)), Encoded((3,), (4,))]
    for length in (None, 7):
        whole = cut_rows(rows, length, keep_first=1)
        assert whole.rows == rows and (whole.cut, whole.tokens, whole.longest) == (0, 0, 7)


def test_plain_text_is_cut_into_windows_and_loses_nothing(llama_base: Base) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    text = "one two three four " * 60
    rows = encode_text(DecoderCoder(tokenizer), text, max_length=40)
    assert {row.length for row in rows[:-1]} == {40} and rows[-1].length <= 40
    whole = [
        token for row in encode_text(DecoderCoder(tokenizer), text, max_length=100_000) for token in row.answer_ids
    ]
    assert [token for row in rows for token in row.answer_ids] == whole
    with pytest.raises(UsageError, match="max_length: 2"):
        encode_text(DecoderCoder(tokenizer), text, description="A long description of it.", max_length=2)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_harvest_cuts_to_a_length_and_says_how_much(llama_base: Base, home: Home, part: Part) -> None:
    said: list[Progress] = []
    recipe = HarvestRecipe.model_validate(RECIPE.model_dump() | {"max_length": 60})
    task = long_task(home, part)
    (record,) = harvest.run([task], llama_base, recipe, home, device="cpu", on_progress=said.append).records
    figures = record.figures
    assert figures["cut_examples"] == 1 and figures["cut_tokens"] == figures["longest"] - 60 > 600
    told = [item.detail for item in said if "cut to 60 tokens" in item.detail]
    assert told == ([f"1 of {task.counts['train']} examples cut to 60 tokens"] if part == "train" else [])
    warning = cut_warning(record, recipe.max_length)
    assert warning.startswith(
        f"warning: long: one example lost {int(figures['cut_tokens']):,} tokens to max_length: 60"
    )
    wide = HarvestRecipe.model_validate(RECIPE.model_dump() | {"max_length": 600})
    with pytest.raises(UsageError, match="the base reads 512 at once"):
        harvest.run([task], llama_base, wide, home, device="cpu")
