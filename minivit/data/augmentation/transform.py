"""What every random transform of a photo is: parameters are drawn first, and applied after.

    parameters = transform.draw(rng, (height, width))    all the chance is in here
    image      = transform.apply(image, parameters)      and none is in here

So a test, or a reader, can apply parameters of their own choice. Names, defaults and distributions
are those of torchvision.transforms.v2; equal parameters give its picture bit for bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Generic, Literal, TypeVar

import numpy as np
from PIL import Image

Parameters = TypeVar("Parameters")
Fill = int | tuple[int, int, int]
WarpFilter = Literal["nearest", "bilinear", "bicubic"]


class Transform(ABC, Generic[Parameters]):
    """A random transform of RGB pictures; the subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Parameters:
        """Parameters for one picture of this (height, width)."""

    @abstractmethod
    def apply(self, image: Image.Image, parameters: Parameters) -> Image.Image:
        """The picture under these parameters; the one given is left as it was."""

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draws and applies."""
        return self.apply(image, self.draw(rng, (image.height, image.width)))


def require(transform: object, name: str, good: bool, expected: str) -> None:
    """Raises a ValueError that names the field of a transform, what it holds and what it should."""
    if not good:
        found = getattr(transform, name)
        raise ValueError(f"{type(transform).__name__} {name}: found {found!r}, expected {expected}")


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether this is a finite int or float (no bool) from `low` to `high`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return math.isfinite(value) and low <= value <= high


def is_range(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether this is a tuple (a, b) of numbers, low <= a <= b <= high."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(is_number(edge, low, high) for edge in value) and value[0] <= value[1]


def is_fill(value: object) -> bool:
    """Whether this is a grey level or a colour (red, green, blue), in whole numbers of 0..255."""
    levels = value if isinstance(value, tuple) and len(value) == 3 else (value,)
    return all(type(level) is int and 0 <= level <= 255 for level in levels)


def rgb(fill: Fill) -> tuple[int, int, int]:
    """A grey level or colour as (red, green, blue)."""
    return fill if isinstance(fill, tuple) else (fill, fill, fill)
