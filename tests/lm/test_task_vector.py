"""Task vectors: what is read, that it is cached, and what text is refused."""

import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icmlora_cli.config.train import VectorRecipe
from icmlora_cli.disk.home import Home
from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import load_base
from icmlora_cli.lm.perplexity import max_tokens
from icmlora_cli.lm.task_vector import TokenPrompt, VectorReader
from icmlora_cli.lm.tensor_cache import DAMAGED
from icmlora_cli.registry.bases import Base
from icmlora_cli.tasks.examples import Example
from icmlora_cli.workflows.base.pull import pull


def reader(base: Base, home: Home, **values: float | str) -> VectorReader:
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


def test_a_changed_bit_of_a_cached_file_is_told_once_and_never_used(llama_base: Base, home: Home) -> None:
    told: list[str] = []
    read = replace(reader(llama_base, home), on_note=told.append)

    def everything() -> list[torch.Tensor]:
        return [read.text("Say cat."), *read.read_all([read.text_states(text) for text in TEXTS])]

    wanted = everything()
    paths = sorted(home.vectors.rglob("*.safetensors"))
    assert len(paths) == 2 and told == []
    for path in paths:
        whole = path.read_bytes()
        for at in {*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            assert all(torch.equal(one, two) for one, two in zip(wanted, everything(), strict=True)), at
            assert told == [DAMAGED] and path.read_bytes() == whole, at
            told.clear()


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("a file"), lambda path: path.symlink_to(path)])
def test_a_cache_that_is_no_folder_stops_nothing(llama_base: Base, home: Home, spoil: Callable[[Path], object]) -> None:
    told: list[str] = []
    read = replace(reader(llama_base, home), on_note=told.append)
    wanted = read.text("Say cat.")
    shutil.rmtree(home.vectors)
    spoil(home.vectors)
    assert torch.equal(read.text("Say cat."), wanted)
    (states,) = read.read_all([read.text_states("Say cat.")])
    assert states.shape[1] == read.size and told == []


def test_a_full_disk_of_the_cache_stops_nothing(llama_base: Base, home: Home) -> None:
    """The limit on the size of files fails as a full disk does, and is told as one."""
    read = reader(llama_base, home)
    wanted = read.text("Say cat.")
    shutil.rmtree(home.vectors)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        again = read.text("Say cat.")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(again, wanted) and not list(home.vectors.rglob("*.safetensors"))
    assert torch.equal(read.text("Say cat."), wanted) and list(home.vectors.rglob("*.safetensors"))


@pytest.mark.parametrize(("text", "message"), [("", "empty"), (" \n", "empty"), ("x" * 100_000, "100,000 characters")])
def test_bad_texts_are_refused(llama_base: Base, home: Home, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        reader(llama_base, home).text(text)


def hidden_states(read: VectorReader, ids: Sequence[int]) -> torch.Tensor:
    """Return the layer's states of one row, by a whole forward pass of its own, [T, hidden]."""
    with torch.no_grad():
        states = read.loaded.model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    found: torch.Tensor = states[read.layer][0]
    return found


SHOWN = [Example("one two", "three"), Example("apple", "banana, cherry"), Example("7", "8")]
TEXTS = ("Say cat.", "Choose the first word, whatever comes after it, and write nothing else.", "Add one", "?")


def test_all_states_of_a_text_are_kept(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    prompt = read.text_states("  Say   cat. ")
    assert list(prompt.ids) == read.loaded.tokenizer.encode("Task: Say cat.\nQ:")
    assert prompt.kept == tuple(range(len(prompt.ids)))


def test_of_examples_the_states_from_each_colon_to_its_answers_end_are_kept(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    prompt = read.examples_states(SHOWN)
    decode = read.loaded.tokenizer.decode
    assert decode(list(prompt.ids)) == "".join(f"Q: {item.input}\nA: {item.output}\n" for item in SHOWN)
    assert prompt.kept == tuple(sorted(set(prompt.kept)))
    runs: list[list[int]] = []
    for at in prompt.kept:
        if not runs or at != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(at)
    assert [decode([prompt.ids[at] for at in run]) for run in runs] == [f": {item.output}\n" for item in SHOWN]


def test_of_many_examples_the_last_ones_are_read_whole(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    many = [Example(f"word {index}", f"answer {index}") for index in range(60)]
    prompt, few = read.examples_states(many), read.examples_states(many[-5:])
    assert len(prompt.ids) == max_tokens(read.loaded) == 512
    assert prompt.ids[-len(few.ids) :] == few.ids
    shift = len(prompt.ids) - len(few.ids)
    assert prompt.kept[-len(few.kept) :] == tuple(at + shift for at in few.kept)
    assert all(0 <= at < len(prompt.ids) for at in prompt.kept)
    (states,) = read.read_all([prompt])
    assert states.shape == (len(prompt.kept), 32) and torch.isfinite(states).all()


@pytest.mark.parametrize("layer", [0.5, 1.0])  # within the blocks, and behind the last with its norm
def test_states_read_together_are_those_of_single_passes(tiny_base: Base, home: Home, layer: float) -> None:
    read = reader(tiny_base, home, layer=layer)
    prompts = [read.text_states(text) for text in TEXTS * 5]  # more than one batch
    prompts += [read.examples_states(SHOWN), read.examples_states(SHOWN[:2])]
    done: list[int] = []
    found = read.read_all(prompts, on_batch=done.append)
    assert done == sorted(done) and done[-1] == len(prompts) and len(done) > 1
    for prompt, states in zip(prompts, found, strict=True):
        wanted = hidden_states(read, prompt.ids)[list(prompt.kept)]
        assert states.shape == wanted.shape
        assert torch.allclose(states.float(), wanted, atol=5e-3, rtol=2e-3)  # kept in fp16


def test_blocks_above_the_layer_are_not_run(tiny_base: Base, home: Home) -> None:
    read = reader(tiny_base, home, layer=0.5)
    runs: list[int] = []
    blocks = [item for item in read.loaded.model.modules() if isinstance(item, torch.nn.ModuleList) and len(item) == 2]
    handles = [block.register_forward_hook(lambda *_, at=at: runs.append(at)) for at, block in enumerate(blocks[0])]
    read.read_all([read.text_states("Say cat.")])
    for handle in handles:
        handle.remove()
    assert runs == [0]
    ids = torch.arange(5, 12)[None]
    assert read.loaded.model(input_ids=ids).logits.shape[:2] == (1, 7)  # and nothing of it stays behind


def test_read_states_are_cached_and_a_broken_cache_is_read_again(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home)
    prompts = [read.text_states(text) for text in TEXTS]
    first = read.read_all(prompts)
    (path,) = (home.vectors / "sets").glob("*.safetensors")
    asked: list[int] = []
    handle = read.loaded.model.register_forward_pre_hook(lambda *_: asked.append(1))
    again = read.read_all(prompts)
    assert not asked and all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    for broken in (b"not safetensors", path.read_bytes()[:-20], b""):
        path.write_bytes(broken)
        asked.clear()
        again = read.read_all(prompts)
        assert asked and all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    asked.clear()
    read.read_all(prompts[:2])  # another set
    read.read_all([TokenPrompt(prompts[0].ids, (0,)), *prompts[1:]])  # other positions
    assert len(asked) == 2
    handle.remove()
    assert len(list((home.vectors / "sets").glob("*.safetensors"))) == 3


def test_of_no_prompts_there_are_no_states(llama_base: Base, home: Home) -> None:
    assert reader(llama_base, home).read_all([]) == []


def test_another_layer_or_base_has_a_cache_of_its_own(tiny_bases: dict[str, Path], home: Home) -> None:
    bases = [pull(str(tiny_bases[name]), home, offline=True) for name in ("llama", "qwen3")]
    readers = [reader(bases[0], home, layer=0.5), reader(bases[0], home, layer=1.0), reader(bases[1], home, layer=0.5)]
    found = [read.read_all([read.text_states("Say cat.")])[0] for read in readers]
    assert not any(torch.equal(one, two) for at, one in enumerate(found) for two in found[:at])


def test_with_pooling_tokens_what_a_generator_reads_are_all_states(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home, pooling="tokens", shots=2, draws=3)
    prompt = read.text_states("Say cat.")
    text = read.read_text("Say cat.")
    assert text.dtype == torch.float32 and torch.equal(text, read.read_all([prompt])[0].float())
    assert torch.allclose(read.read_text("Say cat.", fresh=True), text, atol=5e-3)
    shown = read.read_examples(SHOWN)
    assert torch.equal(shown, read.read_all([read.examples_states(SHOWN)])[0].float())
    draws = read.reading_draws(SHOWN, seed=0)
    again = read.reading_draws(SHOWN, seed=0)
    assert len(draws) == 3 and all(torch.equal(one, two) for one, two in zip(draws, again, strict=True))
    wanted = {len(read.examples_states([one, two]).kept) for one in SHOWN for two in SHOWN if one != two}
    assert {len(item) for item in draws} <= wanted


def test_with_pooling_mean_it_is_one_vector(llama_base: Base, home: Home) -> None:
    read = reader(llama_base, home, shots=2, draws=3)
    assert torch.equal(read.read_text("Say cat."), read.text("Say cat.")[None])
    rows = [read.demonstrations([*SHOWN[:at], *SHOWN[at + 1 :]], SHOWN[at].input) for at in range(3)]
    assert torch.allclose(read.read_examples(SHOWN), torch.stack(rows).mean(0, keepdim=True))
    draws = read.reading_draws(SHOWN, seed=0)
    assert torch.equal(torch.cat(draws), read.draws(SHOWN, seed=0)) and draws[0].shape == (1, 32)


@pytest.mark.parametrize("pooling", ["mean", "tokens"])
def test_a_text_of_more_tokens_than_the_base_reads_is_refused(tiny_base: Base, home: Home, pooling: str) -> None:
    read = reader(tiny_base, home, pooling=pooling)
    read.loaded.model.config.max_position_embeddings = 64
    with pytest.raises(UsageError, match="the base reads 64 at once"):
        read.read_text("zq" * 400)
