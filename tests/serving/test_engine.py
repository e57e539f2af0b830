"""The engine without HTTP: mixed adapters, the same base afterwards, cancelling, limits."""

import json
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("cachetools", reason="the extra icmlora[serve] is not installed")

from icmlora_cli.disk.home import Home
from icmlora_cli.errors import (
    CorruptFileError,
    IcmloraError,
    NotFoundError,
    RequestError,
    StoppedError,
    UnsupportedAdapterError,
    UsageError,
    WrongBaseError,
)
from icmlora_cli.lm.stream import Sampling, StreamedText
from icmlora_cli.registry.bases import Base
from icmlora_cli.serving.adapter_cache import AdapterCache
from icmlora_cli.serving.engine import Engine, EngineSettings, GenerationRequest, load_engine
from icmlora_cli.serving.sources import AdapterSource
from icmlora_cli.weights.adapter import Adapter, Factors, write_adapter
from icmlora_cli.weights.merge import merged
from tests.random_lora import fitting_base

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

    adapter = strong_adapter(load_base(llama_base, device="cpu").model, llama_base)
    write_adapter(tmp_path / "own", adapter, fitting_base(adapter))
    made = load_engine(
        llama_base, home, adapters={"own": tmp_path / "own"}, settings=EngineSettings(queue=20), device="cpu"
    )
    yield made
    made.close()


def answers(engine: Engine, asked: list[tuple[str, str]]) -> list[StreamedText]:
    """Ask for everything at once; return the answers in the order of the requests."""
    inboxes = []
    for model, prompt in asked:
        inbox: queue.Queue[object] = queue.Queue()
        request = GenerationRequest(tuple(engine.text_ids(prompt)), GREEDY, engine.find_adapter(model))
        engine.queue.submit(engine.queue.reserve(inbox.put), request)
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
    request = GenerationRequest(tuple(engine.text_ids(PROMPT)), Sampling(450, temperature=1.0, seed=5))
    job = engine.queue.reserve(lambda event: (inbox.put(event), job.cancelled.set())[0])  # at its first piece
    engine.queue.submit(job, request)
    while isinstance(event := inbox.get(timeout=120), str):
        pass
    assert isinstance(event, StoppedError)
    assert answers(engine, [("own", PROMPT)])[0].tokens == 12


def test_what_cannot_be_answered_is_told_at_once(engine: Engine, home: Home, llama_base: Base) -> None:
    for name in ("nobody", "../own", str(llama_base.path), "icm:Say cat.", "", "x" * 5000):
        with pytest.raises(NotFoundError) as missing:
            engine.find_adapter(name)
        assert len(missing.value.message) < 250
    with pytest.raises(RequestError) as long:
        engine.answer_tokens([5] * 512, "prompt", wanted=None)
    assert long.value.code == "context_length_exceeded"
    assert engine.answer_tokens([5] * 500, "prompt", wanted=None) == 12
    assert engine.answer_tokens([5] * 500, "prompt", wanted=None, usual=16) == 12  # as many as there is room for
    assert engine.answer_tokens([5] * 400, "prompt", wanted=None, usual=16) == 16
    assert engine.answer_tokens([5] * 500, "prompt", wanted=12) == 12
    for ids in ([], [-1], [10**6]):
        with pytest.raises(RequestError):
            engine.answer_tokens(ids, "prompt", wanted=1)
    assert "user: hi" in engine.loaded.tokenizer.decode(engine.chat_ids([{"role": "user", "content": "hi"}]))
    assert [model.name for model in engine.models()] == [engine.base_name, "own"]


def test_adapters_are_checked_before_anything_is_served(llama_base: Base, home: Home, tmp_path: Path) -> None:
    from icmlora_cli.lm.load import load_base

    adapter = strong_adapter(load_base(llama_base, device="cpu").model, llama_base)
    (name, item), *_ = adapter.factors.items()
    misfit = Adapter(llama_base.model_id, 1.0, {f"{name}.gone": item})
    write_adapter(tmp_path / "misfit", misfit, fitting_base(misfit))
    with pytest.raises(WrongBaseError, match="no module"):
        load_engine(llama_base, home, adapters={"x": tmp_path / "misfit"}, device="cpu")
    write_adapter(tmp_path / "own", adapter, fitting_base(adapter))
    with pytest.raises(UsageError, match="is the base itself"):
        load_engine(llama_base, home, adapters={llama_base.path.name: tmp_path / "own"}, device="cpu")


def test_the_cache_keeps_what_was_used_last() -> None:
    made: list[str] = []
    cache = AdapterCache(2)

    def get(key: str) -> Adapter:
        def make() -> Adapter:
            made.append(key)
            return Adapter(key, 1.0, {})

        return cache.get(AdapterSource(key, key), make)

    assert [get(key).base_model for key in "abacab"] == [*"abacab"]
    assert made == [*"abcb"] and [rng.key for rng in cache.sources()] == ["a", "b"]


def test_given_adapters_are_refused_with_the_true_reason(llama_base: Base, home: Home, tmp_path: Path) -> None:
    from icmlora_cli.lm.load import load_base

    folder = tmp_path / "given"
    adapter = strong_adapter(load_base(llama_base, device="cpu").model, llama_base)
    write_adapter(folder, adapter, fitting_base(adapter))
    config = json.loads((folder / "adapter_config.json").read_text())

    def refused(kind: type[IcmloraError], changes: dict[str, object], match: str) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        with pytest.raises(kind, match=match):
            load_engine(llama_base, home, adapters={"own": folder}, device="cpu")

    for init in ("pissa", "pissa_niter_4", "olora", "corda", "loftq"):
        refused(UnsupportedAdapterError, {"init_lora_weights": init}, "relative to a base that")
    refused(UnsupportedAdapterError, {"alora_invocation_tokens": [5, 6]}, "aLoRA")
    refused(WrongBaseError, {"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}, "is for meta-llama")
    refused(CorruptFileError, {"lora_alpha": float("nan")}, "not a finite number")
    refused(CorruptFileError, {"lora_alpha": float("inf")}, "not a finite number")
    refused(CorruptFileError, {"r": 4}, "have rank 3")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "another/name"}))
    engine = load_engine(llama_base, home, adapters={"own": folder}, any_base_name=True, device="cpu")
    engine.close()
    adapter = strong_adapter(load_base(llama_base, device="cpu").model, llama_base)
    write_adapter(folder, adapter, fitting_base(adapter))
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("inf")
    save_file(tensors, folder / "adapter_model.safetensors")
    refused(CorruptFileError, {}, "NaN or infinity")
