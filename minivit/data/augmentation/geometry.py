"""Random crops, flips and turns, and the shears and shifts of RandAugment, by Pillow's own code.

Angles are in degrees and run counter-clockwise, as in Pillow. Where torchvision has arguments for
"expand" and a centre there is one way here: a rotation keeps the size, a quarter turn keeps every
pixel.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, fields

import numpy as np
from PIL import Image

from minivit.data.augmentation.boxes import Box, boxes_to_try, is_ratio, place
from minivit.data.augmentation.transform import (
    Fill,
    Transform,
    WarpFilter,
    is_fill,
    require,
    require_choice,
    rgb,
)
from minivit.fields import is_number, is_range, is_whole
from minivit.preprocess import CropRounding, Filter, Mode, Preprocess

_STRIP_PIXELS = 2**22  # 16 MB in Pillow's memory: a larger box is not copied as a whole


@dataclass(frozen=True)
class RandomResizedCrop(Transform[Box]):
    """A random box of the photo, resized (Szegedy et al. 2015, arXiv:1409.4842, section 6).

    Ten boxes are tried, as share of the area and as aspect ratio. Where none fits, as in a narrow
    strip, the box is the largest one in the middle whose aspect ratio is allowed.

    Attributes:
        size: Size (height, width) of the result, or the side of a square.
        scale: Range of the share of the photo's area, uniform.
        ratio: Range of width / height, uniform in its logarithm.
        filter: Filter for the resize; it does not see what lies beyond the box.
    """

    size: int | tuple[int, int]
    _: KW_ONLY
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        good = len(sides) == 2 and all(is_whole(side, 1) for side in sides)
        require(self, "size", good, "pixels or (height, width), above 0")
        require(self, "scale", is_range(self.scale, 0, 1), "(low, high) within 0..1")
        require(self, "ratio", is_ratio(self.ratio), "(low, high), above 0")
        require_choice(self, "filter", Filter)

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> Box:
        """A box within a photo of this (height, width)."""
        height, width = size
        for wide, high in boxes_to_try(rng, height * width, self.scale, self.ratio):
            if 0 < wide <= width and 0 < high <= height:
                return place(rng, size, high, wide)
        narrowest, widest = self.ratio
        high, wide = height, width
        if width / height < narrowest:
            high = max(1, round(width / narrowest))
        elif width / height > widest:
            wide = max(1, round(height * widest))
        return Box((height - high) // 2, (width - wide) // 2, high, wide)

    def apply(self, image: Image.Image, parameters: Box) -> Image.Image:
        """The picture in this box, resized."""
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return resized_crop(image, parameters, size, self.filter)


def resized_crop(
    image: Image.Image, box: Box, size: tuple[int, int], filter: Filter
) -> Image.Image:
    """The result of `image.crop(box).resize(size)`, without a copy of a box that is very large.

    `image.resize(size, box=box)` would need no copy at all, but its filter mixes what lies beyond
    the box into the outermost pixels.

    Args:
        image: RGB picture.
        box: Box within the picture.
        size: Size (height, width) of the result.
        filter: Name of Pillow's resampling filter.
    """
    top, left, height, width = box
    wide, resample = size[1], Image.Resampling[filter.upper()]
    if (height, width) == (image.height, image.width):
        return image.resize((wide, size[0]), resample)
    if height * width <= _STRIP_PIXELS:
        cut = image.crop((left, top, left + width, top + height))
        return cut.resize((wide, size[0]), resample)
    # Pillow resizes the rows first and then the columns, and no row looks at another: so the first
    # half of its work can be done on a few rows at a time.
    rows = max(1, _STRIP_PIXELS // width)
    narrow = Image.new(image.mode, (wide, height))
    for start in range(0, height, rows):
        end = min(start + rows, height)
        strip = image.crop((left, top + start, left + width, top + end))
        narrow.paste(strip.resize((wide, end - start), resample), (0, start))
    return narrow.resize((wide, size[0]), resample)


@dataclass(frozen=True, kw_only=True)
class Resize(Transform[None]):
    """`Preprocess.view` as a step among others; nothing random. CATR resizes after its turns.

    The attributes are those of `Preprocess`.
    """

    image_size: tuple[int, int]
    mode: Mode
    filter: Filter
    crop_fraction: float = 1.0
    multiple_of: int = 1
    crop_rounding: CropRounding = "even"

    def __post_init__(self) -> None:
        self._preprocess()

    @classmethod
    def of(cls, preprocess: Preprocess) -> Resize:
        """The resize that a model applies to a photo before it normalises."""
        return cls(**{field.name: getattr(preprocess, field.name) for field in fields(cls)})

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        """None: the step has no parameters."""

    def apply(self, image: Image.Image, parameters: None = None) -> Image.Image:
        """The picture, resized and cropped."""
        return self._preprocess().view(image)

    def _preprocess(self) -> Preprocess:
        """The transform that resizes; its mean and standard deviation are not used."""
        return Preprocess(**vars(self), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform[bool]):
    """A mirror image, left and right exchanged, of a share `p` of all pictures."""

    p: float = 0.5

    def __post_init__(self) -> None:
        require(self, "p", is_number(self.p, 0, 1), "a number in 0..1")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> bool:
        """Whether to flip."""
        return rng.random() < self.p

    def apply(self, image: Image.Image, parameters: bool) -> Image.Image:
        """The mirror image, or the picture as it is."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if parameters else image


@dataclass(frozen=True)
class RandomRotation(Transform[float]):
    """A turn about the centre by any angle; the size stays, the free corners are filled.

    Attributes:
        degrees: Range of the angle, or a number d for (-d, d); uniform.
        filter: Filter for the turn; bilinear takes some fifteen times as long as nearest.
        fill: Grey level or colour of the corners.
    """

    degrees: float | tuple[float, float]
    _: KW_ONLY
    filter: WarpFilter = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        good = is_number(self.degrees, 0) or is_range(self.degrees)
        require(self, "degrees", good, "a number, 0 or more, or (low, high)")
        require_choice(self, "filter", WarpFilter)
        require(self, "fill", is_fill(self.fill), "0..255 or (red, green, blue)")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> float:
        """Degrees counter-clockwise."""
        degrees = self.degrees
        low, high = degrees if isinstance(degrees, tuple) else (-degrees, degrees)
        return rng.uniform(low, high)

    def apply(self, image: Image.Image, parameters: float) -> Image.Image:
        """The picture turned by so many degrees."""
        return rotate(image, parameters, self.filter, self.fill)


@dataclass(frozen=True)
class RandomQuarterTurn(Transform[int]):
    """A turn by one of a few multiples of 90 degrees that turns the sides too, as CATR does it."""

    angles: tuple[int, ...] = (0, 90, 180, 270)

    def __post_init__(self) -> None:
        good = isinstance(self.angles, tuple) and len(self.angles) > 0
        good = good and all(is_whole(angle) and angle % 90 == 0 for angle in self.angles)
        require(self, "angles", good, "a tuple of multiples of 90")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> int:
        """Degrees counter-clockwise."""
        return self.angles[rng.integers(len(self.angles))]

    def apply(self, image: Image.Image, parameters: int) -> Image.Image:
        """The whole picture turned; no pixel is lost or made."""
        return image.rotate(parameters, expand=True)


def rotate(image: Image.Image, degrees: float, filter: WarpFilter, fill: Fill) -> Image.Image:
    """The picture turned counter-clockwise about its centre, within the same size."""
    return image.rotate(degrees, Image.Resampling[filter.upper()], fillcolor=rgb(fill))


def shear(
    image: Image.Image, across: float, down: float, filter: WarpFilter, fill: Fill
) -> Image.Image:
    """The picture with each row pushed `across` pixels further left, each column `down` up."""
    matrix = (1.0, across, 0.0, down, 1.0, 0.0)  # from the result's pixels to the picture's
    resample = Image.Resampling[filter.upper()]
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=rgb(fill)
    )


def shift(image: Image.Image, right: int, down: int, fill: Fill) -> Image.Image:
    """The picture moved by whole pixels; what leaves on one side is lost, what is free filled."""
    moved = Image.new(image.mode, image.size, rgb(fill))
    moved.paste(image, (right, down))
    return moved
