"""Perplexity: windows, figures, and the same log-likelihoods as lm-evaluation-harness."""

import math

import pytest
import torch

from icmlora_cli.errors import UsageError
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import TextScore, aggregate, max_tokens, rolling_windows, score_texts
from icmlora_cli.lm.prompts import prefix_token, text_ids
from icmlora_cli.registry.bases import Base

TEXTS = (
    "The capital of France is Paris.\n\nThe capital of Italy  is Rome, and one two three four five. " * 3,
    "Größe – naïve café 日本語",
    "x",
)


def directly(loaded: LoadedBase, before: list[int], ids: list[int]) -> float:
    """Return the NLL of ``ids`` after ``before``, in one pass without padding."""
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([(before + ids)[:-1]])).logits[0, len(before) - 1 :]
    return float(-torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(ids)[:, None]).sum())


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 40])
def test_windows_predict_each_token_once_and_fit(length: int) -> None:
    ids = list(range(length))
    windows = list(rolling_windows(ids, 8))
    assert [token for _, piece in windows for token in piece] == ids
    assert windows[0][0] == ()
    for context, piece in windows[1:]:
        assert context[-1] == piece[0] - 1
        assert len(context) + len(piece) - 1 == 8


def test_a_short_text_is_scored_in_one_pass(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    scores = score_texts(loaded, TEXTS)
    start = [prefix_token(loaded.tokenizer)]
    for text, score in zip(TEXTS, scores, strict=True):
        ids = text_ids(loaded.tokenizer, text)
        assert score.nll == pytest.approx(directly(loaded, start, ids), rel=1e-4)
        assert (score.tokens, score.characters, score.bytes) == (len(ids), len(text), len(text.encode()))
    assert [score.words for score in scores] == [55, 5, 1]  # of the first, one is the nothing at its end


def test_a_long_text_fills_the_model_and_no_more(tiny_base: Base) -> None:
    loaded = load_base(tiny_base, device="cpu")
    text = TEXTS[0] * 20
    ids = text_ids(loaded.tokenizer, text)
    assert len(ids) > max_tokens(loaded) == 512
    (score,) = score_texts(loaded, [text])
    windows = list(rolling_windows(ids, 512))
    expected = directly(loaded, [prefix_token(loaded.tokenizer)], ids[:512])
    expected += sum(directly(loaded, list(context), list(piece)) for context, piece in windows[1:])
    assert score.tokens == len(ids)
    assert score.nll == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_change_nothing(llama_base: Base, batch_size: int) -> None:
    loaded = load_base(llama_base, device="cpu")
    expected = [score.nll for score in score_texts(loaded, TEXTS, max_length=16)]
    found = [score.nll for score in score_texts(loaded, TEXTS, max_length=16, batch_size=batch_size)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_prefix_stands_before_each_window_and_is_not_scored(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    told = text_ids(loaded.tokenizer, "Cities.\n\n")
    ids = text_ids(loaded.tokenizer, TEXTS[0])
    (score,) = score_texts(loaded, [TEXTS[0]], prefix="Cities.\n\n", max_length=len(told) + 16)
    windows = list(rolling_windows(ids, 16))
    expected = directly(loaded, [prefix_token(loaded.tokenizer), *told], list(windows[0][1]))
    expected += sum(directly(loaded, told + list(context), list(piece)) for context, piece in windows[1:])
    assert len(windows) > 2
    assert score.tokens == len(ids)
    assert score.nll == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of lm-eval and what it imports
def test_the_log_likelihoods_are_those_of_lm_eval(tiny_base: Base) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    assert lm_eval is not None
    loaded = load_base(tiny_base, device="cpu")
    harness = HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=24, batch_size=2, add_bos_token=False
    )
    requests = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(TEXTS)]
    expected = harness.loglikelihood_rolling(requests, disable_tqdm=True)
    found = [-score.nll for score in score_texts(loaded, TEXTS, max_length=24)]
    assert len(text_ids(loaded.tokenizer, TEXTS[0])) > 3 * 24
    assert found == pytest.approx(expected, rel=1e-4)


def test_figures() -> None:
    score = TextScore(nll=8 * math.log(2), tokens=4, characters=16, bytes=32, words=2)
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_character == pytest.approx(0.5)
    assert score.bits_per_byte == pytest.approx(0.25)
    assert score.word_perplexity == pytest.approx(16)
    assert score.byte_perplexity == pytest.approx(2**0.25)
    whole = aggregate([score, TextScore(nll=0.0, tokens=4, characters=16, bytes=32, words=2)])
    assert whole == TextScore(nll=8 * math.log(2), tokens=8, characters=32, bytes=64, words=4)
    assert TextScore(nll=1e6, tokens=4, characters=4, bytes=4, words=1).word_perplexity == math.inf
    with pytest.raises(ValueError, match="no text"):
        aggregate([])


def test_what_cannot_be_scored_is_refused(llama_base: Base) -> None:
    loaded = load_base(llama_base, device="cpu")
    with pytest.raises(UsageError, match="text 2 of 2 is empty"):
        score_texts(loaded, ["a", ""])
    with pytest.raises(UsageError, match="reads 8 at once"):
        score_texts(loaded, ["a"], prefix=TEXTS[0], max_length=8)
    loaded.tokenizer.eos_token = None
    with pytest.raises(UsageError, match="neither a BOS nor an EOS"):
        score_texts(loaded, ["a"])
