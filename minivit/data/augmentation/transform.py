"""The base of every random transform of a photo: parameters are drawn first, and applied after.

    parameters = transform.draw(rng, (height, width))    all random choices are made here
    image      = transform.apply(image, parameters)      and none here

So a test, or a reader, can apply parameters of their own choice. Names, defaults and distributions
are those of torchvision.transforms.v2; equal parameters give its picture bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from PIL import Image

from minivit import fields
from minivit.fields import is_whole

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
    """As in `minivit.fields`; the class is named too: several transforms have a `p` or `filter`."""
    fields.require(transform, name, good, expected, what=type(transform).__name__)


def require_choice(transform: object, name: str, choices: Any) -> None:
    """As in `minivit.fields`; the class is named too."""
    fields.require_choice(transform, name, choices, what=type(transform).__name__)


def is_fill(value: object) -> bool:
    """Whether this is a grey level or a colour (red, green, blue), in whole numbers of 0..255."""
    levels = value if isinstance(value, tuple) and len(value) == 3 else (value,)
    return all(is_whole(level, 0, 255) for level in levels)


def rgb(fill: Fill) -> tuple[int, int, int]:
    """A grey level or colour as (red, green, blue)."""
    return fill if isinstance(fill, tuple) else (fill, fill, fill)
