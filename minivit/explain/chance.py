"""Chance for methods that need it: the same for a picture wherever and whenever it is explained.

A generator of its own for each picture, started from the seed and from what the picture shows,
leaves torch's random state alone. Two pictures get numbers that have nothing to do with each other,
and a picture gets the same ones alone, in a batch, and on another device. One whose values were
rounded is another picture.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from minivit.data.seeds import mix_seed
from minivit.fields import is_whole


def generators(images: Tensor, seed: int) -> list[torch.Generator]:
    """A generator on the CPU for each picture.

    Args:
        images: (B, C, height, width).
        seed: Seed, 0 or more.

    Raises:
        ValueError: A seed that is not a whole number from 0.
    """
    if not is_whole(seed, 0):
        raise ValueError(f"seed is {seed!r}, expected a whole number, at least 0")
    pixels = images.detach().float().cpu().contiguous().numpy()
    return [torch.Generator().manual_seed(mix_seed(seed, zlib.crc32(each))) for each in pixels]
