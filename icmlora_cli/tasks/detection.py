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
AT_ONCE = 100  # resamples, which bounds the memory that they take


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


def mean_average_precision(marks: Marks, metric: str) -> float:
    """Return the metric over some images, 0 to 1; NaN if none of them has a box.

    Args:
        marks: the matches of each image.
        metric: one of ``METRICS``.
    """
    return float(average_precisions(marks, np.arange(len(marks))[None])[0, METRICS[metric]].mean())


def average_precisions(marks: Marks, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the average precision at each IoU, as the mean over labels, of many resamples of some images.

    Args:
        marks: the matches of each image.
        draws: the images of each resample, in their order, [resamples, images]; an image can be there several times.

    Returns:
        fp64 [resamples, thresholds], 0 to 1; NaN where no image of a resample has a box.
    """
    labels = sorted({item.label for image in marks for item in image if item.wanted})
    parts = []
    for start in range(0, len(draws), AT_ONCE):
        some = draws[start : start + AT_ONCE]
        total, count = np.zeros((len(some), THRESHOLDS)), np.zeros((len(some), 1))
        for label in labels:
            own = [next((item for item in image if item.label == label), None) for image in marks]
            precisions, wanted = _of_label(own, some)
            total += np.where(wanted[:, None] > 0, precisions, 0.0)
            count += wanted[:, None] > 0
        parts.append(total / np.where(count > 0, count, np.nan))
    return np.concatenate(parts)


def _of_label(
    images: Sequence[Matches | None], draws: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the average precisions of one label, [resamples, thresholds], and how many of its boxes were expected."""
    found = [() if item is None else item.found for item in images]
    wanted = np.array([0 if item is None else item.wanted for item in images])[draws].sum(1)
    bits = np.zeros((len(images), max(1, *map(len, found))), dtype=np.int64)
    shown = np.zeros_like(bits)
    for row, own in enumerate(found):
        bits[row, : len(own)], shown[row, : len(own)] = own, 1
    size = (len(draws), -1)
    hits = (bits[draws].reshape(size)[..., None] >> np.arange(THRESHOLDS)) & 1  # (resamples, boxes, thresholds)
    right, rank = hits.cumsum(1), shown[draws].reshape(size).cumsum(1)
    precision = right / np.maximum(rank, 1)[..., None]
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.zeros((len(draws), THRESHOLDS, int(wanted.max()) + 1))  # the envelope where so many are found
    best[..., 0] = envelope[:, 0]
    draw, box, threshold = hits.nonzero()
    best[draw, threshold, right[draw, box, threshold]] = envelope[draw, box, threshold]
    least = {count: np.searchsorted(np.arange(count + 1) / max(count, 1), RECALLS) for count in set(wanted.tolist())}
    needed = np.stack([least[count] for count in wanted.tolist()])[:, None]  # how many must be found for each recall
    return np.take_along_axis(best, np.minimum(needed, wanted[:, None, None]), axis=2).mean(2), wanted


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
