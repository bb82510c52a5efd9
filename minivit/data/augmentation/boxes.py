"""Random boxes within a picture, for cropping and for erasing.

The size of a box is drawn as a share of the picture's area and as an aspect ratio (Szegedy et al.
2015, arXiv:1409.4842, section 6). Such a box may be longer than the picture: ten are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from minivit.fields import is_range


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def is_ratio(value: object) -> bool:
    """Whether this is a range of aspect ratios: (low, high), both above 0."""
    return isinstance(value, tuple) and is_range(value, 0) and value[0] > 0


def boxes_to_try(
    rng: np.random.Generator, area: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Ten pairs of sides (a, b): a·b is a uniform share of the area, a/b is log-uniform."""
    logarithms = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        target = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*logarithms))
        yield round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))


def place(rng: np.random.Generator, size: tuple[int, int], height: int, width: int) -> Box:
    """A box of this height and width, anywhere within a picture of `size` (height, width)."""
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    return Box(int(top), int(left), height, width)
