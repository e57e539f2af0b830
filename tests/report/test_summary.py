"""Means, recovered lift and controls over hand-made scores."""

import pytest

from icmlora_cli.report.result import Part
from icmlora_cli.report.statistics import Resampler, Scored
from icmlora_cli.report.summary import Summary

PARTS: dict[str, Part] = {"a": "seen", "b": "seen", "c": "unseen", "text": "seen"}
METHODS = ("base", "random-text", "swapped-text", "generated", "harvested")


def exact(share: float) -> dict[str, Scored]:
    right = round(share * 20)
    return {"exact_match": Scored("exact_match", (1.0,) * right + (0.0,) * (20 - right), (1.0,) * 20)}


def summary() -> Summary:
    scores = {
        ("a", "base"): exact(0.0), ("a", "generated"): exact(0.5), ("a", "harvested"): exact(1.0),
        ("a", "random-text"): exact(0.1), ("a", "swapped-text"): exact(0.2),
        ("b", "base"): exact(0.2), ("b", "generated"): exact(0.8),
        ("c", "base"): exact(0.0), ("c", "generated"): exact(0.4),
        ("text", "base"): {"bits_per_character": Scored("bits_per_character", (3.0, 3.0), (1.0, 2.0))},
        ("text", "generated"): {"bits_per_character": Scored("bits_per_character", (1.5, 1.5), (1.0, 2.0))},
        ("text", "harvested"): {"bits_per_character": Scored("bits_per_character", (1.0, 1.0), (1.0, 2.0))},
    }  # fmt: skip
    return Summary(scores, PARTS, METHODS, Resampler(200, 0))


def test_means_are_over_the_tasks_that_have_the_method() -> None:
    means = {(item.part, item.method, item.metric): item for item in summary().means()}
    assert means["seen", "generated", "exact_match"].figure.value == pytest.approx(0.65)
    assert means["seen", "generated", "exact_match"].tasks == 2
    assert means["seen", "harvested", "exact_match"].tasks == 1
    assert means["unseen", "generated", "exact_match"].figure.value == pytest.approx(0.4)
    assert ("unseen", "harvested", "exact_match") not in means


def test_recovered_lift_is_over_the_tasks_that_have_base_and_oracle() -> None:
    means = {(item.part, item.method, item.metric): item.recovered for item in summary().means()}
    lift = means["seen", "generated", "exact_match"]
    assert lift is not None and lift.value == pytest.approx(0.5)  # task a alone: b was not harvested
    assert means["unseen", "generated", "exact_match"] is None
    assert means["seen", "base", "exact_match"] is None
    bits = means["seen", "generated", "bits_per_character"]
    assert bits is not None and bits.value == pytest.approx(0.75)  # (1 - 2) / (2/3 - 2): lower is better works out


def test_text_specific_lift() -> None:
    (item,) = summary().text_specific()
    assert (item.part, item.tasks) == ("seen", 1) and item.lift.value == pytest.approx(0.5 - 0.15)


def test_unrelated_text_is_a_mean_over_the_tasks_that_have_it() -> None:
    low, high = Scored("unrelated", (1.0, 1.0), (10.0, 30.0)), Scored("unrelated", (9.0, 3.0), (10.0, 30.0))
    changes = {("a", "generated"): low, ("b", "generated"): high, ("c", "generated"): None, ("a", "harvested"): low}
    found = {(item.part, item.method): item for item in summary().unrelated(changes)}
    assert set(found) == {("seen", "generated"), ("seen", "harvested")}
    assert found["seen", "generated"].tasks == 2
    assert found["seen", "generated"].change.value == pytest.approx((2 / 40 + 12 / 40) / 2)


def test_comparisons_are_of_generated_methods_on_shared_tasks() -> None:
    found = {(item.part, item.metric, item.against): item for item in summary().comparisons()}
    assert {key[2] for key in found} == set(METHODS) - {"generated"}
    base = found["seen", "exact_match", "base"]
    assert base.tasks == 2 and base.difference.value == pytest.approx(0.55) and base.p < 0.01


@pytest.mark.parametrize(
    ("metric", "worse"), [("exact_match", (0.5, 0.4, 0.2)), ("bits_per_character", (1.0, 1.5, 3.0))]
)
def test_nothing_is_recovered_where_the_harvested_adapter_is_worse_than_the_base(
    metric: str, worse: tuple[float, float, float]
) -> None:
    methods = ("base", "harvested", "generated")
    scores = {
        ("a", method): {metric: Scored(metric, (value,), (1.0,))} for method, value in zip(methods, worse, strict=True)
    }
    means = Summary(scores, {"a": "seen"}, methods, Resampler(200, 0)).means()
    assert len(means) == 3 and all(item.recovered is None for item in means)
