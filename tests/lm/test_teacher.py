"""What a harvested adapter says of answers: the same as the merged model, kept in the cache, and a bound of the KL."""

from pathlib import Path

import pytest
import torch

from icmlora_cli.disk.home import Home
from icmlora_cli.lm.batching import IGNORED, TokenBatch, collate
from icmlora_cli.lm.load import LoadedBase, load_base
from icmlora_cli.lm.prompts import Encoded, encode
from icmlora_cli.lm.targets import target_layout
from icmlora_cli.lm.teacher import TOP, TopTokens, divergences, top_tokens
from icmlora_cli.lm.tensor_cache import DAMAGED
from icmlora_cli.registry.bases import Base
from icmlora_cli.registry.task_record import PromptTemplate
from icmlora_cli.tasks.examples import Example
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.frame import FrameSpec, framed_adapter, seeded_frame
from icmlora_cli.weights.merge import merged
from tests.small_registry import flip

PLAIN = PromptTemplate("plain", "Q: {input}\nA:", " {output}\n")
EXAMPLES = [Example(f"{'word ' * (1 + index % 4)}{index}", "cat" * (1 + index % 3)) for index in range(20)]


@pytest.fixture
def loaded(llama_base: Base) -> LoadedBase:
    return load_base(llama_base, device="cpu")


@pytest.fixture
def adapter(loaded: LoadedBase) -> Adapter:
    frame = seeded_frame(target_layout(loaded.model, "auto"), FrameSpec(0, 4), "tiny")
    rng = torch.Generator().manual_seed(0)
    return framed_adapter(frame, torch.randn(len(frame.layout.modules), 4, 4, generator=rng))


@pytest.fixture
def rows(loaded: LoadedBase) -> list[Encoded]:
    return [encode(loaded.family, PLAIN, example) for example in EXAMPLES]


def every(loaded: LoadedBase, row: Encoded) -> torch.Tensor:
    with torch.no_grad():
        return collate([row], 0, loaded.device).logits(loaded.model).float().log_softmax(-1)[0]


def test_it_keeps_what_the_merged_model_says(
    loaded: LoadedBase, adapter: Adapter, rows: list[Encoded], tmp_path: Path
) -> None:
    found = top_tokens(loaded, adapter, "a", rows, tmp_path)
    plain = [every(loaded, row) for row in rows]
    with merged(loaded.model, adapter):
        wanted = [every(loaded, row).topk(TOP) for row in rows]
    for row, top, (values, ids) in zip(rows, found, wanted, strict=True):
        assert top.ids.shape == (len(row.answer_ids), TOP)
        assert torch.allclose(top.log_probs, values, atol=1e-4)
        assert float((top.ids == ids).float().mean()) > 0.9  # but for ties
    changes = [(one.topk(TOP).values - top.values).abs().max() for one, top in zip(plain, wanted, strict=True)]
    assert float(max(changes)) > 0.05


def test_it_is_computed_once_and_a_damaged_file_again(
    loaded: LoadedBase, adapter: Adapter, rows: list[Encoded], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = home.vectors / "teachers", list[str]()
    first = top_tokens(loaded, adapter, "a", rows, folder, on_note=notes.append)
    (path,) = folder.iterdir()
    runs, forward = list[int](), loaded.model.forward
    monkeypatch.setattr(loaded.model, "forward", lambda **inputs: runs.append(1) or forward(**inputs))

    def same(found: list[TopTokens]) -> bool:
        return all(
            torch.equal(one.ids, two.ids) and torch.equal(one.log_probs, two.log_probs)
            for one, two in zip(first, found, strict=True)
        )

    assert same(top_tokens(loaded, adapter, "a", rows, folder)) and not runs
    flip(path)
    assert same(top_tokens(loaded, adapter, "a", rows, folder, on_note=notes.append)) and runs
    assert notes == [DAMAGED]
    for other in ({"sha256": "b"}, {"rows": rows[:3]}):
        runs.clear()
        top_tokens(**({"loaded": loaded, "adapter": adapter, "sha256": "a", "rows": rows, "folder": folder} | other))
        assert runs


def padded(logits: torch.Tensor) -> TokenBatch:
    """A batch of a decoder alone whose answers' logits these are."""
    ids = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.long)
    return TokenBatch(ids, ids, ids, torch.full(logits.shape[:2], IGNORED))


def top_of(logits: torch.Tensor) -> TopTokens:
    values, ids = logits.log_softmax(-1).topk(TOP)
    return TopTokens(ids, values)


def test_the_divergence_is_that_of_the_kept_tokens_and_the_rest() -> None:
    rng = torch.Generator().manual_seed(0)
    teacher, student = (2.0 * torch.randn(3, 100, generator=rng) for _ in range(2))
    logits = torch.cat([torch.randn(2, 100, generator=rng), student])[None]  # two positions of padding before them
    found = float(divergences(logits, [top_of(teacher)], padded(logits))[0])
    p, q = teacher.softmax(-1), student.softmax(-1)
    ids = top_of(teacher).ids
    p, q = (torch.cat([x.gather(1, ids), 1 - x.gather(1, ids).sum(1, keepdim=True)], dim=1) for x in (p, q))
    assert found == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)
    full = float((teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum())
    assert 0 < found < full
    assert float(divergences(teacher[None], [top_of(teacher)], padded(teacher[None]))[0]) == pytest.approx(0, abs=1e-4)


def test_rows_without_a_teacher_count_nothing_and_gradients_reach_the_others_answers_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 50, generator=rng).requires_grad_()
    found = divergences(logits, [None, top_of(torch.randn(2, 50, generator=rng)), None], padded(logits))
    assert [value > 0 for value in found.tolist()] == [False, True, False]
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.isfinite().all() and gradient[1, 2:].any(dim=-1).all()
    assert not gradient[0].any() and not gradient[2].any() and not gradient[1, :2].any()
    sure = torch.full((2, 50), -100.0)
    sure[:, 3] = 100.0  # no rest at all, in fp32
    assert divergences(logits, [top_of(sure)] + [None] * 2, padded(logits)).isfinite().all()
