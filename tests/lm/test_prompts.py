"""Rows of plain text: windows after the prefix token, in which every token is learned."""

import pytest

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import WINDOW, DecoderCoder, encode_task, encode_text, prefix_token, text_ids
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec


def text_task(home: Home, passages: list[str]) -> Task:
    values = {"name": "book", "description": "A book.", "template": "text", "examples": [{"text": "a"}]}
    return TaskStore(home).add(TaskSpec.model_validate(values), [Example("", passage) for passage in passages])[0]


def test_windows_hold_every_token_once(tiny_base: Base) -> None:
    tokenizer = load_base(tiny_base, device="cpu").tokenizer
    text = "one two three four five.\n\n" * 60
    rows = encode_text(DecoderCoder(tokenizer), text)
    assert [token for row in rows for token in row.answer_ids] == text_ids(tokenizer, text)
    assert len(rows) > 2
    assert all(row.prompt_ids == (prefix_token(tokenizer),) for row in rows)
    assert all(len(row.answer_ids) == WINDOW for row in rows[:-1]) and len(rows[-1].answer_ids) <= WINDOW


def test_a_task_of_plain_text_has_a_row_a_window(llama_base: Base, home: Home) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    passages = [f"Passage {number}. " + "one two three " * 40 for number in range(20)]
    task = text_task(home, passages)
    examples = task.examples("train")
    rows = encode_task(DecoderCoder(tokenizer), task, examples)
    assert rows == [row for item in examples for row in encode_text(DecoderCoder(tokenizer), item.output)]
    told = encode_task(DecoderCoder(tokenizer), task, examples, described=True)
    assert tokenizer.decode(told[0].prompt_ids[1:]) == "A book.\n\n"
    assert [row.answer_ids for row in told] == [row.answer_ids for row in rows]


def test_the_prefix_token_is_bos_or_else_eos(llama_base: Base) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    assert prefix_token(tokenizer) == tokenizer.eos_token_id
    tokenizer.bos_token = "<pad>"
    assert prefix_token(tokenizer) == tokenizer.pad_token_id
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(UsageError, match="neither a BOS nor an EOS"):
        prefix_token(tokenizer)
