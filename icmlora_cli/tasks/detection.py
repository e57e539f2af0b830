"""Boxes that were written beside the expected ones: matches as COCO makes them, and mean average precision.

It is COCO's (Lin et al., ECCV 2014): precision at 101 recalls, averaged over labels, at IoU 0.5 (``map50``), 0.75
(``map75``), or over 0.5, 0.55, ... 0.95 (``map50_95``). A language model gives its boxes no score: all have the same,
and count in the order of the images and, within one, as they were written. pycocotools, of the extra
``icmlora[vision]``, makes the matches; the precision is computed from them here, so that images can be resampled for an
interval.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icmlora_cli.errors import IcmloraError
from icmlora_cli.tasks.boxes import Box, read_boxes
from icmlora_cli.tasks.metrics import DETECTION_METRICS

THRESHOLDS = 10  # of IoU: 0.5, 0.55, ... 0.95
METRICS = dict(zip(DETECTION_METRICS, (slice(0, THRESHOLDS), slice(0, 1), slice(5, 6)), strict=True))
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Matches:
    """What was found of one label in one image.

    Args:
        label: the label.
        wanted: how many boxes the image has of it.
        found: for each written box of it, in order, at which thresholds it was matched: bit t for threshold t.
    """

    label: str
    wanted: int
    found: tuple[int, ...]


Marks = tuple[tuple[Matches, ...], ...]
"""The matches of each image."""


def mean_average_precision(marks: Sequence[Sequence[Matches]], metric: str) -> float:
    """Return the metric over some images, 0 to 1; NaN if none of them has a box.

    Args:
        marks: the matches of each image; an image can be there several times.
        metric: one of ``METRICS``.
    """
    labels: dict[str, list[Matches]] = {}
    for image in marks:
        for item in image:
            labels.setdefault(item.label, []).append(item)
    values = [_average_precision(items, metric) for items in labels.values() if any(item.wanted for item in items)]
    return float(np.mean(values)) if values else float("nan")


def _average_precision(items: Sequence[Matches], metric: str) -> float:
    """Return the average precision of one label."""
    wanted = sum(item.wanted for item in items)
    bits = np.array([bits for item in items for bits in item.found], dtype=np.int64)
    if not bits.size:
        return 0.0
    shifts = np.arange(THRESHOLDS)[METRICS[metric]]
    hits: NDArray[np.float64] = ((bits[None] >> shifts[:, None]) & 1).astype(np.float64)  # (thresholds, boxes)
    right = hits.cumsum(1)
    recall, precision = right / wanted, right / np.arange(1, bits.size + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for own, best in zip(recall, envelope, strict=True):
        at = np.searchsorted(own, RECALLS, side="left")
        total += float(np.where(at < bits.size, best[np.minimum(at, bits.size - 1)], 0.0).mean())
    return total / len(shifts)


def matches(written: Sequence[str], expected: Sequence[str]) -> tuple[tuple[Matches, ...], ...]:
    """Return which of the written boxes match expected ones of their label, for each image.

    Args:
        written: what was written for each image; what is no box in it counts as nothing.
        expected: the answer for each image.

    Raises:
        IcmloraError: If pycocotools is not installed.
    """
    found, wanted = [read_boxes(text) for text in written], [read_boxes(text) for text in expected]
    labels = sorted({box.label for boxes in (*found, *wanted) for box in boxes})
    if not labels:
        return tuple(() for _ in written)
    evaluated = _evaluated(found, wanted, labels)
    images: list[tuple[Matches, ...]] = []
    for image in range(len(written)):
        of_image = []
        for index, label in enumerate(labels):
            item = evaluated[index * len(written) + image]
            if item is not None:
                bits = [sum(1 << t for t in range(THRESHOLDS) if row[t] > 0) for row in item["dtMatches"].T]
                of_image.append(Matches(label, len(item["gtIds"]), tuple(bits)))
        images.append(tuple(of_image))
    return tuple(images)


def _evaluated(found: Sequence[Sequence[Box]], wanted: Sequence[Sequence[Box]], labels: Sequence[str]) -> list[Any]:
    """Return pycocotools' matches of each label in each image, images within labels."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise IcmloraError(
            "mean average precision needs pycocotools, which is not installed", hint="pip install 'icmlora[vision]'"
        ) from error
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(1, len(wanted) + 1)],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels, start=1)],
        "annotations": _annotations(wanted, labels),
    }
    answers = COCO()
    answers.dataset = truth.dataset | {"annotations": _annotations(found, labels, score=1.0)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
    every: list[Any] = evaluation.evalImgs
    return every


def _annotations(boxes: Sequence[Sequence[Box]], labels: Sequence[str], **more: float) -> list[dict[str, object]]:
    flat = [(image, box) for image, own in enumerate(boxes, start=1) for box in own]
    made: list[dict[str, object]] = []
    for number, (image, box) in enumerate(flat, start=1):
        left, top, right, bottom = box.corners
        width, height = max(0.0, right - left), max(0.0, bottom - top)
        made.append(
            {
                "id": number,
                "image_id": image,
                "category_id": labels.index(box.label) + 1,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
                **more,
            }
        )
    return made
