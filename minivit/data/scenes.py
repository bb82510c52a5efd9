"""The built-in data: pictures of coloured shapes, drawn from (seed, index) and never stored.

A scene holds one to three objects on a textured background. Its label is the shape and colour of
the main object: the only large one, or the only one. Nothing cheap gives the answer away. The
background is drawn without looking at the objects and stays away from all eight object colours
alike; thin lines, arcs, specks and soft blobs in those same colours lie behind the objects; the
light varies in strength, warmth and direction. The caption says where the objects are, and is true.

Lengths are fractions of the shorter side until the moment of drawing, and the grain of the pixels
is the last thing to be drawn from the random stream: one (seed, index) is the same scene at every
image size of the same aspect ratio.

Splits are seeds. Training data is seed 0 (then 1, 2, ... for other training sets); held-out data
uses `VALIDATION_SEED` and `TEST_SEED`, so that no picture is ever seen in two splits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

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

VALIDATION_SEED = 1_000_001
TEST_SEED = 1_000_002

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class _Difficulty:
    """How crowded and how rough the scenes are; pairs are (lowest, highest), both possible."""

    object_shares: tuple[float, ...]  # probability of one, two, ... objects
    strokes: tuple[int, int]
    specks: tuple[int, int]
    blobs: tuple[int, int]
    texture: float  # grey levels
    grain: tuple[float, float]  # grey levels
    shading: float  # share of the light that gradient, shadow and warmth may take


_DIFFICULTIES = {
    "easy": _Difficulty((0.5, 0.5), (0, 2), (0, 4), (0, 1), 9.0, (2.0, 6.0), 0.12),
    "full": _Difficulty((0.3, 0.35, 0.35), (2, 5), (4, 10), (1, 3), 20.0, (6.0, 18.0), 0.26),
}


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        colour: A key of `COLOURS`: the colour of the paint, before light falls on it.
        size: "small" or "large".
        centre: (row, column) in pixels; the pixel (i, j) covers [i, i + 1) x [j, j + 1).
        radius: Nominal radius in pixels. Outlines reach 0.9 to 1.25 times as far, so that shapes
            of one radius cover about the same area.
        angle: Rotation in radians, counter-clockwise on the screen.
        mask: (height, width) bool, True where most of the pixel shows this object.
    """

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    radius: float
    angle: float
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it.

    Attributes:
        image: The picture, RGB.
        label: Index into `CLASS_NAMES`, of the main object.
        objects: The main object first.
        caption: Lower-case words separated by single spaces.
        word_objects: For each word of the caption the index of the object whose noun phrase
            (article, size, colour, shape) it belongs to; None for words of relation.
    """

    image: Image.Image
    label: int
    objects: tuple[SceneObject, ...]
    caption: str
    word_objects: tuple[int | None, ...]


# ---- shapes -----------------------------------------------------------------------------------


@cache
def _outline(shape: str) -> tuple[FloatArray, ...]:
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
    """Which points (n, 2), in radii from the centre, a shape covers: the even-odd rule."""
    row, column = points[:, :1], points[:, 1:]
    crossings = np.zeros(len(points), dtype=np.int64)
    for loop in _outline(shape):
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


# ---- geometry ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Body:
    """An object as geometry; lengths in units of the shorter side."""

    shape: str
    colour: str
    size: str
    row: float
    column: float
    radius: float
    angle: float

    def outward(self, points: FloatArray) -> FloatArray:
        """Points (n, 2) in radii from the centre -> points of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]], dtype=np.float32) * np.float32(self.radius)
        return points @ turn + np.array([self.row, self.column], dtype=np.float32)

    def inward(self, points: FloatArray) -> FloatArray:
        """Points (n, 2) of the picture -> points in radii from the centre."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]], dtype=np.float32) / np.float32(self.radius)
        return (points - np.array([self.row, self.column], dtype=np.float32)) @ turn


def _visible_share(body: _Body, front: Sequence[_Body], rows: float, columns: float) -> float:
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


def _arrange(
    rng: np.random.Generator, rows: float, columns: float, difficulty: _Difficulty
) -> tuple[list[_Body], list[int]]:
    """Draw the bodies, the main one first, and the order in which to paint them, back to front.

    What the objects are is settled before where they are, and only the places are drawn again when
    too little of a body would be visible: rejection cannot make one class rarer than another.
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
        bodies: list[_Body] = []
        for label, size, radius, angle in zip(classes, sizes, radii, angles, strict=True):
            colour, shape = CLASS_NAMES[label].split()
            row = rng.uniform(0.85 * radius, rows - 0.85 * radius)
            column = rng.uniform(0.85 * radius, columns - 0.85 * radius)
            bodies.append(_Body(shape, colour, size, row, column, radius, angle))
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


# ---- painting ---------------------------------------------------------------------------------

_PAINTS = tuple(COLOURS.values())
_PALETTE = np.array(_PAINTS, dtype=np.float32)
_BACKGROUND_CONTRAST = 110.0  # least distance, in RGB grey levels, from every object colour


def _some_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return _PAINTS[int(len(_PAINTS) * rng.random())]


@cache
def _background_colours() -> FloatArray:
    """Colours (n, 3) that differ enough from every object colour, evenly spaced in RGB."""
    axis = np.arange(24, 232, 8, dtype=np.float32)
    colours: FloatArray = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    distance = np.linalg.norm(colours[:, None] - _PALETTE, axis=2).min(axis=1)
    kept: FloatArray = colours[distance > _BACKGROUND_CONTRAST]
    return kept


def _colour_field(rng: np.random.Generator) -> Image.Image:
    """A tiny picture (4 x 4) of one background colour drifting towards another."""
    choice = _background_colours()
    base, other = choice[rng.integers(len(choice), size=2)]
    share = (0.5 * rng.random((4, 4, 1))).astype(np.float32)
    return Image.fromarray((base + share * (other - base)).astype(np.uint8))


def _strew(
    canvas: Image.Image, rng: np.random.Generator, short: float, difficulty: _Difficulty
) -> None:
    """Draw thin lines, thin arcs and specks onto a picture, in the colours of the objects."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    for _ in range(rng.integers(difficulty.strokes[0], difficulty.strokes[1] + 1)):
        left, top, turn, reach, thick = rng.random(5).tolist()
        left, top = left * width, top * height
        colour, thickness = _some_colour(rng), max(1, round(short * (0.012 + 0.014 * thick)))
        reach = short * (0.12 + 0.3 * reach)
        if rng.random() < 0.5:
            end = (left + reach * math.cos(6.28 * turn), top + reach * math.sin(6.28 * turn))
            draw.line([(left, top), end], fill=colour, width=thickness)
        else:
            box = (left - reach / 2, top - reach / 2, left + reach / 2, top + reach / 2)
            draw.arc(box, 360 * turn, 360 * turn + 150, fill=colour, width=thickness)
    for _ in range(rng.integers(difficulty.specks[0], difficulty.specks[1] + 1)):
        left, top, reach = rng.random(3).tolist()
        left, top, reach = left * width, top * height, short * (0.01 + 0.018 * reach)
        box = (left - reach, top - reach, left + reach, top + reach)
        draw.ellipse(box, fill=_some_colour(rng))


def _texture(rng: np.random.Generator, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Stripes, checks or blotches in [-1, 1]: (height, 1) and (1, width) -> (height, width)."""
    kind, turn, frequency, phase = rng.random(4).tolist()
    blotches = rng.integers(0, 256, (9, 9), dtype=np.uint8)
    if kind < 0.34:
        size = (columns.shape[1], rows.shape[0])
        field = np.asarray(Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC))
        return field.astype(np.float32) / np.float32(127.5) - np.float32(1)
    wave, angle = 2 * math.pi * (4 + 5 * frequency), math.pi * turn
    along = rows * np.float32(wave * math.sin(angle)) + columns * np.float32(wave * math.cos(angle))
    stripes: FloatArray = np.sin(along + np.float32(6.28 * phase))
    if kind < 0.67:
        return stripes
    across = rows * np.float32(wave * math.cos(angle)) - columns * np.float32(
        wave * math.sin(angle)
    )
    return np.clip(2 * stripes * np.sin(across), -1, 1)


def _coverage(body: _Body, short: int, height: int, width: int) -> tuple[FloatArray, slice, slice]:
    """How much of each pixel a body covers, in [0, 1], and the rows and columns of that box."""
    scale = 4  # drawn this many times larger, then averaged
    loops = [body.outward(loop) * short for loop in _outline(body.shape)]
    top, left = np.maximum(np.floor(loops[0].min(axis=0)), 0).astype(int).tolist()
    low, high = np.ceil(loops[0].max(axis=0)).astype(int).tolist()
    bottom, right = min(low, height), min(high, width)
    canvas = Image.new("L", (scale * (right - left), scale * (bottom - top)))
    draw = ImageDraw.Draw(canvas)
    for loop, fill in zip(loops, (255, 0), strict=False):
        # Pillow's coordinates name the centres of pixels, hence the half.
        corners = (loop[:, ::-1] - (left, top)) * scale - 0.5
        draw.polygon(corners.ravel().tolist(), fill=fill)
    coverage = np.asarray(canvas.reduce(scale)).astype(np.float32) / np.float32(255)
    return coverage, slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class _Painting:
    pixels: NDArray[np.uint8]  # (3, height, width)
    bodies: list[_Body]
    order: list[int]
    coverages: dict[int, tuple[FloatArray, slice, slice]]


def _paint(rng: np.random.Generator, height: int, width: int, difficulty: _Difficulty) -> _Painting:
    """Arrange a scene and paint it: background, objects, light, grain, in this order."""
    short = min(height, width)
    bodies, order = _arrange(rng, height / short, width / short, difficulty)
    half = np.float32(0.5)  # from a pixel's corner to its centre
    rows: FloatArray = (np.arange(height, dtype=np.float32)[:, None] + half) / np.float32(short)
    columns: FloatArray = (np.arange(width, dtype=np.float32)[None] + half) / np.float32(short)

    canvas = _colour_field(rng).resize((width, height), Image.Resampling.BICUBIC)
    # Drawn at twice the size and averaged: the strokes get soft edges.
    canvas = canvas.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
    _strew(canvas, rng, 2 * short, difficulty)
    # (height, width, 3) -> (3, height, width)
    image = np.asarray(canvas.reduce(2)).transpose(2, 0, 1).astype(np.float32, order="C")
    tint = rng.uniform(-0.5, 0.5, 3) + rng.choice((-0.7, 0.7))
    strength = tint.astype(np.float32) * np.float32(difficulty.texture)
    image += _texture(rng, rows, columns) * strength[:, None, None]
    for _ in range(rng.integers(difficulty.blobs[0], difficulty.blobs[1] + 1)):
        row, column, spread, opacity = rng.random(4).tolist()
        spread = 0.06 + 0.1 * spread
        fall_rows = np.exp(-(((rows - row * height / short) / spread) ** 2))
        fall_columns = np.exp(-(((columns - column * width / short) / spread) ** 2))
        veil = fall_rows * fall_columns * np.float32(0.2 + 0.3 * opacity)
        colour = np.array(_some_colour(rng), dtype=np.float32)
        image += veil * (colour[:, None, None] - image)

    coverages = {}
    for position in order:
        body = bodies[position]
        coverage, top, left = coverages[position] = _coverage(body, short, height, width)
        paint = np.array(COLOURS[body.colour]) + rng.uniform(-10, 10, 3)
        slope_row, slope_column, stripe, phase = rng.uniform(-1, 1, 4).tolist()
        down, right = (
            (rows[top] - body.row) / body.radius,
            (columns[:, left] - body.column) / body.radius,
        )
        shade = 1 + np.float32(0.1 * slope_row) * down + np.float32(0.1 * slope_column) * right
        shade += np.float32(0.06 * stripe) * np.sin(9 * (down + slope_row * right) + 3 * phase)
        region = image[:, top, left]
        region += coverage * (paint.astype(np.float32)[:, None, None] * shade - region)

    gain, warmth, slope_row, slope_column = rng.uniform(-1, 1, 4).tolist()
    light = (
        np.float32(0.9 + 0.6 * difficulty.shading * gain)
        + np.float32(difficulty.shading * slope_row) * (rows - rows.mean())
        + np.float32(difficulty.shading * slope_column) * (columns - columns.mean())
    )
    turn, offset, depth = rng.random(3).tolist()
    edge = rows * np.float32(math.sin(6.28 * turn)) + columns * np.float32(math.cos(6.28 * turn))
    edge = (edge - edge.mean() - np.float32(0.6 * offset - 0.1)) / np.float32(0.08)
    light *= 1 - np.float32(1.5 * difficulty.shading * depth) * np.clip(edge, 0, 1)
    warm = 0.35 * difficulty.shading * warmth
    image *= light * np.array([1 + warm, 1, 1 - warm], dtype=np.float32)[:, None, None]

    grain = rng.uniform(*difficulty.grain) / 128
    noise = np.frombuffer(rng.bytes(image.size), dtype=np.int8).reshape(image.shape)
    image += noise * np.float32(grain)
    return _Painting(np.clip(image, 0, 255).astype(np.uint8), bodies, order, coverages)


# ---- captions ---------------------------------------------------------------------------------

_RELATIONS = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "upper left": ("to the upper left of",),
    "upper right": ("to the upper right of",),
    "lower left": ("to the lower left of",),
    "lower right": ("to the lower right of",),
    "near": ("near", "next to", "close to"),
}
# Capitals are slots: A is object A with an article, A:the names it again, A>B is where A is from B.
_ALONE = (
    "A",
    "there is A",
    "A on its own",
    "A:a-single on its own",
    "A:one and nothing else",
    "nothing but A",
)
_PAIR = (
    "A A>B B",
    "there is A A>B B",
    "A is A>B B",
    "A sits A>B B",
    "A can be seen A>B B",
    "A>B B there is A",
    "A>B B sits A",
)
_TRIPLE = (
    "A A>B B and A>C C",
    "A is A>B B and A>C C",
    "there is A A>B B and A>C C",
    "A A>B B with C C>A A:the",
    "A sits A>B B and C is C>A A:the",
)
_BETWEEN = (
    "A between B and C",
    "A is between B and C",
    "there is A between B and C",
    "between B and C sits A",
)


def _caption_words() -> tuple[str, ...]:
    templates = " ".join((*_ALONE, *_PAIR, *_TRIPLE, *_BETWEEN)).split()
    words = {word for word in templates if word.islower() and ":" not in word}
    words |= {"a", "the", "one", "single", *SIZES, *COLOURS, *SHAPES}
    return tuple(sorted(words.union(*(p.split() for ps in _RELATIONS.values() for p in ps))))


CAPTION_WORDS = _caption_words()
"""Every word that a caption can contain, sorted."""


def _relation(one: _Body, two: _Body) -> str:
    """Where `one` is, seen from `two`: a direction when it is plain, else "near"."""
    down, right = one.row - two.row, one.column - two.column
    vertical, horizontal = "above" if down < 0 else "below", "left" if right < 0 else "right"
    if abs(right) > 0.2 and abs(right) > 1.6 * abs(down):
        return horizontal
    if abs(down) > 0.2 and abs(down) > 1.6 * abs(right):
        return vertical
    if min(abs(down), abs(right)) > 0.2:
        return f"{'upper' if down < 0 else 'lower'} {horizontal}"
    return "near"


def _is_between(one: _Body, two: _Body, three: _Body) -> bool:
    """Whether `one` is close to the middle of the line from `two` to `three`."""
    down, right = three.row - two.row, three.column - two.column
    length = math.hypot(down, right)
    share = ((one.row - two.row) * down + (one.column - two.column) * right) / length**2
    aside = abs((one.row - two.row) * right - (one.column - two.column) * down) / length
    return 0.3 < share < 0.7 and aside < 0.15 * length


def _describe(rng: np.random.Generator, bodies: list[_Body]) -> list[tuple[str, int | None]]:
    """A caption as pairs (word, index of the object it speaks of)."""
    order: list[int] = rng.permutation(len(bodies)).tolist()
    choices: tuple[tuple[str, ...], ...] = (_ALONE, _PAIR, _TRIPLE)
    templates = choices[len(bodies) - 1]
    if len(bodies) == 3 and rng.random() < 0.7:
        for _ in range(3):
            order = order[1:] + order[:1]
            if _is_between(*(bodies[i] for i in order)):
                templates = _BETWEEN
                break
    objects = dict(zip("ABC", order, strict=False))
    words: list[tuple[str, int | None]] = []
    for slot in templates[rng.integers(len(templates))].split():
        if slot[0].islower():
            words.append((slot, None))
        elif ">" in slot:
            phrases = _RELATIONS[_relation(bodies[objects[slot[0]]], bodies[objects[slot[2]]])]
            words += [(word, None) for word in phrases[rng.integers(len(phrases))].split()]
        else:
            index, article = objects[slot[0]], slot[2:] or "a"
            body = bodies[index]
            size = [] if article == "the" else [body.size]
            phrase = [*article.split("-"), *size, body.colour, body.shape]
            words += [(word, index) for word in phrase]
    return words


# ---- the public functions ---------------------------------------------------------------------


def _stream(seed: int, index: int, stream: int) -> np.random.Generator:
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index of a scene must be 0 or more, got {seed} and {index}")
    return np.random.Generator(
        np.random.SFC64(np.random.SeedSequence((seed, index), spawn_key=(stream,)))
    )


def _check(image_size: int | tuple[int, int], difficulty: str) -> tuple[int, int, _Difficulty]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 16:
        raise ValueError(
            f"image_size must be at least 16 pixels on both sides, got {image_size}: "
            "smaller objects have no shape"
        )
    if difficulty not in _DIFFICULTIES:
        raise ValueError(
            f"unknown difficulty {difficulty!r}, expected one of {', '.join(_DIFFICULTIES)}"
        )
    return height, width, _DIFFICULTIES[difficulty]


def make_scene(
    seed: int, index: int, *, image_size: int | tuple[int, int] = 64, difficulty: str = "full"
) -> Scene:
    """Draw one scene: the same arguments give the same scene, whatever was drawn before.

    Args:
        seed: Names the endless series of scenes; see the module's docstring for the splits.
        index: Which scene of the series.
        image_size: Side in pixels, or (height, width).
        difficulty: "easy" (one or two objects, little noise) or "full".

    Raises:
        ValueError: Negative seed or index, a side below 16 pixels, an unknown difficulty.
    """
    height, width, chosen = _check(image_size, difficulty)
    painting = _paint(_stream(seed, index, 0), height, width, chosen)
    short = min(height, width)
    free = np.ones((height, width), dtype=np.float32)
    masks = {}
    for position in reversed(painting.order):  # front to back
        coverage, rows, columns = painting.coverages[position]
        mask = masks[position] = np.zeros((height, width), dtype=np.bool_)
        mask[rows, columns] = coverage * free[rows, columns] > 0.5
        free[rows, columns] *= 1 - coverage
    objects = tuple(
        SceneObject(
            shape=body.shape,
            colour=body.colour,
            size=body.size,
            centre=(body.row * short, body.column * short),
            radius=body.radius * short,
            angle=body.angle,
            mask=masks[position],
        )
        for position, body in enumerate(painting.bodies)
    )
    words = _describe(_stream(seed, index, 1), painting.bodies)
    return Scene(
        # (3, height, width) -> (height, width, 3)
        image=Image.fromarray(np.ascontiguousarray(painting.pixels.transpose(1, 2, 0))),
        label=CLASS_NAMES.index(f"{objects[0].colour} {objects[0].shape}"),
        objects=objects,
        caption=" ".join(word for word, _ in words),
        word_objects=tuple(index for _, index in words),
    )


class ScenesDataset(Dataset[tuple[torch.Tensor, int]]):
    """Scenes 0 to length - 1 of a seed as (uint8 tensor (3, height, width), label).

    Nothing is stored and captions and masks are not worked out: drawing costs less than decoding
    a JPEG. Scaling to floats and normalising is the work of `minivit.preprocess`.
    """

    def __init__(
        self,
        seed: int = 0,
        length: int = 10_000,
        *,
        image_size: int | tuple[int, int] = 64,
        difficulty: str = "full",
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be 1 or more, got {length}")
        _stream(seed, 0, 0)
        self.height, self.width, self._difficulty = _check(image_size, difficulty)
        self.seed, self.length = seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of a data set of {self.length}")
        rng = _stream(self.seed, index, 0)
        painting = _paint(rng, self.height, self.width, self._difficulty)
        main = painting.bodies[0]
        return torch.from_numpy(painting.pixels), CLASS_NAMES.index(f"{main.colour} {main.shape}")
