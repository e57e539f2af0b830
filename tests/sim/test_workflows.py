"""Every workflow on the simulated accelerator, on four architectures: no tensor is left behind on the CPU.

Each is run on the CPU too, and must come to the same result.
"""

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file

from icmlora_cli.config.episodes import EpisodeRecipe
from icmlora_cli.config.evaluate import METHODS, EvalRecipe
from icmlora_cli.config.train import TrainRecipe, VectorRecipe
from icmlora_cli.errors import GateRefusedError
from icmlora_cli.generator.checkpoint import load_generator
from icmlora_cli.lm.stream import Sampling, StreamedText
from icmlora_cli.registry.adapters import AdapterStore
from icmlora_cli.registry.tasks import Task
from icmlora_cli.weights.adapter import Adapter, read_adapter
from icmlora_cli.weights.compare import compare, norm
from icmlora_cli.workflows import finetune
from icmlora_cli.workflows.evaluate import evaluate
from icmlora_cli.workflows.evaluate.evaluate import EvalRequest
from icmlora_cli.workflows.finetune import FinetuneRequest
from icmlora_cli.workflows.gen import generate
from icmlora_cli.workflows.gen.options import GenOptions, GenRequest
from icmlora_cli.workflows.harvest import harvest
from icmlora_cli.workflows.merge import merge
from icmlora_cli.workflows.train import train
from tests import gguf_read
from tests.sim.conftest import HARVEST, Both, Place
from tests.train_recipes import train_recipe, varied

if TYPE_CHECKING:
    from icmlora_cli.serving.engine import Engine

pytestmark = pytest.mark.sim

CLOSE = 1e-3  # relative error of delta-W between the devices: PyTorch cuts work into other pieces
TOKEN = train_recipe(
    steps=6, batch_size=4, learning_rate=3e-3, hidden_dim=16, code_dim=8, latent_dim=4, save_every=3,
    vectors=VectorRecipe(draws=2, shots=2),
)  # fmt: skip
EPISODES = EpisodeRecipe(
    rows=4, builtin="catalog", per_family=1, builtin_examples=4, phrasings=0, contrast_tasks=4, max_tokens=40,
    contrast_weight=0.1, swap_weight=0.5, distill_weight=0.5, distill_examples=4, validation_tasks=2,
    validation_examples=2, validate_every=3,
)  # fmt: skip
RECIPES: dict[str, TrainRecipe] = {
    "token": TOKEN,
    "neighbours": varied(
        TOKEN, prior="neighbours", reader="attention", reader_dim=8, condition_dim=8, token_dropout=0.1,
        condition_noise=0.1, mean_adapter=True, output_scale=True, bounded=0.0, prior_share=0.3,
        vectors=VectorRecipe(pooling="tokens", draws=2, shots=2),
    ),
    "conv1d": varied(TOKEN, arch="conv1d"),
    "p-diff": varied(TOKEN, arch="p-diff"),
    "episodes": varied(TOKEN, episodes=EPISODES, pretrain_steps=2, reader="attention", reader_dim=8, condition_dim=8),
}  # fmt: skip


def same(one: Adapter, two: Adapter) -> bool:
    """Return whether two adapters have the same delta-W, up to rounding."""
    return norm(one) > 0 and compare(one, two).all.error < CLOSE


def adapter_of(place: Place, task: Task) -> Adapter:
    return read_adapter(AdapterStore(place.home).latest(place.base, task).last)


@pytest.mark.parametrize("kind", ["lora", "frozen-a", "frame"])
def test_harvest(both: Both, kind: str) -> None:
    recipe = HARVEST.model_copy(update={"parametrization": kind, "rank": 3, "save_every": 2})
    results = [
        harvest.run(place.seen[:1], place.base, recipe, place.home, device=place.device).records[0] for place in both
    ]
    assert [record.about.device for record in results if record.about] == ["sim:0", "cpu"]
    assert same(*(read_adapter(record.last) for record in results))
    for figure in ("loss", "nll", "exact_match"):
        assert results[0].figures[figure] == pytest.approx(results[1].figures[figure], rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_train(both: Both, name: str) -> None:
    curves, figures = [], []
    for place in both:
        done = train.run(place.seen, place.base, RECIPES[name], place.home, name=name, device=place.device)
        assert done.trained
        generator = load_generator(done.folder)
        assert all(item.device.type == "cpu" for item in generator.tensors().values())
        curves.append({(row[0], loss): value for row in generator.manifest.curve for loss, value in row[1].items()})
        figures.append((done.error, done.validation or 0.0))
    assert curves[0] and curves[0] == pytest.approx(curves[1], rel=2e-2, abs=1e-3)
    assert figures[0] == pytest.approx(figures[1], rel=2e-2, abs=1e-3)


def generator_of(place: Place, name: str = "token") -> Path:
    """Return the folder of the place's generator, which is trained where it is not there yet."""
    return train.run(place.seen, place.base, RECIPES[name], place.home, name=name, device=place.device).folder


def made(place: Place, out: str, **options: object) -> Adapter | dict[str, float]:
    """Return the adapter that ``gen`` writes, or the figures with which the gate refuses it."""
    merged, seed = bool(options.pop("merged", False)), options.pop("seed", None)
    asked = GenRequest(generator_of(place), merged, seed, GenOptions(**options))  # type: ignore[arg-type]
    try:
        result = generate.run(
            "Write cat.", place.folder / out, asked, place.base, place.home, force=True, device=place.device
        )
    except GateRefusedError as error:
        return error.nll
    if merged:
        return {
            name: float(item.float().norm()) for name, item in load_file(result.folder / "model.safetensors").items()
        }
    if options.get("format") == "gguf":
        (path,) = result.folder.glob("*.gguf")
        return {name: float(np.linalg.norm(item)) for name, item in gguf_read.arrays(GGUFReader(path)).items()}
    return read_adapter(result.folder)


GEN: dict[str, Callable[[Place], dict[str, object]]] = {
    "plain": lambda place: {},
    "a seed": lambda place: {"seed": 3},
    "its form": lambda place: {"rank": 1, "dtype": "bf16", "scale": 0.5, "explain": True},
    "gguf": lambda place: {"format": "gguf"},
    "merged": lambda place: {"merged": True},
    "shown examples": lambda place: {"examples": place.examples(), "budget": 0.0},
    "tried examples": lambda place: {"examples": place.examples(3), "samples": 2},
    "the best of samples": lambda place: {"select": place.examples(4), "samples": 2},
    "the gate": lambda place: {"select": place.examples(4), "samples": 2, "gate": True},
}


@pytest.mark.parametrize("name", GEN)
def test_gen(both: Both, name: str) -> None:
    one, two = (made(place, f"gen {name}", **GEN[name](place)) for place in both)
    if isinstance(one, Adapter):
        assert isinstance(two, Adapter) and same(one, two)
    else:
        assert one and one == pytest.approx(two, rel=1e-3)


def test_eval_of_the_whole_ladder(both: Both) -> None:
    # unrelated text goes the same way whatever the method: once is enough
    recipe = EvalRecipe(
        methods=METHODS, limit=2, shots=3, samples=2, multi_task_steps=2, tune_seconds=0.01, evidence_seconds=0.01,
        baseline_steps=2, resamples=100, outputs=1, unrelated=Path(both.sim.base.name).name == "llama",
    )  # fmt: skip
    results = []
    for place in both:
        request = EvalRequest(recipe, generator_of(place))
        out = place.folder / "eval"
        results.append(
            evaluate.run(place.tasks[2:], place.base, request, place.home, out=out, device=place.device).result
        )
    assert results[0].made.device == "sim:0"
    assert {item.name for item in results[0].methods} == set(METHODS)
    timed = {"tuned", "tuned-same-time", "gen-examples"}  # a clock decides these
    for score, other in zip(results[0].scores, results[1].scores, strict=True):
        assert (score.task, score.method, score.reason) == (other.task, other.method, other.reason)
        assert score.reason is None
        if score.method not in timed:
            assert score.figures["nll"].value == pytest.approx(other.figures["nll"].value, rel=1e-3)


def test_finetune(both: Both) -> None:
    results = []
    for place in both:
        recipe = finetune.DEFAULTS.model_copy(update={"steps": 3, "batch_size": 4})
        fresh = finetune.run(
            place.folder / "fresh", FinetuneRequest(place.examples(), recipe), place.base, device=place.device
        )
        on = finetune.run(
            place.folder / "tuned", FinetuneRequest(place.examples(), recipe, fresh.folder), place.base,
            device=place.device,
        )  # fmt: skip
        assert on.after < on.before
        results.append(on)
    assert results[0].after == pytest.approx(results[1].after, rel=1e-4)
    assert same(*(read_adapter(result.folder) for result in results))


@pytest.fixture
def engines(both: Both) -> "Iterator[list[Engine]]":
    """A server's engine on each device, with an adapter and the generator."""
    pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")
    from icmlora_cli.serving.engine import EngineSettings, load_engine

    made: list[Engine] = []
    for place in both:
        adapters = {"own": AdapterStore(place.home).latest(place.base, place.tasks[0]).last}
        made.append(
            load_engine(
                place.base,
                place.home,
                generator=generator_of(place),
                adapters=adapters,
                settings=EngineSettings(queue=20),
                device=place.device,
            )
        )
    yield made
    for engine in made:
        engine.close()


def answer(engine: "Engine", model: str, sampling: Sampling) -> StreamedText:
    """Ask an engine for an answer, and wait for it."""
    from icmlora_cli.serving.engine import GenerationRequest

    inbox: queue.Queue[object] = queue.Queue()
    request = GenerationRequest(tuple(engine.text_ids("one two three")), sampling, engine.find_adapter(model))
    engine.queue.submit(engine.queue.reserve(inbox.put), request)
    while isinstance(event := inbox.get(timeout=120), str):
        pass
    assert isinstance(event, StreamedText), event
    return event


def test_serve(engines: "list[Engine]") -> None:
    for sampling in (Sampling(5, temperature=0.0), Sampling(5, temperature=0.8, top_p=0.9, seed=3)):
        for model in (None, "own", "say_dog", "icm:Write cat."):
            texts = [answer(engine, model or engine.base_name, sampling) for engine in engines]
            assert texts[0].tokens > 0 and texts[0] == texts[1]


def test_merge(both: Both) -> None:
    from transformers import AutoModelForCausalLM

    models = []
    for place in both:
        shares = merge.find_shares([("say_cat", 0.7), ("say_dog", 0.5)], place.home)
        out = place.folder / "merged"
        merge.run(shares, out, place.base, force=True)
        models.append(AutoModelForCausalLM.from_pretrained(out))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(*(model(input_ids=ids).logits for model in models), atol=1e-4)
