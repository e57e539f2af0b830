"""PEFT's patterns over module names: its own rule, and nothing that takes for ever."""

import pytest
from peft.utils.other import get_pattern_key

from icmlora_cli.errors import CorruptFileError
from icmlora_cli.weights.patterns import Patterns, exactly

MODULES = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.1.mlp.up_proj",
    "lm_head",
)
PATTERNS: tuple[dict[str, float], ...] = (
    {},
    {"q_proj": 3},
    {"up_proj": 4, "mlp.up_proj": 5},
    {"layers.0.self_attn.q_proj": 6, r"layers\.1.*": 7},
    {r"^model.layers.1.*": 8, "q_proj": 9},
    {r"model\.layers\.\d+\.self_attn\.(q|k)_proj": 2, "proj": 1},
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_rule_is_pefts(pattern: dict[str, float]) -> None:
    own = Patterns.of(pattern, "alpha_pattern", "here")
    for module in MODULES:
        assert own.value(module, 16) == pattern.get(get_pattern_key(pattern, module), 16)


def test_an_exact_expression_matches_one_module() -> None:
    own = Patterns.of({exactly(MODULES[0]): 2}, "alpha_pattern", "here")
    assert [own.value(module, 1) for module in (*MODULES, f"x.{MODULES[0]}")] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"q": "x"},
        {"q": True},
        {"q": float("inf")},
        {"(?=a)": 1},
        {"(a{300}){300}": 1},
        {"q": 10**400},
        {"*": 1},
        {"a" * 400: 1},
    ],
)
def test_what_is_no_pattern_is_refused(value: object) -> None:
    with pytest.raises(CorruptFileError, match="alpha_pattern"):
        Patterns.of(value, "alpha_pattern", "here")


@pytest.mark.parametrize("expression", [".?" * 140 + "x", "(.*)*x", "(a+)+" * 50 + "$", "(.*,){20}P"])
def test_no_expression_takes_for_ever(expression: str) -> None:
    own = Patterns.of({expression: 2, "q_proj": 3}, "alpha_pattern", "here")
    assert own.value("a" * 200 + ".q_proj", 1) == 3


def test_plain_names_are_looked_up_and_the_first_that_matches_gives_the_value() -> None:
    names = [f"layers.{index}.q_proj" for index in range(60_000)]
    own = Patterns.of({"layers\\.7\\..*": 5, **dict.fromkeys(names, 2), "q_proj": 4}, "alpha_pattern", "here")
    assert [own.value(f"model.{name}", 1) for name in (names[7], names[-1], "x.q_proj", "q_proj.x")] == [5, 2, 4, 1]


def test_expressions_are_few() -> None:
    with pytest.raises(CorruptFileError, match="more than 64 expressions"):
        Patterns.of({f"layers.{index}.*": 1 for index in range(65)}, "alpha_pattern", "here")
