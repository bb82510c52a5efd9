"""Drawing a scene: background, distractors, objects, light and grain, in this order."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from minivit.data.scenes.objects import COLOURS, Body, Difficulty, FloatArray, arrange, outline

_PAINTS = tuple(COLOURS.values())
_PALETTE = np.array(_PAINTS, dtype=np.float32)
_BACKGROUND_CONTRAST = 110.0  # least distance, in RGB grey levels, from every object colour


def _some_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A random colour of the objects."""
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
    canvas: Image.Image, rng: np.random.Generator, short: float, difficulty: Difficulty
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


def _coverage(body: Body, short: int, height: int, width: int) -> tuple[FloatArray, slice, slice]:
    """Share of each pixel that a body covers, in [0, 1], and the rows and columns of its box."""
    scale = 4  # drawn this many times larger, then averaged
    loops = [body.outward(loop) * short for loop in outline(body.shape)]
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
class Painting:
    """A painted scene.

    Attributes:
        pixels: Picture (3, height, width).
        bodies: Objects, the main one first.
        order: Indices of the objects as they were painted, back to front.
        coverages: Coverage of each object, with the rows and columns of its box, see `_coverage`.
    """

    pixels: NDArray[np.uint8]
    bodies: list[Body]
    order: list[int]
    coverages: dict[int, tuple[FloatArray, slice, slice]]

    def masks(self) -> NDArray[np.bool_]:
        """(objects, height, width), True where most of the pixel shows the object."""
        free = np.ones(self.pixels.shape[1:], dtype=np.float32)
        masks = np.zeros((len(self.bodies), *free.shape), dtype=np.bool_)
        for position in reversed(self.order):  # front to back
            coverage, rows, columns = self.coverages[position]
            masks[position, rows, columns] = coverage * free[rows, columns] > 0.5
            free[rows, columns] *= 1 - coverage
        return masks


@dataclass(frozen=True)
class Paint:
    """Colour of an object, and how it changes over the object.

    Attributes:
        colour: Red, green and blue (3,), in grey levels.
        slope_row: Change of brightness downward, in units of 0.1 a radius.
        slope_column: Change of brightness to the right, in the same units.
        stripe: Strength of stripes, in units of 0.06.
        phase: Shift of the stripes.
    """

    colour: FloatArray
    slope_row: float
    slope_column: float
    stripe: float
    phase: float

    def shade(self, down: FloatArray, right: FloatArray) -> FloatArray:
        """Brightness at places (height, 1) and (1, width), in radii from the object's centre."""
        shade = (
            1
            + np.float32(0.1 * self.slope_row) * down
            + np.float32(0.1 * self.slope_column) * right
        )
        stripes = np.sin(9 * (down + self.slope_row * right) + 3 * self.phase)
        shade += np.float32(0.06 * self.stripe) * stripes
        return shade


@dataclass(frozen=True)
class Layers:
    """A scene before its objects are laid onto the background and light falls onto both.

    Attributes:
        ground: Background (3, height, width), in grey levels.
        bodies: Objects, the main one first.
        order: Indices of the objects as they are painted, back to front.
        paints: Paint of each object.
        light: Factor (3, height, width).
        noise: What is added at the end (3, height, width), whole numbers.
        grain: Grey levels of one step of the noise.
    """

    ground: FloatArray
    bodies: list[Body]
    order: list[int]
    paints: dict[int, Paint]
    light: FloatArray
    noise: NDArray[np.int8]
    grain: float


def draw_layers(
    rng: np.random.Generator, height: int, width: int, difficulty: Difficulty
) -> Layers:
    """Arrange a scene and draw all that is left to chance."""
    short = min(height, width)
    bodies, order = arrange(rng, height / short, width / short, difficulty)
    rows, columns = _places(height, width)
    ground = _ground(rng, height, width, difficulty)
    paints = {}
    for position in order:
        colour = np.array(COLOURS[bodies[position].colour]) + rng.uniform(-10, 10, 3)
        paints[position] = Paint(colour.astype(np.float32), *rng.uniform(-1, 1, 4).tolist())

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
    tinted = light * np.array([1 + warm, 1, 1 - warm], dtype=np.float32)[:, None, None]

    grain = rng.uniform(*difficulty.grain) / 128
    noise = np.frombuffer(rng.bytes(ground.size), dtype=np.int8).reshape(ground.shape)
    return Layers(ground, bodies, order, paints, tinted, noise, grain)


def _places(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Middles of the pixels, (height, 1) down and (1, width) to the right, in shorter sides."""
    short, half = np.float32(min(height, width)), np.float32(0.5)
    rows: FloatArray = (np.arange(height, dtype=np.float32)[:, None] + half) / short
    columns: FloatArray = (np.arange(width, dtype=np.float32)[None] + half) / short
    return rows, columns


def _ground(
    rng: np.random.Generator, height: int, width: int, difficulty: Difficulty
) -> FloatArray:
    """The background (3, height, width) with its strokes, specks, texture and veils."""
    short = min(height, width)
    rows, columns = _places(height, width)
    canvas = _colour_field(rng).resize((width, height), Image.Resampling.BICUBIC)
    # Drawn at twice the size and averaged: the strokes get soft edges.
    canvas = canvas.resize((2 * width, 2 * height), Image.Resampling.NEAREST)
    _strew(canvas, rng, 2 * short, difficulty)
    # (height, width, 3) -> (3, height, width)
    image: FloatArray = (
        np.asarray(canvas.reduce(2)).transpose(2, 0, 1).astype(np.float32, order="C")
    )
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
    return image


def compose(layers: Layers) -> Painting:
    """Lay the objects onto the background, then light and grain onto all; changes `ground`."""
    image = layers.ground
    height, width = image.shape[1:]
    rows, columns = _places(height, width)
    coverages = {}
    for position in layers.order:
        body, paint = layers.bodies[position], layers.paints[position]
        coverages[position] = _coverage(body, min(height, width), height, width)
        coverage, top, left = coverages[position]
        shade = paint.shade(
            (rows[top] - body.row) / body.radius, (columns[:, left] - body.column) / body.radius
        )
        region = image[:, top, left]
        region += coverage * (paint.colour[:, None, None] * shade - region)
    image *= layers.light
    image += layers.noise * np.float32(layers.grain)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    return Painting(pixels, layers.bodies, layers.order, coverages)


def paint(rng: np.random.Generator, height: int, width: int, difficulty: Difficulty) -> Painting:
    """Arrange a scene and paint it in the order of the module's docstring."""
    return compose(draw_layers(rng, height, width, difficulty))
