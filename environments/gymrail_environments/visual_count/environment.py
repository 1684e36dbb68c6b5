"""Count the shapes of one colour and kind in a picture that the environment draws.

One row:

    {"responses_create_params": {"input": [{"role": "user", "content": [
        {"type": "input_text", "text": "How many red triangles are in the picture? ..."},
        {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,..."}]}]},
     "shape": "triangle", "color": "red", "expected_count": 3, "shapes": {"red triangle": 3, "blue circle": 2}}
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Generator, Sequence
from random import Random
from typing import Any, NamedTuple

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.verifiers.answer import says

COLORS = {
    "red": (214, 39, 40), "blue": (31, 80, 200), "green": (34, 139, 34), "yellow": (240, 200, 0),
    "purple": (128, 0, 160), "orange": (255, 127, 14), "black": (20, 20, 20),
}  # fmt: skip
SIDES = {"triangle": 3, "square": 4, "pentagon": 5, "circle": 0}
_BACKGROUND = (250, 250, 250)


class VisualCountConfig(Config):
    size: int = Field(256, ge=64, le=2048)
    """Width and height of the picture in pixels."""
    cells: int = Field(6, ge=2, le=24)
    """The picture is divided into so many cells a side; each holds one shape at most, so that none overlap."""
    most: int = Field(9, ge=1, le=100)
    """Of the shapes that are asked for."""
    distractors: int = Field(12, ge=0, le=400)
    """Other shapes at most; half of them have the colour or the kind that is asked for."""


DEFAULTS = VisualCountConfig()  # pyright: ignore[reportCallIssue]


class VisualCountTask(Task):
    shape: str
    color: str
    expected_count: int
    shapes: dict[str, int] = Field(default_factory=dict)


class Shape(NamedTuple):
    """What is drawn in one cell."""

    kind: str
    color: str


class VisualCount(Environment[VisualCountTask]):
    """Right when the answer gives the exact number, and no other."""

    Config = VisualCountConfig

    @classmethod
    def generate(cls, rng: Random, config: VisualCountConfig = DEFAULTS) -> VisualCountTask:
        asked = Shape(rng.choice(list(SIDES)), rng.choice(list(COLORS)))
        room = config.cells**2
        count = rng.randint(0, min(config.most, room))
        others = [_other(rng, asked) for _ in range(rng.randint(0, min(config.distractors, room - count)))]
        shapes = [asked] * count + others
        picture = draw(rng, shapes, config.size, config.cells)
        url = f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"
        text = f"How many {asked.color} {asked.kind}s are in the picture? End with 'Answer: <number>'."
        parts = [
            {"type": "input_text", "text": text},
            {"type": "input_image", "detail": "auto", "image_url": url},
        ]
        told = Counter(f"{shape.color} {shape.kind}" for shape in shapes)
        return VisualCountTask.ask(
            [{"role": "user", "content": parts}],
            shape=asked.kind, color=asked.color, expected_count=count, shapes=dict(sorted(told.items())),
        )  # fmt: skip

    def verify(self, rollout: Rollout) -> Verdict:
        expected = self.task.expected_count
        is_right = says(rollout.final_text, str(expected))
        metrics = {"expected_count": expected}
        return Verdict(float(is_right), metrics=metrics, reason=None if is_right else f"expected {expected}")

    def solve(self) -> Generator[Turn, str, None]:
        yield f"Answer: {self.task.expected_count}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Miscount by one or two, as eyes do."""
        return f"Answer: {abs(self.task.expected_count + rng.choice((-2, -1, 1, 2))) or self.task.expected_count + 1}"


def draw(rng: Random, shapes: Sequence[Shape], size: int, cells: int) -> bytes:
    """Return a PNG with every shape in a cell of its own, turned, moved and scaled at random.

    Raises:
        InputError: pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise InputError(f"Drawing needs pillow ({error}): pip install 'gymrail[vision]'") from None
    # A palette of few colours is drawn and written in a fifth of the time of full colours.
    palette = [_BACKGROUND, *COLORS.values()]
    picture = Image.new("P", (size, size), 0)
    picture.putpalette([part for color in palette for part in color])
    pen: Any = ImageDraw.Draw(picture)
    cell = size / cells
    for shape, place in zip(shapes, rng.sample(range(cells**2), len(shapes)), strict=True):
        radius = cell * rng.uniform(0.28, 0.42)
        slack = cell / 2 - radius - 1
        x = (place % cells + 0.5) * cell + rng.uniform(-slack, slack)
        y = (place // cells + 0.5) * cell + rng.uniform(-slack, slack)
        pen.polygon(
            _corners(shape.kind, x, y, radius, rng.uniform(0, 2 * math.pi)), fill=palette.index(COLORS[shape.color])
        )
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def _corners(kind: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    corners = SIDES[kind] or 64
    angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _other(rng: Random, asked: Shape) -> Shape:
    """Another shape: half of the time it shares the colour or the kind."""
    while True:
        shape = Shape(rng.choice(list(SIDES)), rng.choice(list(COLORS)))
        if rng.random() < 0.5:
            shape = shape._replace(kind=asked.kind) if rng.random() < 0.5 else shape._replace(color=asked.color)
        if shape != asked:
            return shape
