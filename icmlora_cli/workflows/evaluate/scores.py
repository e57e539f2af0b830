"""Scores one method on one task, example by example; each score has its own file, so that an evaluation resumes."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from icmlora_cli.disk import files
from icmlora_cli.lm.answer_metrics import apply_metric, token_f1
from icmlora_cli.lm.decode import greedy
from icmlora_cli.lm.in_context import encode_with_shots
from icmlora_cli.lm.lengths import check_fit, fits, task_rows
from icmlora_cli.lm.load import LoadedBase
from icmlora_cli.lm.perplexity import TextScore, score_texts
from icmlora_cli.lm.prompts import Encoded
from icmlora_cli.lm.scoring import score_rows
from icmlora_cli.methods.method import Method, Served, TaskContext, UnavailableError
from icmlora_cli.registry.task_record import PromptTemplate, Task
from icmlora_cli.report.result import Fidelity, Output, Reconstruction, without_nothing
from icmlora_cli.report.statistics import Scored
from icmlora_cli.tasks.detection import METRICS, Matches, average_precisions, matches
from icmlora_cli.tasks.examples import Example, have_pictures
from icmlora_cli.tasks.metrics import DETECTION_METRICS
from icmlora_cli.weights.adapter import Adapter
from icmlora_cli.weights.compare import Closeness, compare
from icmlora_cli.weights.merge import merged

SCHEMA = "icmlora.score/1"
VERSION = 2  # of the scoring; part of every score's key
SHOWN_CHARACTERS = 600  # the most of an input or output that a result shows; passages can be long


@dataclass(frozen=True)
class RawScore:
    """The score of one method on one task, with all that the result is computed from.

    Args:
        key: The hash of all that decides the score.
        task: The name of the task.
        method: The name of the method.
        reason: Why there are no figures; None where there are.
        scores: The values of each metric, example by example.
        reconstruction: How near the adapter is to the task's harvested one; None where one of the two is missing.
        unrelated: The change of the NLL of each passage that belongs to no task, in nats, and its tokens; None where it
            was not measured, or where only the prompt serves the task.
        about: What the method reports about how it served the task.
        outputs: The outputs for the first test examples.
        seconds: The wall time of making the adapter (``serve``) and of scoring it (``score``), in seconds.
    """

    key: str
    task: str
    method: str
    reason: str | None = None
    scores: Mapping[str, Scored] = field(default_factory=dict)
    reconstruction: Reconstruction | None = None
    unrelated: Scored | None = None
    about: Mapping[str, object] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA,
            "key": self.key,
            "task": self.task,
            "method": self.method,
            "reason": self.reason,
            "scores": {name: without_nothing(asdict(item), "matches") for name, item in self.scores.items()},
            "reconstruction": None if self.reconstruction is None else self.reconstruction.model_dump(mode="json"),
            "unrelated": None if self.unrelated is None else asdict(self.unrelated),
            "about": dict(self.about),
            "outputs": [without_nothing(item.model_dump(mode="json"), "picture") for item in self.outputs],
            "seconds": dict(self.seconds),
        }


def write_score(path: Path, score: RawScore) -> None:
    """Write the file of a score, whole or not at all."""
    files.write_text(path, json.dumps(score.as_dict(), ensure_ascii=False) + "\n")


def read_score(path: Path, key: str) -> RawScore | None:
    """Return the score in a file if the file is whole and of this key; None means that it has to be scored.

    A score without figures is computed again too, since what was missing, such as a generator, may be there now.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA or value["key"] != key or value["reason"] is not None:
            return None
        fidelity, change = value["reconstruction"], value.get("unrelated")
        return RawScore(
            key=key,
            task=str(value["task"]),
            method=str(value["method"]),
            reason=value["reason"],
            scores={name: _scored(item) for name, item in value["scores"].items()},
            reconstruction=None if fidelity is None else Reconstruction.model_validate(fidelity),
            unrelated=None if change is None else _scored(change),
            about=dict(value["about"]),
            outputs=tuple(Output.model_validate(item) for item in value["outputs"]),
            seconds=dict(value["seconds"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _scored(item: Mapping[str, Any]) -> Scored:
    marks = tuple(
        tuple(Matches(one["label"], one["wanted"], tuple(one["found"])) for one in image)
        for image in item.get("matches", ())
    )
    return Scored(item["metric"], tuple(item["numerators"]), tuple(item["denominators"]), marks)


@dataclass(frozen=True)
class MethodScorer:
    """Scores methods on tasks.

    Args:
        loaded: The base.
        described: Whether the description is in every prompt (protocol ``described``).
        limit: The most test examples that are scored of each task; None scores all.
        outputs: How many outputs a score records.
        passages: Texts that belong to no task, on which the change of NLL is measured; without any it is not measured.
    """

    loaded: LoadedBase
    described: bool
    limit: int | None
    outputs: int
    passages: tuple[str, ...] = ()

    def key(self, method: Method, context: TaskContext, oracle: str | None) -> str:
        """Return the hash of all that decides a score.

        Args:
            method: The method.
            context: The task with its shots.
            oracle: The SHA-256 of the harvested adapter that the method's is compared with; None without one.
        """
        task = context.task
        try:
            identity = method.identity(context)
        except UnavailableError as reason:
            identity = str(reason)
        description = list(task.descriptions[:1])
        shots = [item.content for item in context.shots]
        settings = [self.described, self.limit, self.outputs, task.metric]
        others = [[file.name, file.sha256] for file in self.loaded.base.files if not file.name.endswith(".safetensors")]
        base = [
            self.loaded.base.weight_hash,
            others,
            str(self.loaded.dtype),
        ]  # the files besides the weights count, since a tokenizer or its template may change
        decisive = [VERSION, base, task.data_hash, description, shots, settings, method.name, identity, oracle]
        decisive += self.loaded.base.encoding
        if self.passages:
            decisive.append(list(self.passages))
        return files.sha256_json(decisive)[:24]

    def score(self, method: Method, context: TaskContext, oracle: Adapter | None, key: str) -> RawScore:
        """Score a method on a task.

        Args:
            method: The method that serves the task.
            context: The task with its shots.
            oracle: The task's harvested adapter; None without one.
            key: The hash that ``key`` returned for the score.

        Raises:
            UsageError: If a test example is longer than what the base reads.
        """
        started = time.monotonic()
        try:
            served = method.serve(context)
        except UnavailableError as reason:
            return RawScore(key, context.task.name, method.name, reason=str(reason))
        ready = time.monotonic()
        examples = context.task.examples("test")[: self.limit]
        if not examples:
            return RawScore(key, context.task.name, method.name, reason="the task has no test examples")
        passages = self._of_base  # scored before anything is merged
        try:
            with merged(self.loaded.model, served.adapter):
                scores, outputs = self._scores(served, context, examples)
                if served.adapter is not None:
                    passages = score_texts(self.loaded, self.passages)
        except UnavailableError as reason:
            return RawScore(key, context.task.name, method.name, reason=str(reason))
        return RawScore(
            key=key,
            task=context.task.name,
            method=method.name,
            scores=scores,
            reconstruction=reconstruction(served.adapter, oracle),
            unrelated=self._change(served, passages),
            about=served.about,
            outputs=outputs,
            seconds={"serve": ready - started, "score": time.monotonic() - ready},
        )

    @cached_property
    def _of_base(self) -> tuple[TextScore, ...]:
        """The scores of the passages under the base itself."""
        return score_texts(self.loaded, self.passages)

    def _change(self, served: Served, passages: Sequence[TextScore]) -> Scored | None:
        """Return the change of the passages' NLL; None where only the prompt serves the task, or without passages."""
        if not passages or (served.adapter is None and (served.described or served.shots)):
            return None
        pairs = zip(passages, self._of_base, strict=True)
        changes, tokens = tuple(new.nll - old.nll for new, old in pairs), tuple(float(item.tokens) for item in passages)
        return Scored("unrelated", changes, tokens)

    def _scores(
        self, served: Served, context: TaskContext, examples: Sequence[Example]
    ) -> tuple[dict[str, Scored], tuple[Output, ...]]:
        if context.task.template.kind == "text":
            return self._text_scores(served, context, examples), ()
        return self._answer_scores(served, context, examples)

    def _text_scores(self, served: Served, context: TaskContext, examples: Sequence[Example]) -> dict[str, Scored]:
        description = [context.text] if served.described or self.described else []
        prefix = "".join(f"{text}\n\n" for text in [*description, *(shot.output for shot in served.shots)])
        return text_metrics(score_texts(self.loaded, [example.output for example in examples], prefix=prefix))

    def _answer_scores(
        self, served: Served, context: TaskContext, examples: Sequence[Example]
    ) -> tuple[dict[str, Scored], tuple[Output, ...]]:
        task, described = context.task, served.described or self.described
        if served.shots and have_pictures((*served.shots, *examples)):
            raise UnavailableError("a prompt has one image, so that no answered examples can stand before it")
        rows = encode_with_shots(self.loaded.family, task, examples, served.shots, described=described)
        if served.shots and not fits(self.loaded, rows):
            raise UnavailableError("with the examples before it, a question is longer than what the base reads")
        check_fit(self.loaded, rows, task, examples)
        scored = score_rows(self.loaded, rows)
        written = written_answers(self.loaded, task, examples, rows, scored.exact)
        f1 = tuple(token_f1(text, example.output) for text, example in zip(written, examples, strict=True))
        values = {"exact_match": tuple(map(float, scored.exact)), "f1": f1, "nll": scored.nll}
        outputs = tuple(
            Output(
                input=cut(example.input),
                expected=cut(example.output),
                output=cut(text),
                exact=exact,
                picture=None if example.picture is None else example.picture.sha256,
            )
            for example, text, exact in list(zip(examples, written, scored.exact, strict=True))[: self.outputs]
        )
        if task.metric in DETECTION_METRICS:
            return boxes_found([item.output for item in examples], written) | _scored_by(values), outputs
        if task.metric not in values:
            values[task.metric] = apply_metric(task.metric, written, [example.output for example in examples])
        return _scored_by(values), outputs


def _scored_by(values: Mapping[str, Sequence[float]]) -> dict[str, Scored]:
    """Return metrics that are means over examples."""
    return {name: Scored(name, tuple(numbers), (1.0,) * len(numbers)) for name, numbers in values.items()}


def boxes_found(expected: Sequence[str], written: Sequence[str]) -> dict[str, Scored]:
    """Return the mean average precisions of written boxes.

    Args:
        expected: the answer for each image.
        written: what was written for each image.

    Raises:
        IcmloraError: If pycocotools is not installed.
    """
    marks = matches(written, expected)
    each = np.nan_to_num(average_precisions(marks, np.arange(len(marks))[:, None]))  # NaN where no box was wanted
    return {
        name: Scored(name, tuple(each[:, places].mean(1).tolist()), (1.0,) * len(marks), marks)
        for name, places in METRICS.items()
    }


def written_answers(
    loaded: LoadedBase, task: Task, examples: Sequence[Example], rows: Sequence[Encoded], exact: Sequence[bool]
) -> list[str]:
    """Return what greedy decoding writes for each example; only answers that are not exact have to be decoded.

    Args:
        loaded: The base, with whatever is merged into it.
        task: The task, whose template says where an answer ends.
        examples: The examples to answer.
        rows: The examples as token ids.
        exact: For each example, whether ``lm.scoring.score_rows`` found that greedy decoding writes its answer.
    """
    wrong = [index for index, right in enumerate(exact) if not right]
    written = [example.output for example in examples]
    decoded = greedy(loaded, [rows[index] for index in wrong], stop=stop_text(task.template))
    for index, text in zip(wrong, decoded, strict=True):
        written[index] = text.strip()
    return written


def text_metrics(scores: Sequence[TextScore]) -> dict[str, Scored]:
    """Return the perplexity (per token) and the bits per character of texts."""
    nats, tokens = tuple(item.nll for item in scores), tuple(float(item.tokens) for item in scores)
    bits = tuple(value / math.log(2) for value in nats)
    characters = tuple(float(item.characters) for item in scores)
    return {
        "bits_per_character": Scored("bits_per_character", bits, characters),
        "perplexity": Scored("perplexity", nats, tokens),
    }


def cut(text: str) -> str:
    """Return a text short enough to be shown."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def stop_text(template: PromptTemplate) -> str | None:
    """Return the text that ends an answer of the template: a line's end where one follows the answer; None for chat."""
    after = template.answer.split("{output}")[-1]
    return "\n" if template.kind == "plain" and after.startswith("\n") else None


def reconstruction(adapter: Adapter | None, oracle: Adapter | None) -> Reconstruction | None:
    """Return how near an adapter is to the harvested one, or None where one is missing."""
    if adapter is None or oracle is None:
        return None
    closeness = compare(adapter, oracle)
    if not math.isfinite(closeness.all.error):  # no relative error against an oracle of zeros
        return None
    return Reconstruction(
        all=_fidelity(closeness.all),
        by_type={name: _fidelity(item) for name, item in closeness.by_type.items() if math.isfinite(item.error)},
        by_layer={index: _fidelity(item) for index, item in closeness.by_layer.items() if math.isfinite(item.error)},
    )


def _fidelity(item: Closeness) -> Fidelity:
    return Fidelity(error=item.error, cosine=item.cosine)


def nll_on_shots(loaded: LoadedBase, context: TaskContext, adapter: Adapter) -> float:
    """Return the mean NLL of the shots' answers under an adapter, nats per token."""
    with merged(loaded.model, adapter):
        if context.task.template.kind == "text":
            texts = score_texts(loaded, [shot.output for shot in context.shots])
            return sum(item.nll for item in texts) / sum(item.tokens for item in texts)
        return score_rows(loaded, task_rows(loaded, context.task, context.shots)).mean_nll
