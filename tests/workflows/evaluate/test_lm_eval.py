"""Adapters scored by lm-evaluation-harness, on task files of a folder; and the same figures counted otherwise."""

import json
import sys
from pathlib import Path

import pytest
import torch

from icmlora_cli.errors import IcmloraError, NotFoundError, UsageError
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.perplexity import aggregate, score_texts
from icmlora_cli.registry.bases import Base
from icmlora_cli.weights.adapter import Adapter, Factors
from icmlora_cli.weights.merge import merged
from icmlora_cli.workflows.evaluate.lm_eval import HarnessFigure, HarnessRequest, run

# of lm-eval and of what it imports (datasets, evaluate, multiprocess)
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

TEXTS = [f"Text {number}: the capital of France is Paris, one two three. " * 6 + "End." for number in range(3)]
PROMPTS = [f"Question: which animal is number {number}? Answer:" for number in range(6)]
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
"""
GENERATE = """
task: tiny_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["zzzz"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture
def loaded(llama_base: Base) -> LoadedBase:
    pytest.importorskip("lm_eval")
    loaded = load_base(llama_base, device="cpu")
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(20)  # tied to the output: else all tokens are equally likely
    return loaded


def adapter(loaded: LoadedBase) -> Adapter:
    rng = torch.Generator().manual_seed(0)
    factors = {}
    for name, module in loaded.model.named_modules():
        if name.endswith(("o_proj", "down_proj")):
            out, inn = module.weight.shape
            factors[name] = Factors(torch.randn(2, inn, generator=rng), torch.randn(out, 2, generator=rng))
    return Adapter(loaded.base.model_id, 4.0, factors)


def written(folder: Path, name: str, task: str, rows: list[dict[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(task.format(data=data), encoding="utf-8")
    return folder


def test_the_same_perplexities_as_ours(loaded: LoadedBase, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "tasks", "tiny_rolling", ROLLING, [{"text": text} for text in TEXTS])
    made = adapter(loaded)
    weights = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    result = run({"base": None, "made": made}, loaded, HarnessRequest(("tiny_rolling",), folder, max_length=64))
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    assert list(result.figures) == ["base", "made"] and result.samples == {"tiny_rolling": 3}
    for name, applied in (("base", None), ("made", made)):
        with merged(loaded.model, applied):
            whole = aggregate(score_texts(loaded, TEXTS, max_length=64))
        assert whole.tokens > 3 * 64
        found = result.figures[name]["tiny_rolling"]
        assert set(found) == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
        for metric, figure in found.items():
            assert figure.value == pytest.approx(getattr(whole, metric), rel=1e-4), metric
            assert figure.higher_is_better is False
    base, other = (result.figures[name]["tiny_rolling"]["bits_per_byte"].value for name in ("base", "made"))
    assert abs(base - other) > 0.05
    assert json.loads(json.dumps(result.as_dict()))["figures"]["base"]["tiny_rolling"]["bits_per_byte"]["value"] == base


def greedy(loaded: LoadedBase, prompt: str, count: int) -> str:
    """Write without a cache and without ``generate``."""
    ids = loaded.tokenizer.encode(prompt)
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + count and loaded.tokenizer.eos_token_id not in ids[start:]:
            ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return str(loaded.tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_exact_match_is_what_is_counted_by_hand(loaded: LoadedBase, tmp_path: Path) -> None:
    made = adapter(loaded)
    with merged(loaded.model, made):
        answers = [greedy(loaded, prompt, 6) for prompt in PROMPTS]
    rows = [
        {"prompt": prompt, "answer": answer if index % 3 else "another answer"}
        for index, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True))
    ]
    folder = written(tmp_path / "tasks", "tiny_generate", GENERATE, rows)
    result = run({"base": None, "made": made}, loaded, HarnessRequest(("tiny_generate",), folder, batch_size=2))
    for name, applied in (("base", None), ("made", made)):
        with merged(loaded.model, applied):
            right = sum(greedy(loaded, row["prompt"], 6) == row["answer"] for row in rows)
        figure = result.figures[name]["tiny_generate"]["exact_match"]
        assert figure.value == pytest.approx(right / len(rows))
        assert figure.stderr is not None and figure.higher_is_better is True
    assert result.figures["made"]["tiny_generate"]["exact_match"].value == pytest.approx(4 / 6)
    few = run({"made": made}, loaded, HarnessRequest(("tiny_gen*",), folder, limit=3))
    assert few.samples == {"tiny_generate": 3}
    assert isinstance(few.figures["made"]["tiny_generate"]["exact_match"], HarnessFigure)


def test_what_cannot_be_scored_is_said(loaded: LoadedBase, tmp_path: Path) -> None:
    folder = written(tmp_path / "tasks", "tiny_rolling", ROLLING, [{"text": "a"}])
    with pytest.raises(NotFoundError, match=r"no task 'tiny_roling'; close: tiny_rolling"):
        run({"base": None}, loaded, HarnessRequest(("tiny_roling",), folder))
    with pytest.raises(UsageError, match="no task"):
        run({"base": None}, loaded, HarnessRequest(()))
    with pytest.raises(UsageError, match="there is no folder"):
        run({"base": None}, loaded, HarnessRequest(("tiny_rolling",), tmp_path / "none"))
    (folder / "tiny_rolling.jsonl").unlink()
    with pytest.raises(IcmloraError, match="lm-eval failed on tiny_rolling: "):
        run({"base": None}, loaded, HarnessRequest(("tiny_rolling",), folder))


def test_without_lm_eval_the_extra_is_named(llama_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(IcmloraError) as caught:
        run({"base": None}, load_base(llama_base, device="cpu"), HarnessRequest(("hellaswag",)))
    assert caught.value.hint == 'pip install "icmlora[lm-eval]"'
