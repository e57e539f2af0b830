"""Streaming: the pieces are the text that transformers' own generate writes; stop texts, seeds, cancelling."""

import itertools
import random

import pytest
import torch

from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.stream import Pieces, Sampling, StreamedText, write
from icmlora_cli.registry.bases import Base

PROMPT = "one two three"


def run(loaded: LoadedBase, sampling: Sampling, prompt: str = PROMPT) -> tuple[StreamedText, list[str]]:
    told: list[str] = []
    done = write(loaded, loaded.tokenizer.encode(prompt), sampling, told.append, lambda: False)
    return done, told


def test_greedy_is_what_generate_writes(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    for prompt in (PROMPT, "The capital of Italy is", "Q: which animal\nA:"):
        done, told = run(loaded, Sampling(24, temperature=0.0), prompt)
        ids = torch.tensor([loaded.tokenizer.encode(prompt)])
        out = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
        )
        assert done.text == "".join(told) == loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert done.tokens == out.shape[1] - ids.shape[1]
        assert done.finish == ("length" if done.tokens == 24 and int(out[0, -1]) != 1 else "stop")


def test_a_seed_repeats_draws_and_none_does_not(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    first, _ = run(loaded, Sampling(24, temperature=1.0, seed=7))
    free = {run(loaded, Sampling(24, temperature=1.0))[0].text for _ in range(3)}
    assert run(loaded, Sampling(24, temperature=1.0, seed=7))[0] == first
    assert run(loaded, Sampling(24, temperature=1.0, seed=8))[0] != first and len(free) == 3
    greedy, _ = run(loaded, Sampling(24, temperature=0.0))
    assert run(loaded, Sampling(24, temperature=1.0, top_p=0.0, seed=1))[0] == greedy  # the likeliest token alone


def test_it_ends_before_a_stop_text(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    whole, _ = run(loaded, Sampling(24, temperature=0.0))
    stop = whole.text[9:12]
    done, told = run(loaded, Sampling(24, temperature=0.0, stop=("\x00never", stop)))
    assert done.text == "".join(told) == whole.text.split(stop)[0]
    assert done.finish == "stop" and done.tokens <= whole.tokens


@pytest.mark.parametrize("marked", ["as a special token", "in the vocabulary"])
def test_it_ends_at_a_stop_text_that_is_a_special_token(llama_base: Base, marked: str) -> None:
    loaded = load_base(llama_base, device="cpu")
    tokenizer, model = loaded.tokenizer, loaded.model
    chain = tokenizer.convert_tokens_to_ids([*"abcdef"])
    if marked == "as a special token":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
        model.resize_token_embeddings(len(tokenizer))
        special = tokenizer.convert_tokens_to_ids("<|im_end|>")
    else:
        special = tokenizer.pad_token_id
    text = tokenizer.convert_ids_to_tokens(special)
    chain.insert(3, special)
    with torch.no_grad():  # each token of the chain is followed by the next one
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        embeddings = model.get_input_embeddings().weight
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(embeddings))
        embeddings.zero_()
        for index, (token, following) in enumerate(itertools.pairwise(chain)):
            embeddings[token, index] = 1.0
            model.lm_head.weight[following, index] = 5.0
    greedy = Sampling(6, temperature=0.0)
    assert run(loaded, greedy, "a")[0].text.startswith("bcdef")  # without it, the answer goes on
    done, told = run(loaded, Sampling(6, temperature=0.0, stop=("never", text)), "a")
    assert done.text == "".join(told) == "bc" and done.finish == "stop" and done.tokens == 3


def test_it_ends_when_it_is_cancelled(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    asked = itertools.count()
    done = write(
        loaded, loaded.tokenizer.encode(PROMPT), Sampling(200, temperature=0.0), lambda text: None,
        lambda: next(asked) >= 4,
    )  # fmt: skip
    assert done.finish == "cancelled" and done.tokens == 5


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_never_taken_back(seed: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choice("abc🐈é") for _ in range(60))
    stop = tuple(
        "".join(source.choice("abc") for _ in range(source.randint(1, 4))) for _ in range(source.randint(0, 3))
    )
    data, pieces, told = text.encode(), Pieces(stop), []
    for end in range(1, len(data) + 1):  # bytes arrive one by one, as tokens of parts of characters do
        told.append(pieces.more(data[:end].decode(errors="replace")))
        if pieces.cut(data[:end].decode(errors="replace"))[1]:
            break
    told.append(pieces.more(data[:end].decode(errors="replace"), final=True))
    ends = [text.find(item) for item in stop if item in text]
    first = min((text.find(item) + len(item) for item in stop if item in text), default=None)
    wanted = text if first is None else text[: min(at for at in ends if at < first)]
    assert "".join(told) == wanted
