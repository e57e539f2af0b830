"""The engine without HTTP: mixed adapters, the same base afterwards, cancelling, limits."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import CorruptFileError, NotFoundError, RequestError, StoppedError, UsageError
from icmlora_cli.lm.stream import Sampling, StreamedText
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.adapter_cache import AdapterCache
from icmlora_cli.serving.engine import Engine, EngineSettings, Question, load_engine
from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter
from icmlora_cli.weights.merge import merged

PROMPT = "one two three"
GREEDY = Sampling(12, temperature=0.0)


def strong_adapter(model: torch.nn.Module, base: Base) -> Adapter:
    """Return an adapter that changes what is written."""
    rng = torch.Generator().manual_seed(5)
    factors = {
        name: Factors(
            torch.randn(3, module.weight.shape[1], generator=rng),
            torch.randn(module.weight.shape[0], 3, generator=rng),
        )
        for name, module in model.named_modules()
        if name.endswith(("o_proj", "down_proj"))
    }
    return Adapter(base.model_id, 6.0, factors)


@pytest.fixture
def engine(llama_base: Base, home: Home, tmp_path: Path) -> Iterator[Engine]:
    """An engine with one adapter."""
    from icmlora_cli.lm.load import load_base

    write_adapter(tmp_path / "own", strong_adapter(load_base(llama_base, device="cpu").model, llama_base))
    made = load_engine(
        llama_base, home, adapters={"own": tmp_path / "own"}, settings=EngineSettings(queue=20), device="cpu"
    )
    yield made
    made.close()


def answers(engine: Engine, asked: list[tuple[str, str]]) -> list[StreamedText]:
    """Ask for everything at once; return the answers in the order of the questions."""
    inboxes = []
    for model, prompt in asked:
        inbox: queue.Queue[object] = queue.Queue()
        engine.ask(Question(tuple(engine.text_ids(prompt)), GREEDY, engine.find(model)), inbox.put)
        inboxes.append(inbox)
    found = []
    for inbox in inboxes:
        pieces, event = "", inbox.get(timeout=120)
        while isinstance(event, str):
            pieces, event = pieces + event, inbox.get(timeout=120)
        assert isinstance(event, StreamedText) and event.text == pieces
        found.append(event)
    return found


def test_mixed_adapters_are_right_and_the_base_is_the_same_afterwards(engine: Engine, llama_base: Base) -> None:
    before = {name: item.clone() for name, item in engine.loaded.model.state_dict().items()}
    base, own = engine.base_name, strong_adapter(engine.loaded.model, llama_base)
    asked = [(name, prompt) for prompt in (PROMPT, "Choose", "The capital") for name in (base, "own", base, "own")]
    found = answers(engine, asked)
    assert answers(engine, list(reversed(asked)))[::-1] == found
    assert all(torch.equal(item, before[name]) for name, item in engine.loaded.model.state_dict().items())
    with merged(engine.loaded.model, own):
        as_merged = answers(engine, [(base, PROMPT)])
    assert found[0] == found[2] and found[1] == found[3] == as_merged[0] and found[0] != found[1]


def test_a_cancelled_answer_is_given_up(engine: Engine) -> None:
    inbox: queue.Queue[object] = queue.Queue()
    asked = Question(tuple(engine.text_ids(PROMPT)), Sampling(450, temperature=1.0, seed=5))
    job = engine.ask(asked, lambda event: (inbox.put(event), job.cancelled.set())[0])  # at its first piece
    while isinstance(event := inbox.get(timeout=120), str):
        pass
    assert isinstance(event, StoppedError)
    assert answers(engine, [("own", PROMPT)])[0].tokens == 12


def test_what_cannot_be_answered_is_told_at_once(engine: Engine, home: Home, llama_base: Base) -> None:
    for name in ("nobody", "../own", str(llama_base.path), "icm:Say cat.", "", "x" * 5000):
        with pytest.raises(NotFoundError) as missing:
            engine.find(name)
        assert len(missing.value.message) < 250
    with pytest.raises(RequestError) as long:
        engine.room([5] * 512, None, "prompt")
    assert long.value.code == "context_length_exceeded"
    assert engine.room([5] * 500, None, "prompt") == engine.room([5] * 500, 12, "prompt") == 12
    for ids in ([], [-1], [10**6]):
        with pytest.raises(RequestError):
            engine.room(ids, 1, "prompt")
    assert "user: hi" in engine.loaded.tokenizer.decode(engine.chat_ids([{"role": "user", "content": "hi"}]))
    assert [model.name for model in engine.models()] == [engine.base_name, "own"]


def test_adapters_are_checked_before_anything_is_served(llama_base: Base, home: Home, tmp_path: Path) -> None:
    from icmlora_cli.lm.load import load_base

    adapter = strong_adapter(load_base(llama_base, device="cpu").model, llama_base)
    (name, item), *_ = adapter.factors.items()
    write_adapter(tmp_path / "misfit", Adapter("x", 1.0, {f"{name}.gone": item}))
    with pytest.raises(CorruptFileError, match="no module"):
        load_engine(llama_base, home, adapters={"x": tmp_path / "misfit"}, device="cpu")
    write_adapter(tmp_path / "own", adapter)
    with pytest.raises(UsageError, match="is the base itself"):
        load_engine(llama_base, home, adapters={llama_base.path.name: tmp_path / "own"}, device="cpu")


def test_the_shelf_keeps_what_was_used_last() -> None:
    made: list[str] = []
    shelf = AdapterCache(2)

    def get(key: str) -> Adapter:
        def make() -> Adapter:
            made.append(key)
            return Adapter(key, 1.0, {})

        return shelf.get(AdapterSource(key, key), make)

    assert [get(key).base_model for key in "abacab"] == [*"abacab"]
    assert made == [*"abcb"] and [rng.key for rng in shelf.sources()] == ["a", "b"]
