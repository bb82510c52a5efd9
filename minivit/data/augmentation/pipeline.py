"""From a photo to a training sample that is new in every epoch, and the same in every run.

    x = erase(normalise(transform_n(… transform_1(photo))))    all drawn from (seed, epoch, index)

A sample depends on these three numbers and on nothing else: not on the order of loading, nor on
how many processes load. The transforms are those of torchvision.transforms.v2 for Pillow's
pictures; equal parameters give equal pictures, bit for bit.

    augmentation = Augmentation(
        transforms=(RandomResizedCrop(224), RandomHorizontalFlip(), RandAugment()),
        preprocess=model.preprocess,
    )
    x = augmentation(open_image(path), sample_rng(seed, epoch, index))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minivit.data.augmentation.colour import ColorJitter as ColorJitter
from minivit.data.augmentation.geometry import Box, boxes_to_try, place
from minivit.data.augmentation.geometry import RandomHorizontalFlip as RandomHorizontalFlip
from minivit.data.augmentation.geometry import RandomQuarterTurn as RandomQuarterTurn
from minivit.data.augmentation.geometry import RandomResizedCrop as RandomResizedCrop
from minivit.data.augmentation.geometry import RandomRotation as RandomRotation
from minivit.data.augmentation.geometry import Resize as Resize
from minivit.data.augmentation.mixing import CutMix as CutMix
from minivit.data.augmentation.mixing import MixUp as MixUp
from minivit.data.augmentation.rand_augment import RandAugment as RandAugment
from minivit.data.augmentation.transform import Transform, is_number, is_range, require
from minivit.preprocess import BadImageError, Preprocess, to_rgb


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch: a stream of its own for every triple.

    Raises:
        ValueError: A negative number.
    """
    if min(seed, epoch, index) < 0:
        found = f"{seed}, {epoch}, {index}"
        raise ValueError(f"seed, epoch, index: found {found}, expected 0 or more")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((seed, epoch, index))))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random transforms, then the normalisation that belongs to the model.

    Attributes:
        transforms: In order; they decide the size of the result, `preprocess` does not change it.
        preprocess: Of the model; only its mean and standard deviation are used.
        erasing: Comes last, on the normalised values.
    """

    transforms: tuple[Transform[Any], ...]
    preprocess: Preprocess
    erasing: RandomErasing | None = None

    def view(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The RGB picture after all transforms, before normalisation.

        Args:
            image: In any of Pillow's modes; it is left as it was.
            rng: Usually `sample_rng(seed, epoch, index)`.

        Raises:
            BadImageError: No pixels.
        """
        image = to_rgb(image)
        if self.preprocess.channels == 1:  # grey, with three equal colours for the transforms
            image = image.convert("L").convert("RGB")
        if min(image.size) < 1:
            raise BadImageError(f"the picture is {image.size}; each side must be at least 1")
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        """A photo -> (C, H, W) float32, normalised; arguments and errors are those of `view`."""
        picture = self.view(image, rng)
        if self.preprocess.channels == 1:
            picture = picture.convert("L")
        bands = [np.asarray(band) for band in picture.split()]
        x = self.preprocess.normalize(torch.from_numpy(np.stack(bands)))  # (C, H, W)
        if self.erasing is None:
            return x
        return self.erasing(x.expand(3, -1, -1), rng)[: len(x)]  # it writes three channels

    def describe(self) -> str:
        """One line for a report."""
        steps = [*self.transforms, "normalise"] + ([self.erasing] if self.erasing else [])
        return ", ".join(str(step) for step in steps)


class Erasure(NamedTuple):
    """Where a picture is erased, and the noise (3, height, width) that takes its place, or None."""

    box: Box
    noise: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """A random box is overwritten (Zhong et al. 2017, arXiv:1708.04896), in normalised values.

    Attributes:
        p: Share of the samples that lose something.
        scale: Range of the share of the area, uniform.
        ratio: Range of height / width, uniform in its logarithm.
        value: Written into the box: a number, one a channel, or "random" for normal noise.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, float, float] | Literal["random"] = 0.0

    def __post_init__(self) -> None:
        require(self, "p", is_number(self.p, 0, 1), "a number in 0..1")
        require(self, "scale", is_range(self.scale, 0, 1), "(low, high) within 0..1")
        ordered = is_range(self.ratio, 0) and self.ratio[0] > 0
        require(self, "ratio", ordered, "(low, high), above 0")
        values = self.value if isinstance(self.value, tuple) else (self.value,) * 3
        good = self.value == "random" or (len(values) == 3 and all(map(is_number, values)))
        require(self, "value", good, 'a number, three of them, or "random"')

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Erasure | None:
        """What to erase of (height, width); None: nothing, also where ten boxes were too large."""
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
        """Erases this from (3, H, W); the tensor given is left as it was."""
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
