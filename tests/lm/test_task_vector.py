"""Task vectors: what is read, that it is cached, and what text is refused."""

import pytest
import torch

from icmlora_cli.config.recipes import VectorRecipe
from icmlora_cli.errors import UsageFault
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.task_vector import VectorReader
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.examples import Example
from icmlora_cli.registry.home import Home


def reader(base: Base, home: Home, **values: float) -> VectorReader:
    return VectorReader(load_base(base, device="cpu"), VectorRecipe.model_validate(values), home)


def test_a_text_vector_is_the_mean_hidden_state(tiny_base: Base, home: Home) -> None:
    read = reader(tiny_base, home, layer=0.5)
    assert read.layer == 1
    ids = torch.tensor([read.loaded.tokenizer.encode("Task: Say cat.\nQ:")])
    states = read.loaded.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(read.text("  Say   cat. "), states[1][0].mean(0), atol=1e-5)


def test_demonstrations_are_read_at_the_open_question(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    shown = [Example("a", "b"), Example("c", "d")]
    ids = torch.tensor([read.loaded.tokenizer.encode("Q: a\nA: b\nQ: c\nA: d\nQ: e\nA:")])
    states = read.loaded.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(read.demonstrations(shown, "e"), states[read.layer][0, -1], atol=1e-5)


def test_draws_repeat_by_seed(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home, draws=3, shots=2)
    examples = [Example(f"in {index}", f"out {index}") for index in range(9)]
    first = read.draws(examples, seed=0)
    assert first.shape == (3, 32)
    assert torch.equal(first, read.draws(examples, seed=0))
    assert not torch.equal(first, read.draws(examples, seed=1))


def test_passages_are_read_by_their_mean(tiny_base: Base, home: Home) -> None:
    read = reader(tiny_base, home)
    ids = torch.tensor([read.loaded.tokenizer.encode("one two\n\nthree four")])
    states = read.loaded.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(read.passages(["one two", "three four"]), states[read.layer][0].mean(0), atol=1e-5)


def test_long_passages_have_equal_shares_of_what_fits(tiny_base: Base, home: Home) -> None:
    read = reader(tiny_base, home)
    starts = ["Größe one two three " * 9, "日本語 four five six " * 9]
    vector = read.passages([text * 40 for text in starts])
    assert vector.shape == (32,) and torch.isfinite(vector).all()
    assert torch.equal(read.passages([text * 50 for text in starts]), vector)
    assert not torch.equal(read.passages([starts[0] * 40, starts[0] * 40]), vector)


def test_draws_of_a_text_task_are_of_passages(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home, draws=3, shots=2)
    examples = [Example("", f"passage {index}") for index in range(2)]
    first = read.draws(examples, seed=0, kind="text")
    passages = [item.output for item in examples]
    either = [read.passages(passages), read.passages(passages[::-1])]
    assert first.shape == (3, 32)
    assert all(any(torch.equal(row, vector) for vector in either) for row in first)


def test_vectors_are_cached_and_a_broken_cache_is_read_again(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    vector = read.text("Say cat.")
    (path,) = home.vectors.rglob("*.safetensors")
    with torch.no_grad():
        next(read.loaded.model.parameters()).add_(1.0)
    assert torch.equal(read.text("Say cat."), vector)  # from the cache: the changed model was not asked
    path.write_bytes(b"not safetensors")
    assert not torch.equal(read.text("Say cat."), vector)


@pytest.mark.parametrize(("text", "message"), [("", "empty"), (" \n", "empty"), ("x" * 100_000, "100,000 characters")])
def test_bad_texts_are_refused(llama_base: Base, home: Home, text: str, message: str) -> None:
    with pytest.raises(UsageFault, match=message):
        reader(llama_base, home).text(text)
