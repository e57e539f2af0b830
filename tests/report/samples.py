"""Made-up results that look like real ones, and ask for trouble: markup in every text, scores without figures."""

import random
from collections.abc import Callable
from typing import Any, get_args

from icmlora_cli.report.result import (
    BaseInfo,
    Fidelity,
    Figure,
    GeneratorInfo,
    Map,
    Mean,
    MethodComparison,
    MethodInfo,
    MethodScore,
    NeighbourInfo,
    Output,
    Part,
    Point,
    Reconstruction,
    Result,
    ResultProvenance,
    Similar,
    StorageInfo,
    TaskInfo,
    TextSpecific,
    Unrelated,
)

NASTY = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp;\"'{{ 7 * 7 }}"
METHODS = tuple(
    MethodInfo(name=name, title=title, uses=uses)  # type: ignore[arg-type]
    for name, title, uses in (
        ("base", "base model", "nothing"),
        ("described", "base, description in the prompt", "text"),
        ("in-context", "base, k examples in the prompt", "examples"),
        ("described-in-context", "base, description and k examples in the prompt", "text and examples"),
        ("noise", "noise of the harvested adapters' norm", "nothing"),
        ("average", "average of the harvested adapters", "nothing"),
        ("nearest", "nearest adapter by text", "text"),
        ("nearest-3", "3 nearest adapters by text, weighted", "text"),
        ("nearest-demonstrations", "nearest adapter by demonstrations", "examples"),
        ("random-text", "generated from random text", "nothing"),
        ("swapped", "generated from another task's description", "nothing"),
        ("generated", "generated from the description", "text"),
        ("generated-demonstrations", "generated from k examples", "examples"),
        ("generated-both", "generated from description and k examples", "text and examples"),
        ("best-of-8", "best of 8 samples on the examples", "text and examples"),
        ("warm-start", "generated, then 10 steps of training", "training data"),
        ("scratch", "LoRA after the same 10 steps from scratch", "training data"),
        ("harvested", "harvested adapter (oracle)", "training data"),
    )
)
PERCENT = (0, 4, 30, 34, 0, 25, 45, 50, 55, 15, 12, 82, 74, 84, 86, 95, 40, 98)
LEVELS = {method.name: percent for method, percent in zip(METHODS, PERCENT, strict=True)}
TASKS: tuple[tuple[str, Part, str | None], ...] = (
    ("pick_first_of_3", "seen", "pick"),
    ("pick_last_of_3", "seen", "pick"),
    ("first_letter_upper", "seen", "letters"),
    ("capitalize_word", "seen", "letters"),
    ("sentiment_word", "seen", "sentiment"),
    ("color_among_animals_3", "seen", "odd one"),
    ("pick_first_of_4", "unseen combination", "pick"),
    ("pick_last_of_5", "unseen combination", "pick"),
    ("last_letter_upper_of_a_rather_long_named_task", "unseen combination", "letters"),
    ("country_capital", "unseen family", "facts"),
    ("english_german", "unseen family", "translation"),
    ("roman_numerals", "unseen family", "numbers"),
)
FACTOR: dict[Part, float] = {"seen": 1.0, "unseen combination": 0.55, "unseen family": 0.2, "unseen": 0.2}
GENERATED = ("generated", "generated-demonstrations", "generated-both")
MERGED = ("average", "nearest", "nearest-3", "random-text", "swapped", *GENERATED, "best-of-8", "warm-start")


def _figure(value: float, wide: float) -> Figure:
    return Figure(
        value=value, low=max(0.0, value - wide), high=value + 0.8 * wide if value > 1 else min(1.0, value + 0.8 * wide)
    )


def _value(source: random.Random, method: str, part: Part, metric: str) -> float:
    level = LEVELS[method] / 100 * (1.0 if method in ("harvested", "warm-start", "scratch") else FACTOR[part])
    level = min(max(level + source.uniform(-0.06, 0.06), 0.0), 1.0)
    return level if metric == "exact_match" else 0.02 + 4.5 * (1.0 - level) ** 1.3


def _reconstruction(source: random.Random, method: str, part: Part) -> Reconstruction:
    level = 1.05 - LEVELS[method] / 100 * FACTOR[part] * 0.8

    def one() -> Fidelity:
        error = max(0.02, level + source.uniform(-0.08, 0.08))
        return Fidelity(error=error, cosine=max(-1.0, 1 - error**2 / 1.2))

    types = ("q_proj", "k_proj", "v_proj", "o_proj")
    return Reconstruction(all=one(), by_type={t: one() for t in types}, by_layer={i: one() for i in range(30)})


def _cells(source: random.Random, metrics: tuple[str, ...]) -> tuple[MethodScore, ...]:
    scores = []
    for task, part, family in TASKS:
        for method in METHODS:
            reason = None
            if method.name in ("harvested", "warm-start") and part == "unseen family":
                reason = "not harvested"
            if task == "roman_numerals" and method.uses in ("examples", "text and examples"):
                reason = f"the task has no training example to show {NASTY}"
            figures = {
                m: _figure(_value(source, method.name, part, m), 0.05 if m == "exact_match" else 0.3) for m in metrics
            }
            nasty = task == "pick_first_of_3"
            words = ("apple", "banana", "cherry", "plum")
            outputs = tuple(
                Output(
                    input=f"{word}, {words[(i + 1) % 4]}, {words[(i + 2) % 4]}" + (NASTY if nasty and i == 0 else ""),
                    expected=word,
                    output=word
                    if i * 30 < LEVELS[method.name]
                    else NASTY
                    if nasty
                    else f"The answer is\n{words[i - 1]}",
                    exact=i * 30 < LEVELS[method.name],
                )
                for i, word in enumerate(words)
            )
            harvested = part != "unseen family"
            scores.append(
                MethodScore(
                    task=task,
                    method=method.name,
                    reason=reason,
                    figures={} if reason else figures,
                    reconstruction=_reconstruction(source, method.name, part)
                    if method.name in MERGED and harvested and not reason
                    else None,
                    about={"family": family},
                    outputs=() if reason else outputs,
                )
            )
    return tuple(scores)


def _means(source: random.Random, scores: tuple[MethodScore, ...], metrics: tuple[str, ...]) -> tuple[Mean, ...]:
    parts = {task: part for task, part, _ in TASKS}
    means = []
    for part in dict.fromkeys(parts.values()):
        for metric in metrics:
            values = {
                method.name: [
                    c.figures[metric].value
                    for c in scores
                    if c.method == method.name and parts[c.task] == part and c.figures
                ]
                for method in METHODS
            }
            mean = {method: sum(found) / len(found) for method, found in values.items() if found}
            for method, value in mean.items():
                gain = mean["harvested"] - mean["base"] if "harvested" in mean else None
                means.append(
                    Mean(
                        part=part,
                        method=method,
                        metric=metric,
                        tasks=len(values[method]),
                        figure=_figure(value, source.uniform(0.03, 0.12)),
                        recovered=None if gain is None else _figure((value - mean["base"]) / gain, 0.06),
                    )
                )
    return tuple(means)


def _comparisons(source: random.Random, means: tuple[Mean, ...]) -> tuple[MethodComparison, ...]:
    others = [method.name for method in METHODS if method.name not in (*GENERATED, "best-of-8")]
    value = {(m.part, m.metric, m.method): m for m in means}
    found = []
    for (part, metric, method), mean in value.items():
        for against in others if method in GENERATED else ():
            other = value.get((part, metric, against))
            if other is not None:
                difference = mean.figure.value - other.figure.value
                figure = Figure(value=difference, low=difference - 0.08, high=difference + 0.07)
                p = 1 / 2001 if abs(difference) > 0.15 else source.uniform(0.001, 0.7)
                found.append(
                    MethodComparison(
                        part=part,
                        metric=metric,
                        method=method,
                        against=against,
                        tasks=mean.tasks,
                        difference=figure,
                        p=p,
                    )
                )
    return tuple(found)


def _map(source: random.Random, kinds: tuple[str, str]) -> Map:
    points = []
    for index, (task, part, _) in enumerate(TASKS):
        x, y = source.gauss(0, 2) + index % 3 * 3, source.gauss(0, 1)
        for kind in kinds:
            if kind == "harvested" and part == "unseen family":
                continue
            wide = 0.3 if kind != "generated" else 1.2
            at = (x + source.gauss(0, wide), y + source.gauss(0, wide))
            points.append(Point(task=task, kind=kind, part=part, x=at[0], y=at[1]))  # type: ignore[arg-type]
    return Map(points=tuple(points), explained=(0.41, 0.17))


def _tasks() -> tuple[TaskInfo, ...]:
    tasks = []
    for name, part, family in TASKS:
        similar = Similar(task="pick_first_of_3", descriptions=0.62, examples=0.0, duplicate=False)
        if name == "pick_last_of_5":
            similar = Similar(task="pick_last_of_3", descriptions=0.95, examples=0.31, duplicate=True)
        text = "Write the first of the three words." if name != "pick_first_of_3" else f"Write the first word. {NASTY}"
        tasks.append(
            TaskInfo(
                name=name,
                description=text,
                part=part,
                metric="exact_match",
                family=family,
                examples=48,
                similar=None if part == "seen" else similar,
                neighbour=NeighbourInfo(task=name if part == "seen" else "pick_first_of_3", distance=0.21, cosine=0.97),
                swapped_with="sentiment_word",
            )
        )
    return tuple(tasks)


def sample() -> Result:
    """Return an evaluation of 18 methods on 12 tasks of 3 parts, in exact match and NLL."""
    source = random.Random(0)
    metrics = ("exact_match", "nll")
    scores = _cells(source, metrics)
    means = _means(source, scores, metrics)
    lifts = {"seen": 0.68, "unseen combination": 0.3, "unseen family": 0.01}
    curve = tuple(
        (
            step,
            {
                "reconstruction": 0.9 * 0.995 ** (step / 4) + 0.02,
                "kl": 3 - 2.5 * 0.99 ** (step / 5),
                "nll": 400 * 0.99**step,
            },
        )
        for step in range(0, 2000, 25)
    )
    return Result(
        schema_="icmlora.result/2",
        protocol="bare",
        base=BaseInfo(
            name="smollm2-135m",
            model_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            weight_hash="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        ),
        generator=GeneratorInfo(
            name=f"mine{NASTY}",
            key="0123456789abcdef",
            arch="token",
            tasks=tuple(task for task, part, _ in TASKS if part == "seen"),
            figures={"error": 0.113, "codec_error": 0.012, "seconds": 812.0},
            curve=curve,
        ),
        recipe={"limit": 48, "seed": 0, "note": NASTY, "metrics": ["exact_match", "nll"]},
        methods=METHODS,
        tasks=_tasks(),
        scores=scores,
        means=means,
        comparisons=_comparisons(source, means),
        text_specific=tuple(
            TextSpecific(
                part=part, metric="exact_match", tasks=3, lift=Figure(value=lift, low=lift - 0.1, high=lift + 0.1)
            )  # type: ignore[arg-type]
            for part, lift in lifts.items()
        ),
        unrelated=tuple(
            Unrelated(
                part=part, method=method, tasks=3, change=Figure(value=change, low=change - 0.02, high=change + 0.03)
            )
            for part in lifts
            for method, change in (("base", 0.0), ("generated", 0.17), ("average", -0.04))
        ),
        vectors=_map(source, ("text", "demonstrations")),
        adapters=_map(source, ("harvested", "generated")),
        storage=StorageInfo(
            generator=13_150_000, tasks=6, all_checkpoints=16_900_000, one_each=5_640_000, break_even=14
        ),
        made=ResultProvenance(
            versions={"icmlora": "0.1.0", "torch": "2.13.0", "transformers": "5.24.0", "python": "3.11.7"},
            command=f"icmlora eval --tasks 'pick_*' -o runs/first # {NASTY}",
            device="cpu",
            dtype="float32",
        ),
    )


def changed(result: Result, **changes: Any) -> Result:
    """Return a result with other values."""
    return result.model_copy(update=changes)


def bare_bones() -> Result:
    """Return a result with neither generator nor maps, storage, outputs or tests: seen tasks, bits per character."""
    full = sample()
    names = ("base", "average", "harvested")
    tasks = tuple(
        task.model_copy(update={"metric": "bits_per_character", "neighbour": None})
        for task in full.tasks
        if task.part == "seen"
    )
    keep: Callable[[str], bool] = names.__contains__
    here = {task.name for task in tasks}
    scores = tuple(
        score.model_copy(
            update={
                "figures": {"bits_per_character": score.figures["nll"]} if "nll" in score.figures else {},
                "outputs": (),
                "reconstruction": None,
            }
        )
        for score in full.scores
        if keep(score.method) and score.task in here
    )
    means = tuple(
        mean.model_copy(update={"metric": "bits_per_character"})
        for mean in full.means
        if keep(mean.method) and mean.part == "seen" and mean.metric == "nll"
    )
    return changed(
        full,
        generator=None,
        methods=tuple(method for method in METHODS if keep(method.name)),
        tasks=tasks,
        scores=scores,
        means=means,
        comparisons=(),
        text_specific=(),
        unrelated=(),
        vectors=None,
        adapters=None,
        storage=None,
    )


def nothing() -> Result:
    """Return a result in which no method had an answer for the one task there is."""
    full = sample()
    task = full.tasks[-1]
    scores = tuple(
        score.model_copy(update={"figures": {}, "outputs": (), "reconstruction": None, "reason": "no such luck"})
        for score in full.scores
        if score.task == task.name
    )
    return changed(bare_bones(), methods=full.methods, tasks=(task,), scores=scores, means=())


assert set(FACTOR) == set(get_args(Part))
