"""Two pictures in one, their labels mixed in proportion: MixUp and CutMix, on whole batches.

    MixUp   x = λ xᵢ + (1 - λ) xⱼ           y = λ yᵢ + (1 - λ) yⱼ     λ ~ Beta(α, α)
    CutMix  x = xᵢ, and xⱼ within a box     y the same, λ = share of the area that shows xᵢ

Zhang et al. 2017, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899. As in torchvision, j is the
sample before i in the batch, which is in random order anyway, and λ is one number a batch.

The targets are probabilities, (B, classes), for `F.cross_entropy`; its `label_smoothing` smooths
them as it does whole labels, so nothing is smoothed here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Generic, TypeVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from minivit.data.augmentation.boxes import Box
from minivit.data.augmentation.transform import require
from minivit.fields import is_number, is_whole

Parameters = TypeVar("Parameters")


@dataclass(frozen=True)
class Mixing(ABC, Generic[Parameters]):
    """The base of MixUp and CutMix.

    Attributes:
        num_classes: Width of the targets.
        alpha: Parameter of the Beta distribution: 1 is uniform, below it most pictures are hardly
            mixed.
    """

    num_classes: int
    _: KW_ONLY
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require(self, "num_classes", is_whole(self.num_classes, 1), "a whole number above 0")
        require(self, "alpha", is_number(self.alpha, 0) and self.alpha > 0, "a number above 0")

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Parameters:
        """Parameters for one batch of pictures of this (height, width)."""

    @abstractmethod
    def apply(
        self, images: Tensor, labels: Tensor, parameters: Parameters
    ) -> tuple[Tensor, Tensor]:
        """The batch mixed with these parameters; shapes as in a call."""

    def __call__(
        self, images: Tensor, labels: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draws and applies.

        Args:
            images: Pictures (B, 3, H, W), normalised.
            labels: Labels (B,), whole numbers.
            rng: Random numbers from which λ is drawn.

        Returns:
            New images (B, 3, H, W), and targets (B, classes) whose rows sum to 1.

        Raises:
            ValueError: Shapes that do not fit, a label that is no class, or images of whole
                numbers.
        """
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"images and labels: found {shapes}, expected (B, 3, H, W) and (B,)")
        if not images.is_floating_point() or labels.is_floating_point():
            types = f"{images.dtype} and {labels.dtype}"
            raise ValueError(f"images and labels: found {types}, expected floats and integers")
        height, width = images.shape[-2:]
        return self.apply(images, labels, self.draw(rng, (height, width)))

    def targets(self, labels: Tensor, share: float) -> Tensor:
        """Targets (B, classes) float32: `share` of the own class, the rest of the other's."""
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            outside = f"{int(labels.min())}..{int(labels.max())}"
            raise ValueError(f"labels: found {outside}, expected 0..{self.num_classes - 1}")
        whole = F.one_hot(labels.long(), self.num_classes).float()  # (B,) -> (B, classes)
        return whole.roll(1, 0).mul_(1 - share).add_(whole.mul_(share))


@dataclass(frozen=True)
class MixUp(Mixing[float]):
    """Adds every picture, weighted, to the next one; the parameter is λ."""

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> float:
        """λ in 0..1."""
        return rng.beta(self.alpha, self.alpha)

    def apply(self, images: Tensor, labels: Tensor, parameters: float) -> tuple[Tensor, Tensor]:
        """The batch mixed with this λ."""
        mixed = images.roll(1, 0).mul_(1 - parameters).add_(images.mul(parameters))
        return mixed, self.targets(labels, parameters)


@dataclass(frozen=True)
class CutMix(Mixing[Box]):
    """A box of every picture shows the one before it; the parameter is the box."""

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Box:
        """A box of about 1 - λ of the area around any pixel, cut at the edges of the picture."""
        height, width = size
        share = rng.beta(self.alpha, self.alpha)
        centre_x, centre_y = int(rng.integers(width)), int(rng.integers(height))
        half = 0.5 * math.sqrt(1 - share)
        half_width, half_height = int(half * width), int(half * height)
        left, right = max(0, centre_x - half_width), min(width, centre_x + half_width)
        top, bottom = max(0, centre_y - half_height), min(height, centre_y + half_height)
        return Box(top, left, bottom - top, right - left)

    def apply(self, images: Tensor, labels: Tensor, parameters: Box) -> tuple[Tensor, Tensor]:
        """The batch with this box pasted; the labels follow its exact area."""
        top, left, height, width = parameters
        rows, columns = slice(top, top + height), slice(left, left + width)
        mixed = images.clone()
        mixed[..., rows, columns] = images.roll(1, 0)[..., rows, columns]
        share = 1 - height * width / (images.shape[-2] * images.shape[-1])
        return mixed, self.targets(labels, share)
