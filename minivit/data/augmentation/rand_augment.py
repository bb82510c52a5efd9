"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719): a few random operations of one strength.

The operations and their strengths are those of torchvision.transforms.v2, which differ from the
paper's a little: the strength rises in `num_magnitude_bins` steps, 0 leaves the picture as it is,
and shears, shifts, turns and the four enhancements go either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from minivit.data.augmentation.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
)
from minivit.data.augmentation.geometry import rotate, shear, shift
from minivit.data.augmentation.transform import (
    Fill,
    Transform,
    WarpFilter,
    is_fill,
    require,
    require_choice,
)
from minivit.fields import is_whole

# Operations that go either way: their strength in the last bin; of shifts, the share of the side.
_SIGNED = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": 150 / 331,
    "TranslateY": 150 / 331,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}
OPERATIONS = ("Identity", *_SIGNED, "Posterize", "Solarize", "AutoContrast", "Equalize")


@dataclass(frozen=True, kw_only=True)
class RandAugment(Transform[tuple[tuple[str, float], ...]]):
    """`num_ops` operations out of the fourteen `OPERATIONS`; one may come twice.

    The parameters are (name, magnitude) in the order of their use.

    Attributes:
        num_ops: Number of operations.
        magnitude: Strength of all of them, 0 to num_magnitude_bins - 1.
        num_magnitude_bins: Number of strengths, from nothing to the strongest.
        filter: Filter for shears and rotations.
        fill: Grey level or colour of what comes into the picture.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    filter: WarpFilter = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        bins = self.num_magnitude_bins
        require(self, "num_ops", is_whole(self.num_ops, 0), "a whole number, 0 or more")
        require(self, "num_magnitude_bins", is_whole(bins, 2), "a whole number, 2 or more")
        good = is_whole(self.magnitude, 0, bins - 1)
        require(self, "magnitude", good, f"a whole number in 0..{bins - 1}")
        require_choice(self, "filter", WarpFilter)
        require(self, "fill", is_fill(self.fill), "0..255 or (red, green, blue)")

    def draw(
        self, rng: np.random.Generator, size: tuple[int, int]
    ) -> tuple[tuple[str, float], ...]:
        """(name, magnitude) of each operation; the signs are drawn too."""
        steps = []
        for _ in range(self.num_ops):
            name = OPERATIONS[rng.integers(len(OPERATIONS))]
            magnitude = magnitude_of(name, self.magnitude, self.num_magnitude_bins, size)
            if name in _SIGNED and rng.random() < 0.5:
                magnitude = -magnitude
            steps.append((name, magnitude))
        return tuple(steps)

    def apply(self, image: Image.Image, parameters: tuple[tuple[str, float], ...]) -> Image.Image:
        """The picture after these operations."""
        for name, magnitude in parameters:
            image = operate(image, name, magnitude, self.filter, self.fill)
        return image


def magnitude_of(name: str, step: int, num_steps: int, size: tuple[int, int]) -> float:
    """The magnitude of an operation at one of `num_steps` strengths; 0 where it has only one.

    Shears: pixels a row. Shifts: pixels. Rotate: degrees. Enhancements: the factor less 1.
    Posterize: bits kept, 8 to 4. Solarize: the threshold, 1 to 0. `size` is (height, width).
    """
    if name == "Posterize":
        return round(8 - step / ((num_steps - 1) / 4))
    if name not in _SIGNED and name != "Solarize":
        return 0.0
    first, last = (1.0, 0.0) if name == "Solarize" else (0.0, _SIGNED[name])
    if name.startswith("Translate"):
        last *= size[1] if name == "TranslateX" else size[0]
    # In float32, as in torchvision: shifts are cut to whole pixels, and the last digit can decide.
    return torch.linspace(first, last, num_steps)[step].item()


def operate(
    image: Image.Image, name: str, magnitude: float, filter: WarpFilter, fill: Fill
) -> Image.Image:
    """The RGB picture after one operation; ValueError for a name not in `OPERATIONS`."""
    match name:
        case "Identity":
            return image
        case "ShearX":
            return shear(image, magnitude, 0.0, filter, fill)
        case "ShearY":
            return shear(image, 0.0, magnitude, filter, fill)
        case "TranslateX":
            return shift(image, int(magnitude), 0, fill)
        case "TranslateY":
            return shift(image, 0, int(magnitude), fill)
        case "Rotate":
            return rotate(image, magnitude, filter, fill)
        case "Brightness":
            return adjust_brightness(image, 1 + magnitude)
        case "Color":
            return adjust_saturation(image, 1 + magnitude)
        case "Contrast":
            return adjust_contrast(image, 1 + magnitude)
        case "Sharpness":
            return adjust_sharpness(image, 1 + magnitude)
        case "Posterize":
            return ImageOps.posterize(image, int(magnitude))
        case "Solarize":
            return image.point([v if v < 255 * magnitude else 255 - v for v in range(256)] * 3)
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
    raise ValueError(f"operation {name!r}: expected one of {', '.join(OPERATIONS)}")
