"""Random erasing: a box of the normalised picture is overwritten (Zhong et al. 2017).

arXiv:1708.04896. Unlike the other transforms it works on tensors, after the normalisation, so that
the value 0 is the mean of the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minivit.data.augmentation.boxes import Box, boxes_to_try, is_ratio, place
from minivit.data.augmentation.transform import require
from minivit.fields import is_number, is_range


class Erasure(NamedTuple):
    """The box that is erased, and the noise (3, height, width) in its place, or None."""

    box: Box
    noise: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Overwrites a random box of a sample, in normalised values.

    Attributes:
        p: Share of the samples that lose something.
        scale: Range of the share of the area, uniform.
        ratio: Range of height / width, uniform in its logarithm.
        value: Number for the box, or one a channel, or "random" for normal noise.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, float, float] | Literal["random"] = 0.0

    def __post_init__(self) -> None:
        require(self, "p", is_number(self.p, 0, 1), "a number in 0..1")
        require(self, "scale", is_range(self.scale, 0, 1), "(low, high) within 0..1")
        require(self, "ratio", is_ratio(self.ratio), "(low, high), above 0")
        values = self.value if isinstance(self.value, tuple) else (self.value,) * 3
        good = self.value == "random" or (len(values) == 3 and all(map(is_number, values)))
        require(self, "value", good, 'a number, three of them, or "random"')

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Erasure | None:
        """The erasure of a picture (height, width); None: nothing, or ten boxes were too large."""
        if rng.random() >= self.p:
            return None
        for high, wide in boxes_to_try(rng, size[0] * size[1], self.scale, self.ratio):
            if high < size[0] and wide < size[1]:
                noise = None
                if self.value == "random":
                    noise = rng.standard_normal((3, high, wide), dtype=np.float32)
                return Erasure(place(rng, size, high, wide), noise)
        return None

    def apply(self, x: Tensor, parameters: Erasure | None) -> Tensor:
        """The sample (3, H, W) without this box; the tensor given is left as it was."""
        if parameters is None:
            return x
        (top, left, height, width), noise = parameters
        if noise is None:
            value = torch.tensor(self.value).expand(3)[:, None, None]  # () or (3,) -> (3, 1, 1)
        else:
            value = torch.from_numpy(noise)
        x = x.clone()
        x[:, top : top + height, left : left + width] = value
        return x

    def __call__(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        """(3, H, W) -> (3, H, W); draws and applies."""
        return self.apply(x, self.draw(rng, (x.shape[-2], x.shape[-1])))
