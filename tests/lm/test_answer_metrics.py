"""Token F1, and metrics that installed packages add."""

from importlib.metadata import EntryPoint

import pytest

from icmlora_cli.errors import IcmloraError, NotFoundError
from icmlora_cli.lm import answer_metrics
from icmlora_cli.lm.answer_metrics import apply_metric, token_f1
from icmlora_cli.tasks import metrics
from icmlora_cli.tasks.metrics import GROUP, checked_metric


def lengths(written: list[str], expected: list[str]) -> list[float]:
    """A metric: 1 where the lengths are equal."""
    return [float(len(one) == len(two)) for one, two in zip(written, expected, strict=True)]


def broken(written: list[str], expected: list[str]) -> list[float]:
    """A metric that forgets an example."""
    return [0.0] * (len(expected) - 1)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, f"{__name__}:{name}", GROUP) for name in ("lengths", "broken", "missing")]
    for module in (answer_metrics, metrics):
        monkeypatch.setattr(module, "entry_points", lambda group: points if group == GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.name])


def test_token_f1() -> None:
    assert token_f1("the red fox", "The Red Fox") == 1.0
    assert token_f1("red", "red fox") == pytest.approx(2 / 3)
    assert token_f1("fox fox", "red fox") == pytest.approx(0.5)
    assert token_f1("", "red") == 0.0 and token_f1("", "") == 1.0


def test_a_metric_of_a_package(installed: None) -> None:
    assert apply_metric("lengths", ["ab", "c"], ["xy", "zz"]) == (1.0, 0.0)
    assert checked_metric("lengths") == "lengths"  # a task file may name it
    with pytest.raises(ValueError, match="'lengths'"):
        checked_metric("length")


def test_bad_metrics_are_told(installed: None) -> None:
    with pytest.raises(NotFoundError, match="no metric 'gone'") as caught:
        apply_metric("gone", [], [])
    assert caught.value.where is not None and "lengths" in caught.value.where
    with pytest.raises(IcmloraError, match="gave 1 values for 2"):
        apply_metric("broken", ["a", "b"], ["a", "b"])
    with pytest.raises(IcmloraError, match="cannot be loaded"):
        apply_metric("missing", ["a"], ["a"])
