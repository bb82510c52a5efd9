"""From a photo to a training sample that is new in every epoch, and the same in every run.

    x = erase(normalise(transform_n(… transform_1(photo))))    all drawn from (seed, epoch, index)

A sample depends on these three numbers and on nothing else (`minivit.data.seeds`): not on the order
of loading, nor on how many processes load. The transforms are those of torchvision.transforms.v2
for Pillow's pictures; equal parameters give equal pictures, bit for bit.

    augmentation = Augmentation(
        transforms=(RandomResizedCrop(224), RandomHorizontalFlip(), RandAugment()),
        preprocess=model.preprocess,
    )
    x = augmentation(open_image(path), sample_rng(seed, epoch, index))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minivit.data.augmentation.colour import ColorJitter as ColorJitter
from minivit.data.augmentation.erasing import RandomErasing as RandomErasing
from minivit.data.augmentation.geometry import RandomHorizontalFlip as RandomHorizontalFlip
from minivit.data.augmentation.geometry import RandomQuarterTurn as RandomQuarterTurn
from minivit.data.augmentation.geometry import RandomResizedCrop as RandomResizedCrop
from minivit.data.augmentation.geometry import RandomRotation as RandomRotation
from minivit.data.augmentation.geometry import Resize as Resize
from minivit.data.augmentation.mixing import CutMix as CutMix
from minivit.data.augmentation.mixing import MixUp as MixUp
from minivit.data.augmentation.rand_augment import RandAugment as RandAugment
from minivit.data.augmentation.transform import Transform
from minivit.preprocess import BadImageError, Preprocess, to_rgb


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random transforms, then the normalisation that belongs to the model.

    Attributes:
        transforms: Transforms in order; they decide the size of the result.
        preprocess: Transform of the model; only its mean and standard deviation are used.
        erasing: Last step, on the normalised values; None: nothing is erased.
    """

    transforms: tuple[Transform[Any], ...]
    preprocess: Preprocess
    erasing: RandomErasing | None = None

    def view(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The RGB picture after all transforms, before normalisation.

        Args:
            image: Photo in any of Pillow's modes; it is left as it was.
            rng: Random numbers, usually of `sample_rng(seed, epoch, index)`.

        Raises:
            BadImageError: The photo has no pixels.
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
        """The sample (C, H, W) float32, normalised; arguments and errors are those of `view`."""
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
