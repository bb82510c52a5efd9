"""The objects of a scene and their places: shapes as polygons, arranged without a single pixel.

Lengths are fractions of the picture's shorter side, (row, column) from its upper left corner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 28, 36),
    "orange": (248, 132, 16),
    "yellow": (246, 226, 40),
    "green": (36, 164, 52),
    "cyan": (44, 210, 222),
    "blue": (32, 64, 222),
    "purple": (132, 40, 190),
    "pink": (250, 120, 186),
}
CLASS_NAMES = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
"""Class `8 * shape + colour` is "colour shape", both counted in the order given above."""

SIZES = {"small": (0.11, 0.14), "large": (0.20, 0.27)}
"""Range of the radius of each named size, as a fraction of the picture's shorter side."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Difficulty:
    """How crowded and how rough the scenes are; pairs are (lowest, highest), both possible."""

    object_shares: tuple[float, ...]  # probability of one, two, ... objects
    strokes: tuple[int, int]
    specks: tuple[int, int]
    blobs: tuple[int, int]
    texture: float  # grey levels
    grain: tuple[float, float]  # grey levels
    shading: float  # share of the light that gradient, shadow and warmth may take


DIFFICULTIES = {
    "easy": Difficulty((0.5, 0.5), (0, 2), (0, 4), (0, 1), 9.0, (2.0, 6.0), 0.12),
    "full": Difficulty((0.3, 0.35, 0.35), (2, 5), (4, 10), (1, 3), 20.0, (6.0, 18.0), 0.26),
}


@cache
def outline(shape: str) -> tuple[FloatArray, ...]:
    """Closed polygons (points, 2) of a shape, (row, column) in radii; a second one is a hole."""

    def polygon(corners: int, *reaches: float) -> FloatArray:
        turn = 2 * np.pi * np.arange(corners) / corners
        reach = np.resize(reaches, corners)
        return np.stack([-reach * np.cos(turn), reach * np.sin(turn)], axis=1).astype(np.float32)

    if shape == "circle":
        return (polygon(48, 0.9),)
    if shape == "ring":
        return polygon(48, 1.0), polygon(48, 0.52)
    if shape == "star":
        return (polygon(10, 1.25, 0.58),)
    if shape == "cross":
        arm, half = 1.02, 0.34
        quarter = np.array([[-arm, -half], [-arm, half], [-half, half]])
        turns = [np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k) for k in range(4)]
        return (np.concatenate([quarter @ turn for turn in turns]).astype(np.float32),)
    corners, reach = {"triangle": (3, 1.25), "square": (4, 1.1)}[shape]
    return (polygon(corners, reach),)


def _covers(shape: str, points: FloatArray) -> NDArray[np.bool_]:
    """Mask of the points (n, 2), in radii from the centre, that a shape covers: even-odd rule."""
    row, column = points[:, :1], points[:, 1:]
    crossings = np.zeros(len(points), dtype=np.int64)
    for loop in outline(shape):
        (row0, column0), (row1, column1) = loop.T, np.roll(loop, -1, axis=0).T
        slope = (column1 - column0) / np.where(row1 == row0, 1, row1 - row0)
        spans = (row0 > row) != (row1 > row)
        crossings += (spans & (column < column0 + slope * (row - row0))).sum(axis=1)
    odd: NDArray[np.bool_] = crossings % 2 == 1
    return odd


@cache
def _samples(shape: str) -> FloatArray:
    """A fine grid of the points (n, 2) that a shape covers, in radii from its centre."""
    axis = np.linspace(-1.25, 1.25, 19)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).astype(np.float32)
    points: FloatArray = grid.reshape(-1, 2)
    return points[_covers(shape, points)]


@dataclass(frozen=True)
class Body:
    """An object as geometry; lengths in units of the shorter side."""

    shape: str
    colour: str
    size: str
    row: float
    column: float
    radius: float
    angle: float

    def outward(self, points: FloatArray) -> FloatArray:
        """Points of the picture, of points (n, 2) in radii from the centre."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]], dtype=np.float32) * np.float32(self.radius)
        return points @ turn + np.array([self.row, self.column], dtype=np.float32)

    def inward(self, points: FloatArray) -> FloatArray:
        """Points in radii from the centre, of points (n, 2) of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]], dtype=np.float32) / np.float32(self.radius)
        return (points - np.array([self.row, self.column], dtype=np.float32)) @ turn


def _visible_share(body: Body, front: Sequence[Body], rows: float, columns: float) -> float:
    """The share of a body's area that is inside the picture and not behind the others."""
    reach = 1.25 * body.radius
    inside = reach < body.row < rows - reach and reach < body.column < columns - reach
    front = [
        other
        for other in front
        if math.hypot(body.row - other.row, body.column - other.column)
        < reach + 1.25 * other.radius
    ]
    if inside and not front:
        return 1.0
    points = body.outward(_samples(body.shape))
    seen = ((points > 0) & (points < (rows, columns))).all(axis=1)
    for other in front:
        seen &= ~_covers(other.shape, other.inward(points))
    return float(seen.mean())


def arrange(
    rng: np.random.Generator, rows: float, columns: float, difficulty: Difficulty
) -> tuple[list[Body], list[int]]:
    """Draw the bodies, the main one first, and the order in which to paint them, back to front.

    The classes are drawn before the places, and only the places are drawn again when too little of
    a body would be visible: rejection cannot make one class rarer than another.
    """
    count, remainder = 1, rng.random()
    while remainder >= sum(difficulty.object_shares[:count]) and count < len(
        difficulty.object_shares
    ):
        count += 1
    classes: list[int] = []
    while len(classes) < count:
        drawn = int(rng.integers(len(CLASS_NAMES)))
        if drawn not in classes:
            classes.append(drawn)
    sizes = ["large"] + ["small"] * (count - 1)
    if count == 1 and rng.random() < 0.5:
        sizes = ["small"]
    radii = [rng.uniform(*SIZES[size]) for size in sizes]
    angles = rng.uniform(0, 2 * math.pi, count).tolist()
    order: list[int] = rng.permutation(count).tolist()
    while True:
        bodies: list[Body] = []
        for label, size, radius, angle in zip(classes, sizes, radii, angles, strict=True):
            colour, shape = CLASS_NAMES[label].split()
            row = rng.uniform(0.85 * radius, rows - 0.85 * radius)
            column = rng.uniform(0.85 * radius, columns - 0.85 * radius)
            bodies.append(Body(shape, colour, size, row, column, radius, angle))
        # Shapes of one colour must not touch: nobody could tell where one of them ends.
        apart = all(
            math.hypot(one.row - two.row, one.column - two.column)
            > (1.2 if one.colour == two.colour else 0.65) * (one.radius + two.radius)
            for position, one in enumerate(bodies)
            for two in bodies[:position]
        )
        # The main object keeps more than the others: it must also be the largest to the eye.
        if apart and all(
            _visible_share(bodies[body], [bodies[i] for i in order[place + 1 :]], rows, columns)
            >= (0.72 if body == 0 else 0.62)
            for place, body in enumerate(order)
        ):
            return bodies, order
