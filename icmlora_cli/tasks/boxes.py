"""Boxes in an image, and the text that says where they are.

Florence-2 (Xiao et al., CVPR 2024, https://arxiv.org/abs/2311.06242) writes a coordinate as one of 1,000 location
tokens: ``floor(coordinate / (size / 1000))``, at most 999. A box is its label and four of them: left, top, right and
bottom.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from icmlora_cli.tasks.conversations import BadRowError

BINS = 1000
PROMPT = "<OD>"  # Florence-2's word for object detection
_LOCATED = re.compile(r"([^<>]*)((?:<loc_\d{1,3}>){4,})")
_LOCATION = re.compile(r"<loc_(\d{1,3})>")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """A labelled box.

    Args:
        label: what is in it.
        corners: left, top, right and bottom, in pixels, or in bins where it was read from a text.
    """

    label: str
    corners: Corners


def checked_box(value: object, size: tuple[int, int]) -> Box:
    """Return a box of a task file or a row: a mapping with ``label`` and ``box``.

    Args:
        value: the mapping; its ``box`` is left, top, right and bottom in pixels.
        size: width and height of the image in pixels.

    Raises:
        BadRowError: If it is of another form, empty, or not within the image.
    """
    label = value.get("label") if isinstance(value, dict) else None
    box = value.get("box") if isinstance(value, dict) else None
    if not isinstance(label, str) or not label.strip() or set(label) & set("<>"):
        raise BadRowError("a box has no label, or one with < or > in it")
    numbers = [item for item in box if isinstance(item, int | float)] if isinstance(box, list | tuple) else []
    if len(numbers) != 4 or not isinstance(box, list | tuple) or len(box) != 4:
        raise BadRowError(f"the box of {label!r} is not [left, top, right, bottom] in pixels")
    left, top, right, bottom = map(float, numbers)
    said = ", ".join(f"{number:g}" for number in numbers)
    if not (left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]):
        raise BadRowError(f"the box [{said}] of {label!r} is not within the image of {size[0]} x {size[1]} pixels")
    if not (left < right and top < bottom):
        raise BadRowError(f"the box [{said}] of {label!r} is empty")
    return Box(label.strip(), (left, top, right, bottom))


def boxes_text(boxes: Sequence[Box], size: tuple[int, int]) -> str:
    """Return the text of boxes, in their order.

    Args:
        boxes: the boxes in pixels.
        size: width and height of the image in pixels.
    """
    return "".join(
        box.label + "".join(f"<loc_{_bin(value, size[index % 2])}>" for index, value in enumerate(box.corners))
        for box in boxes
    )


def _bin(value: float, size: int) -> int:
    return max(0, min(BINS - 1, int(value / (size / BINS))))


def read_boxes(text: str) -> list[Box]:
    """Return the boxes that a text says, with corners in bins; what is no box in it is left out.

    A label can be followed by several boxes. A box without a label of its own before it has the empty one.
    """
    found = []
    for label, locations in _LOCATED.findall(text):
        bins = [float(item) for item in _LOCATION.findall(locations)]
        for at in range(0, len(bins) - 3, 4):
            found.append(Box(label.strip(), (bins[at], bins[at + 1], bins[at + 2], bins[at + 3])))
    return found
