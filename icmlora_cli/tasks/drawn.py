"""A detection set that is drawn here: shapes on a plain or busy ground, with exact boxes. It needs Pillow.

A task is a shape, perhaps of one size, on one kind of ground: ``star``, ``small_star``, ``large_star_busy``. Its
pictures also show other shapes, and of a task with a size the same shape in the other size; its answer has its own
shapes alone.
"""

import colorsys
import hashlib
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icmlora_cli.tasks.boxes import PROMPT, Box, boxes_text
from icmlora_cli.tasks.examples import Example, Picture
from icmlora_cli.tasks.pictures import check_pillow

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 96  # pixels of a picture
SIZES = {"small": (6.0, 9.0), "large": (13.0, 19.0)}  # pixels from a shape's middle to its corners
GROUNDS = ("plain", "busy")
SHAPES = (
    "arrow", "bowtie", "circle", "crescent", "cross", "diamond",
    "heart", "pentagon", "ring", "square", "star", "triangle",
)  # fmt: skip
TRIES = 40  # places that are tried for a shape before it is left out

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class DrawnTask:
    """A task of the drawn set.

    Args:
        shape: one of ``SHAPES``.
        size: ``small`` or ``large``; None for both.
        ground: ``plain`` or ``busy``.
    """

    shape: str
    size: str | None
    ground: str

    @property
    def name(self) -> str:
        """The task's name."""
        start = self.shape if self.size is None else f"{self.size}_{self.shape}"
        return start if self.ground == "plain" else f"{start}_busy"

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The task in words, the main one first."""
        what = f"{self.size} {self.shape}" if self.size else self.shape
        where = "in the picture" if self.ground == "plain" else "in the busy picture"
        return (
            f"Find every {what} {where}.",
            f"Detect {what} objects {where}.",
            f"Where is each {what} {where}?",
            f"Draw a box around every {what} {where}.",
        )

    def examples(self, count: int, seed: int) -> list[Example]:
        """Return pictures with the boxes of the task's own shapes, the same for the same seed.

        Raises:
            IcmloraError: If Pillow is not installed.
        """
        check_pillow()
        made = []
        for number in range(count):
            rng = random.Random(f"icmlora drawn {self.name} {seed} {number}")
            scene = draw_scene(rng, self.ground, self._wanted(rng))
            own = [item for item, size in scene.shapes if item.label == self.shape and self.size in (None, size)]
            made.append(Example(PROMPT, boxes_text(own, (SIDE, SIDE)), picture=scene.picture))
        return made

    def _wanted(self, rng: random.Random) -> list[tuple[str, str]]:
        """Return the shapes and sizes of a picture, the task's own first: there is one at least."""
        own = [(self.shape, self.size or rng.choice(list(SIZES))) for _ in range(rng.randint(1, 2))]
        others = [(shape, size) for shape in SHAPES if shape != self.shape for size in SIZES]
        if self.size is not None:
            others += [(self.shape, size) for size in SIZES if size != self.size] * len(SHAPES)
        return own + [rng.choice(others) for _ in range(rng.randint(1, 2))]


@dataclass(frozen=True)
class Scene:
    """A picture, and the box and size of each shape in it, from left to right."""

    picture: Picture
    shapes: tuple[tuple[Box, str], ...]


def drawn_tasks() -> dict[str, DrawnTask]:
    """Return all tasks of the set, by name."""
    tasks = [DrawnTask(shape, size, ground) for ground in GROUNDS for size in (None, *SIZES) for shape in SHAPES]
    return {task.name: task for task in tasks}


def draw_scene(rng: random.Random, ground: str, wanted: Sequence[tuple[str, str]]) -> Scene:
    """Draw shapes as ``draw`` does, and return the picture as a PNG.

    Args:
        rng: decides places, colours and turns.
        ground: ``plain`` or ``busy``.
        wanted: the shape and size of each.
    """
    image, shapes = draw(rng, ground, wanted)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = buffer.getvalue()
    return Scene(Picture(hashlib.sha256(data).hexdigest(), ".png", data), shapes)


def draw(
    rng: random.Random, ground: str, wanted: Sequence[tuple[str, str]]
) -> tuple["Image", tuple[tuple[Box, str], ...]]:
    """Draw shapes that do not touch each other; one for which no place is found is left out, but never the first.

    Args:
        rng: decides places, colours and turns.
        ground: ``plain`` or ``busy``.
        wanted: the shape and size of each.

    Returns:
        The picture, and the box and size of each shape in it, from left to right.
    """
    from PIL import Image, ImageDraw

    hue = rng.random()
    image = Image.new("RGB", (SIDE, SIDE), _colour(hue, 0.25, rng.uniform(0.75, 0.95)))
    if ground == "busy":
        _clutter(ImageDraw.Draw(image), rng, hue)
    placed: list[tuple[Box, str]] = []
    for shape, size in wanted:
        radius = rng.uniform(*SIZES[size])
        colour = _colour(hue + rng.uniform(0.2, 0.8), rng.uniform(0.7, 1.0), rng.uniform(0.25, 0.6))
        for _ in range(TRIES):
            middle = rng.uniform(radius + 1, SIDE - radius - 1), rng.uniform(radius + 1, SIDE - radius - 1)
            mask = _mask(shape, middle, radius, rng.uniform(-20, 20))
            corners = mask.getbbox()
            assert corners is not None
            if all(_apart(corners, box.corners) for box, _ in placed):
                image.paste(colour, mask=mask)
                left, top, right, bottom = map(float, corners)
                placed.append((Box(shape, (left, top, right, bottom)), size))
                break
    return image, tuple(sorted(placed, key=lambda item: item[0].corners))


def _apart(one: Sequence[float], two: Sequence[float]) -> bool:
    return one[2] < two[0] or two[2] < one[0] or one[3] < two[1] or two[3] < one[1]


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _clutter(draw: "object", rng: random.Random, hue: float) -> None:
    from PIL.ImageDraw import ImageDraw

    assert isinstance(draw, ImageDraw)
    for _ in range(rng.randint(14, 22)):
        colour = _colour(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.55, 1.0))
        ends = [rng.uniform(0, SIDE) for _ in range(4)]
        if rng.random() < 0.6:
            draw.line(ends, fill=colour, width=rng.randint(1, 3))
        else:
            left, top = ends[:2]
            draw.rectangle((left, top, left + rng.uniform(4, 30), top + rng.uniform(4, 30)), outline=colour)


def _mask(shape: str, middle: tuple[float, float], radius: float, turn: float) -> "Image":
    """Return where a shape is, as an image of black and white."""
    from PIL import Image, ImageDraw

    mask = Image.new("1", (SIDE, SIDE))
    draw = ImageDraw.Draw(mask)
    x, y = middle

    def disc(at: tuple[float, float], size: float, fill: int) -> None:
        draw.ellipse((at[0] - size, at[1] - size, at[0] + size, at[1] + size), fill=fill)

    if shape in ("circle", "ring", "crescent"):
        disc(middle, radius, 1)
        if shape == "ring":
            disc(middle, 0.55 * radius, 0)
        elif shape == "crescent":
            disc((x + 0.55 * radius, y), 0.85 * radius, 0)
        return mask
    angle = math.radians(turn)
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(x + radius * (cos * u - sin * v), y + radius * (sin * u + cos * v)) for u, v in _outline(shape)]
    draw.polygon(points, fill=1)
    return mask


def _outline(shape: str) -> Points:
    """Return the corners of a shape around (0, 0), within a circle of radius 1; y points down."""
    if shape in ("triangle", "pentagon"):
        return _regular(3 if shape == "triangle" else 5)
    if shape == "star":
        outer, inner = _regular(5), _regular(5, 0.42, math.pi / 5)
        return [point for pair in zip(outer, inner, strict=True) for point in pair]
    if shape == "heart":
        steps = [2 * math.pi * index / 24 for index in range(24)]
        return [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
            for t in steps
        ]
    return _CORNERS[shape]


def _regular(corners: int, radius: float = 1.0, turn: float = 0.0) -> Points:
    angles = [turn - math.pi / 2 + 2 * math.pi * index / corners for index in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


_CORNERS: dict[str, Points] = {
    "square": ((-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)),
    "diamond": ((0, -1), (0.6, 0), (0, 1), (-0.6, 0)),
    "bowtie": ((-0.9, -0.6), (0, -0.1), (0.9, -0.6), (0.9, 0.6), (0, 0.1), (-0.9, 0.6)),
    "arrow": ((-0.95, -0.25), (0.1, -0.25), (0.1, -0.7), (0.95, 0), (0.1, 0.7), (0.1, 0.25), (-0.95, 0.25)),
    "cross": (
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ),
}  # fmt: skip
