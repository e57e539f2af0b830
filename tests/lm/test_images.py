"""How bases that read images read rows, beside what transformers says of the same rows; needs Pillow."""

import hashlib
import io
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.harvest import HarvestRecipe
from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.batching import answer_log_probs
from icmlora_cli.lm.core_tuning import CoreBase
from icmlora_cli.lm.decode import greedy
from icmlora_cli.lm.in_context import encode_with_shots
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.passes import StepPasses
from icmlora_cli.lm.prompts import Encoded, encode
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.lm.side_by_side import SharedPasses, make_slots
from icmlora_cli.lm.targets import target_layout, target_modules
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.lm.trainers import make_trainer
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import IMAGE, QA
from icmlora_cli.tasks.examples import Example, Picture
from icmlora_cli.weights.frame import FrameSpec, seeded_frame
from icmlora_cli.weights.layout import stack_of
from icmlora_cli.workflows.base.pull import pull
from tests import vision_base

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

ANSWERS = (
    "cat<loc_1><loc_22><loc_333><loc_999>",
    "dog<loc_7><loc_7><loc_70><loc_70>dog<loc_8><loc_8><loc_9><loc_9>",
    "no",
)


def picture(number: int) -> Picture:
    data = vision_base.image_bytes(number)
    return Picture(hashlib.sha256(data).hexdigest(), ".png", data)


EXAMPLES = tuple(Example("<OD>", answer, picture=picture(number)) for number, answer in enumerate(ANSWERS))


@pytest.fixture(scope="module", params=["florence", "llava"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = getattr(vision_base, request.param)(tmp_path_factory.mktemp("vision") / request.param)
    return made


@pytest.fixture
def loaded(folder: Path, home: Home) -> LoadedBase:
    return load_base(pull(str(folder), home, offline=True), device="cpu")


@pytest.fixture
def rows(loaded: LoadedBase) -> list[Encoded]:
    return [encode(loaded.family, IMAGE, example) for example in EXAMPLES]


def alone(loaded: LoadedBase, example: Example, row: Encoded) -> torch.Tensor:
    """The log-probabilities at a row's answer, [K, vocabulary], as transformers computes them of processor's inputs."""
    processor = loaded.processor
    assert processor is not None and example.picture is not None
    image = Image.open(io.BytesIO(example.picture.read()))
    answer = torch.tensor([row.answer_ids])
    with torch.no_grad():
        if row.apart:
            given = processor(text=[example.input], images=[image], return_tensors="pt")
            assert tuple(given["input_ids"][0].tolist()) == row.prompt_ids
            start = torch.tensor([loaded.family.start])
            logits = loaded.model(**given, decoder_input_ids=torch.cat([start, answer[:, :-1]], dim=1)).logits[0]
        else:
            given = processor(text=[f"<image>{example.input}"], images=[image], return_tensors="pt")
            assert tuple(given["input_ids"][0].tolist()) == row.prompt_ids
            ids = torch.cat([given["input_ids"], answer], dim=1)
            logits = loaded.model(
                input_ids=ids, pixel_values=given["pixel_values"], attention_mask=torch.ones_like(ids)
            ).logits[0, :-1]
    return logits[-answer.shape[1] :].float().log_softmax(-1)


def test_a_batch_says_of_each_row_what_the_model_says_of_it_alone(loaded: LoadedBase, rows: list[Encoded]) -> None:
    batch = loaded.batch(rows)
    log_probs, right = answer_log_probs(loaded.model, batch)
    seen = set()
    for at, (example, row) in enumerate(zip(EXAMPLES, rows, strict=True)):
        every, ids = alone(loaded, example, row), torch.tensor(row.answer_ids)
        wanted = every.gather(1, ids[:, None])[:, 0]
        assert torch.allclose(log_probs[at, batch.place(len(ids))], wanted, atol=1e-5)
        assert bool(right[at].all()) == bool((every.argmax(-1) == ids).all())
        seen.add(tuple(every[0].tolist()))
    assert len(seen) == 3  # the images count


def test_locations_are_written_and_read_back(loaded: LoadedBase, rows: list[Encoded]) -> None:
    if rows[0].apart:
        assert loaded.family.written((), rows[0].answer_ids) == ANSWERS[0]
    texts = greedy(loaded, rows, batch_size=2, stop=None)
    alone_text = greedy(loaded, rows[2:], stop=None)
    assert texts[2].startswith(alone_text[0])
    assert len(score_rows(loaded, rows).nll) == 3


@pytest.mark.parametrize("parametrization", ["lora", "frame"])
def test_adapters_side_by_side_learn_what_each_learns_alone(
    loaded: LoadedBase, rows: list[Encoded], parametrization: str
) -> None:
    targets = "auto" if rows[0].apart else ["q_proj", "v_proj"]
    recipe = HarvestRecipe(rank=2, parametrization=parametrization, target_modules=targets)
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


def test_each_row_has_its_own_core_in_every_stack(loaded: LoadedBase, rows: list[Encoded]) -> None:
    layout = target_layout(loaded.model, "auto" if rows[0].apart else ["q_proj", "v_proj"])
    stacks = {stack_of(item.name) for item in layout.modules}
    assert stacks == ({"encoder", "decoder", "vision"} if rows[0].apart else {"", "vision"})
    assert len(set(layout.places())) == len(layout.modules)
    base = CoreBase(loaded, seeded_frame(layout, FrameSpec(0, 4), "base"))
    cores = torch.randn(3, len(layout.modules), 4, 4, generator=torch.Generator().manual_seed(0))
    together = base.losses(rows, cores)
    for at, row in enumerate(rows):
        assert float(base.losses([row], cores[at, None])) == pytest.approx(float(together[at]), abs=1e-4)


def test_an_examples_vector_is_the_last_position_and_several_are_averaged(loaded: LoadedBase, home: Home) -> None:
    reader = VectorReader(loaded, VectorRecipe(layer=1.0, shots=2, draws=2), home)
    with torch.no_grad():
        wanted = []
        for example in EXAMPLES:
            row = encode(loaded.family, IMAGE, example)
            wanted.append(loaded.family.states([row], loaded.device, 1.0)[0][-1])
    assert torch.allclose(reader.examples_vector(EXAMPLES), torch.stack(wanted).mean(0), atol=1e-5)
    assert reader.read_examples(EXAMPLES).shape == (1, reader.size)
    tokens = VectorReader(loaded, VectorRecipe(layer=1.0, pooling="tokens"), home)
    assert torch.allclose(tokens.read_examples(EXAMPLES), torch.stack(wanted), atol=1e-5)
    assert reader.draws(EXAMPLES, seed=0).shape == (2, reader.size)
    assert reader.text("Find the cat.").shape == (reader.size,)
    if wanted and encode(loaded.family, IMAGE, EXAMPLES[0]).apart:
        row = encode(loaded.family, IMAGE, EXAMPLES[0])
        batch = loaded.batch([row])
        given = torch.tensor([[*loaded.family.start, *row.answer_ids]])
        with torch.no_grad():
            out = loaded.model(**{**batch.inputs, "decoder_input_ids": given}, output_hidden_states=True)
        assert torch.allclose(wanted[0], out.decoder_hidden_states[-1][0, -1], atol=1e-5)


def test_what_it_cannot_read_is_said(loaded: LoadedBase, rows: list[Encoded], llama_base: Base, home: Home) -> None:
    text = encode(loaded.family, QA, Example("a", "b"))
    with pytest.raises(UsageError, match="some rows of a pass have an image, and others have none"):
        loaded.batch([rows[0], text])
    with pytest.raises(UsageError, match="this base reads text alone"):
        encode(load_base(llama_base, device="cpu").family, IMAGE, EXAMPLES[0])
    task = type("T", (), {"name": "t", "template": IMAGE, "descriptions": ("d",)})()
    with pytest.raises(UsageError, match="a prompt has one image"):
        encode_with_shots(loaded.family, task, EXAMPLES[:1], EXAMPLES[1:])
    if rows[0].apart:
        with pytest.raises(UsageError, match="refuses the prompt"):
            encode(loaded.family, QA, EXAMPLES[0])
        with pytest.raises(UsageError, match="Conv2d, and a LoRA goes on linear layers only"):
            target_modules(loaded.model, ["conv1"])
