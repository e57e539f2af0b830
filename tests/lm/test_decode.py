"""Greedy decoding equals transformers' own, and what is exact by one pass is written by decoding."""

import torch

from icmlora_cli.disk.home import Home
from icmlora_cli.lm.decode import SPARE, greedy
from icmlora_cli.lm.in_context import encode_with_shots
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.prompts import DecoderCoder, Encoded, encode_task
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.tasks import Task, TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec


def test_it_is_what_generate_writes(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    prompts = ["Q: which animal\nA:", "Choose", "The capital of Italy is Rome. one two three"]
    rows = [
        Encoded(tuple(loaded.tokenizer.encode(text)), tuple(loaded.tokenizer.encode(" answer"))) for text in prompts
    ]
    written = greedy(loaded, rows, batch_size=2, stop=None)
    longest = len(rows[0].answer_ids) + SPARE
    for row, text in zip(rows, written, strict=True):
        ids = torch.tensor([row.prompt_ids])
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=longest, do_sample=False, pad_token_id=0
        )
        assert text == loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_it_stops_where_it_is_told(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    rows = [Encoded(tuple(loaded.tokenizer.encode("one two")), (5, 6, 7))]
    (whole,) = greedy(loaded, rows, stop=None)
    stop = whole[2]
    assert greedy(loaded, rows, stop=stop) == (whole.split(stop)[0],)


def task(home: Home, template: object) -> Task:
    rows = [{"input": f"word {index}", "output": f"out {index}"} for index in range(20)]
    spec = TaskSpec.model_validate({"name": "t", "description": "Say out.", "examples": rows, "template": template})
    return TaskStore(home).add(spec, [Example(**row) for row in rows])[0]


def test_shots_stand_before_each_prompt(llama_base: Base, home: Home) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    made = task(home, "qa")
    shots, examples = [Example("a", "b"), Example("c", "d")], [Example("e", "f")]
    (row,) = encode_with_shots(DecoderCoder(tokenizer), made, examples, shots)
    assert tokenizer.decode(row.prompt_ids) == "Q: a\nA: b\nQ: c\nA: d\nQ: e\nA:"
    assert tokenizer.decode(row.answer_ids) == " f\n"
    (told,) = encode_with_shots(DecoderCoder(tokenizer), made, examples, shots, described=True)
    assert tokenizer.decode(told.prompt_ids) == "Say out.\nQ: a\nA: b\nQ: c\nA: d\nQ: e\nA:"
    assert encode_with_shots(DecoderCoder(tokenizer), made, examples, []) == encode_task(
        DecoderCoder(tokenizer), made, examples
    )


def test_shots_are_turns_with_a_chat_template(llama_base: Base, home: Home) -> None:
    tokenizer = load_base(llama_base, device="cpu").tokenizer
    (row,) = encode_with_shots(DecoderCoder(tokenizer), task(home, "chat"), [Example("e", "f")], [Example("a", "b")])
    assert tokenizer.decode(row.prompt_ids) == "user: a\nassistant: b\nuser: e\nassistant: "


def test_settings_that_come_with_the_base_change_nothing(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    rows = [Encoded(tuple(loaded.tokenizer.encode(text)), tuple(range(20, 32))) for text in ("one two", "Choose")]
    wanted = greedy(loaded, rows, stop=None)
    own = loaded.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.min_new_tokens = 5.0, 1, 9
    assert greedy(loaded, rows, stop=None) == wanted
    assert loaded.model.generation_config is own and own.repetition_penalty == 5.0
