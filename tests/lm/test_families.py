"""How an encoder-decoder base reads rows, beside what transformers and PEFT say of the same rows."""

from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import IGNORED, answer_log_probs
from icmlora_cli.lm.core_tuning import CoreBase
from icmlora_cli.lm.cost import meta_base
from icmlora_cli.lm.decode import greedy
from icmlora_cli.lm.in_context import encode_with_shots
from icmlora_cli.lm.lengths import cut_rows
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.passes import StepPasses
from icmlora_cli.lm.perplexity import score_texts
from icmlora_cli.lm.prompts import Encoded, encode
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.side_by_side import SharedPasses, make_slots
from icmlora_cli.lm.targets import target_layout, target_modules
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.lm.teacher import top_tokens
from icmlora_cli.lm.trainers import make_trainer
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import CHAT, QA, Task
from icmlora_cli.registry.tasks import TaskStore
from icmlora_cli.tasks.examples import Example
from icmlora_cli.tasks.task_file import TaskSpec
from icmlora_cli.weights.frame import FrameSpec, seeded_frame
from icmlora_cli.weights.layout import stack_of

EXAMPLES = (Example("one", "Paris"), Example("two three", "Rome is far"), Example("the blue whale", "no"))


@pytest.fixture
def loaded(encoder_decoder: Base) -> LoadedBase:
    return load_base(encoder_decoder, device="cpu")


@pytest.fixture
def rows(loaded: LoadedBase) -> list[Encoded]:
    return [encode(loaded.family, QA, example) for example in EXAMPLES]


def alone(loaded: LoadedBase, row: Encoded) -> torch.Tensor:
    """The log-probabilities at a row's answer, [K, vocabulary], by transformers' own loss on labels."""
    ids = torch.tensor([row.prompt_ids])
    labels = torch.tensor([[*loaded.family.start[1:], *row.answer_ids]])
    with torch.no_grad():
        logits = loaded.model(input_ids=ids, labels=labels).logits[0]
    return logits.float().log_softmax(-1)[len(loaded.family.start) - 1 :]


def test_a_row_has_the_special_tokens_of_its_tokenizer(loaded: LoadedBase, rows: list[Encoded]) -> None:
    tokenizer, row = loaded.tokenizer, rows[1]
    assert list(row.prompt_ids) == tokenizer("Q: two three\nA:").input_ids
    marked = tokenizer("Rome is far").input_ids
    assert [*loaded.family.start, *row.answer_ids] == [loaded.family.start[0], *marked]
    assert row.answer_ids[-1] == tokenizer.eos_token_id and row.length == len(row.prompt_ids)
    assert loaded.family.start == ((1, 2) if loaded.model.config.model_type == "bart" else (0,))


def test_a_batch_says_of_each_row_what_the_model_says_of_it_alone(loaded: LoadedBase, rows: list[Encoded]) -> None:
    batch = loaded.batch(rows)
    log_probs, right = answer_log_probs(loaded.model, batch)
    assert bool((batch.labels[2, batch.place(len(rows[2].answer_ids))] != IGNORED).all())
    for at, row in enumerate(rows):
        every, ids = alone(loaded, row), torch.tensor(row.answer_ids)
        wanted = every.gather(1, ids[:, None])[:, 0]
        assert torch.allclose(log_probs[at, batch.place(len(ids))], wanted, atol=1e-5)
        assert float(log_probs[at].sum()) == pytest.approx(float(wanted.sum()), abs=1e-4)
        assert bool(right[at].all()) == bool((every.argmax(-1) == ids).all())


def test_greedy_decoding_writes_what_scoring_calls_exact(loaded: LoadedBase, rows: list[Encoded]) -> None:
    texts = greedy(loaded, rows, batch_size=2)
    with torch.no_grad():
        for row, text in zip(rows, texts, strict=True):
            given = list(loaded.family.start)
            for _ in range(max(len(item.answer_ids) for item in rows) + 4):
                logits = loaded.model(
                    input_ids=torch.tensor([row.prompt_ids]), decoder_input_ids=torch.tensor([given])
                ).logits
                given.append(int(logits[0, -1].argmax()))
                if given[-1] == loaded.tokenizer.eos_token_id:
                    break
            whole = loaded.tokenizer.decode(given[len(loaded.family.start) :], skip_special_tokens=True)
            assert whole.startswith(text)
            own = Encoded(row.prompt_ids, tuple(given[len(loaded.family.start) :]), apart=True)
            assert score_rows(loaded, [own]).exact == (True,)


def test_what_a_teacher_says_is_at_the_answers_start(loaded: LoadedBase, rows: list[Encoded], tmp_path: Path) -> None:
    trainer = make_trainer(loaded, HarvestRecipe(rank=2))
    adapter = trainer.adapter()  # of delta-W zero
    trainer.close()
    for row, top in zip(rows, top_tokens(loaded, adapter, "a", rows, tmp_path), strict=True):
        assert torch.allclose(top.log_probs, alone(loaded, row).topk(16).values, atol=1e-4)


@pytest.mark.parametrize("parametrization", ["lora", "frame"])
def test_adapters_side_by_side_learn_what_each_learns_alone(
    loaded: LoadedBase, rows: list[Encoded], parametrization: str
) -> None:
    recipe = HarvestRecipe(rank=2, parametrization=parametrization)
    side = make_slots(loaded, recipe, 2)
    for slot in side.slots:
        slot.reset()
    losses = SharedPasses(side).gradients({0: rows[:2], 1: rows[2:]})
    gradients = [{name: item.grad.clone() for name, item in slot.parameters.items()} for slot in side.slots]
    side.close()
    trainer = make_trainer(loaded, recipe)
    for at, own in enumerate((rows[:2], rows[2:])):
        trainer.reset()
        assert float(StepPasses(trainer).gradients(own)) == pytest.approx(float(losses[at]), abs=1e-5)
        for name, item in trainer.parameters.items():
            assert torch.allclose(item.grad, gradients[at][name], atol=1e-5), name
    trainer.close()


def test_each_row_has_its_own_core_in_both_stacks(loaded: LoadedBase, rows: list[Encoded]) -> None:
    layout = target_layout(loaded.model, "auto")
    assert {stack_of(item.name) for item in layout.modules} == {"encoder", "decoder"}
    base = CoreBase(loaded, seeded_frame(layout, FrameSpec(0, 4), "base"))
    cores = torch.randn(3, len(layout.modules), 4, 4, generator=torch.Generator().manual_seed(0))
    together = base.losses(rows, cores)
    for at, row in enumerate(rows):
        assert float(base.losses([row], cores[at, None])) == pytest.approx(float(together[at]), abs=1e-4)
    assert len(set(layout.places())) == len(layout.modules)


def test_a_descriptions_states_are_the_encoders_and_examples_are_read_at_the_decoders_start(
    loaded: LoadedBase, home: Home
) -> None:
    reader = VectorReader(loaded, VectorRecipe(layer=1.0, shots=2, draws=2), home)
    prompt = "Task: Say Rome.\nQ:"
    ids = loaded.tokenizer(prompt).input_ids
    start = torch.tensor([loaded.family.start])
    with torch.no_grad():
        out = loaded.model(input_ids=torch.tensor([ids]), decoder_input_ids=start, output_hidden_states=True)
    assert torch.allclose(reader.text("Say Rome."), out.encoder_hidden_states[-1][0].mean(0), atol=1e-5)
    asked = torch.tensor([loaded.tokenizer("Q: one\nA: Paris\nQ: two\nA:").input_ids])
    with torch.no_grad():
        out = loaded.model(input_ids=asked, decoder_input_ids=start, output_hidden_states=True)
    last = out.decoder_hidden_states[-1][0, -1]
    assert torch.allclose(reader.demonstrations([Example("one", "Paris")], "two"), last, atol=1e-5)
    pair = [Example("one", "Paris"), Example("two", "Rome")]
    (state,) = reader.read_all([reader.question_state(pair)])
    assert torch.allclose(state[0].float(), last, atol=1e-2)  # kept in fp16


def test_shots_stand_in_the_encoders_prompt(loaded: LoadedBase, home: Home) -> None:
    task = _task(home)
    (row,) = encode_with_shots(loaded.family, task, [Example("x", "y")], [Example("a", "b")])
    assert list(row.prompt_ids) == loaded.tokenizer("Q: a\nA: b\nQ: x\nA:").input_ids
    assert loaded.tokenizer.decode(row.answer_ids[:-1]) == "y"


def test_long_prompts_and_answers_are_cut_apart() -> None:
    cut = cut_rows([Encoded((1, 2, 3, 4, 5), (6, 7, 8, 9), apart=True)], 4, keep_first=None)
    assert cut.rows == [Encoded((2, 3, 4, 5), (6, 7, 8), apart=True)] and (cut.cut, cut.tokens) == (1, 2)


def test_what_needs_a_decoder_alone_says_so(loaded: LoadedBase, encoder_decoder: Base) -> None:
    with pytest.raises(UsageError, match="packing needs a base that is a decoder alone"):
        StepPasses(make_trainer(loaded, HarvestRecipe(packing=True)))
    with pytest.raises(UsageError, match="plain text"):
        score_texts(loaded, ["a text"])
    with pytest.raises(UsageError, match="decoder alone"):
        meta_base(encoder_decoder.path, "it", dtype=torch.float32)
    with pytest.raises(UsageError, match="template: chat"):
        encode(loaded.family, CHAT, EXAMPLES[0])


def test_a_module_that_is_not_linear_is_named(loaded: LoadedBase) -> None:
    norm = "layer_norm" if loaded.model.config.model_type == "t5" else "final_layer_norm"
    with pytest.raises(UsageError, match="a LoRA goes on linear layers only"):
        target_modules(loaded.model, [norm])


def _task(home: Home) -> Task:
    rows = [{"input": f"word {index}", "output": "cat"} for index in range(40)]
    spec = TaskSpec.model_validate({"name": "say_cat", "description": "Say cat.", "examples": rows})
    return TaskStore(home).add(spec, [Example(**row) for row in rows])[0]
