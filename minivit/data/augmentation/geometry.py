"""Random crops, flips and turns, and the shears and shifts of RandAugment, by Pillow's own code.

Angles are in degrees and run counter-clockwise, as in Pillow. Where torchvision asks for "expand"
or a centre there is one way here: a rotation keeps the size, a quarter turn keeps every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, fields
from typing import NamedTuple, get_args

import numpy as np
from PIL import Image

from minivit.data.augmentation.transform import (
    Fill,
    Transform,
    WarpFilter,
    is_fill,
    is_number,
    is_range,
    require,
    rgb,
)
from minivit.preprocess import CropRounding, Filter, Mode, Preprocess

_STRIP_PIXELS = 2**22  # 16 MB in Pillow's memory: a larger box is not copied as a whole


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class RandomResizedCrop(Transform[Box]):
    """A random box of the photo, resized (Szegedy et al. 2015, arXiv:1409.4842, section 6).

    Ten boxes are tried, as share of the area and as aspect ratio; where none fits, as in a narrow
    strip, it is the largest box in the middle whose aspect ratio is allowed.

    Attributes:
        size: (height, width) of the result, or the side of a square.
        scale: Range of the share of the photo's area, uniform.
        ratio: Range of width / height, uniform in its logarithm.
        filter: Of the resize; it does not see what lies beyond the box.
    """

    size: int | tuple[int, int]
    _: KW_ONLY
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    filter: Filter = "bilinear"

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        sized = len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)
        require(self, "size", sized, "pixels or (height, width), above 0")
        require(self, "scale", is_range(self.scale, 0, 1), "(low, high) within 0..1")
        ordered = is_range(self.ratio, 0) and self.ratio[0] > 0
        require(self, "ratio", ordered, "(low, high), above 0")
        require(self, "filter", self.filter in get_args(Filter), " | ".join(get_args(Filter)))

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
        """Cuts this box out and resizes it."""
        size = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return resized_crop(image, parameters, size, self.filter)


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
    """A box of this height and width, anywhere within a picture of `size`."""
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    return Box(int(top), int(left), height, width)


def resized_crop(
    image: Image.Image, box: Box, size: tuple[int, int], filter: Filter
) -> Image.Image:
    """What `image.crop(box).resize(size)` gives, without a copy of a box that is very large.

    `image.resize(size, box=box)` would need no copy at all, but its filter mixes what lies beyond
    the box into the outermost pixels.

    Args:
        image: RGB.
        box: Within the picture.
        size: (height, width) of the result.
        filter: Pillow's resampling filter.
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
    """`Preprocess.view` as a step among others; no chance in it. CATR resizes after its turns.

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
        """What a model does to a photo before it normalises."""
        return cls(**{field.name: getattr(preprocess, field.name) for field in fields(cls)})

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        """Nothing."""

    def apply(self, image: Image.Image, parameters: None = None) -> Image.Image:
        """The picture, resized and cropped."""
        return self._preprocess().view(image)

    def _preprocess(self) -> Preprocess:
        """The transform that knows how; its statistics are not used."""
        return Preprocess(**vars(self), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class RandomHorizontalFlip(Transform[bool]):
    """Left and right exchanged, in a share `p` of all pictures."""

    p: float = 0.5

    def __post_init__(self) -> None:
        require(self, "p", is_number(self.p, 0, 1), "a number in 0..1")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> bool:
        """Whether to flip."""
        return rng.random() < self.p

    def apply(self, image: Image.Image, parameters: bool) -> Image.Image:
        """Flips if so."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if parameters else image


@dataclass(frozen=True)
class RandomRotation(Transform[float]):
    """Turned about its centre by any angle; the size stays, what comes in is filled.

    Attributes:
        degrees: Range of the angle, or a number d for (-d, d); uniform.
        filter: Bilinear costs some fifteen times what nearest does.
        fill: Grey level or colour of the corners.
    """

    degrees: float | tuple[float, float]
    _: KW_ONLY
    filter: WarpFilter = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        given = is_number(self.degrees, 0) or is_range(self.degrees)
        require(self, "degrees", given, "a number, 0 or more, or (low, high)")
        filters = get_args(WarpFilter)
        require(self, "filter", self.filter in filters, " | ".join(filters))
        require(self, "fill", is_fill(self.fill), "0..255 or (red, green, blue)")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> float:
        """Degrees counter-clockwise."""
        most = self.degrees
        low, high = most if isinstance(most, tuple) else (-most, most)
        return rng.uniform(low, high)

    def apply(self, image: Image.Image, parameters: float) -> Image.Image:
        """Turns by so many degrees."""
        return rotate(image, parameters, self.filter, self.fill)


@dataclass(frozen=True)
class RandomQuarterTurn(Transform[int]):
    """Turned by one of a few multiples of 90 degrees, the sides exchanged with it: CATR's way."""

    angles: tuple[int, ...] = (0, 90, 180, 270)

    def __post_init__(self) -> None:
        known = isinstance(self.angles, tuple) and len(self.angles) > 0
        known = known and all(type(angle) is int and angle % 90 == 0 for angle in self.angles)
        require(self, "angles", known, "a tuple of multiples of 90")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> int:
        """Degrees counter-clockwise."""
        return self.angles[rng.integers(len(self.angles))]

    def apply(self, image: Image.Image, parameters: int) -> Image.Image:
        """Turns the whole picture; no pixel is lost or made."""
        return image.rotate(parameters, expand=True)


def rotate(image: Image.Image, degrees: float, filter: WarpFilter, fill: Fill) -> Image.Image:
    """Turned counter-clockwise about the centre, within the same size."""
    return image.rotate(degrees, Image.Resampling[filter.upper()], fillcolor=rgb(fill))


def shear(
    image: Image.Image, across: float, down: float, filter: WarpFilter, fill: Fill
) -> Image.Image:
    """Rows pushed to the left by `across` pixels a row, columns up by `down` pixels a column."""
    matrix = (1.0, across, 0.0, down, 1.0, 0.0)  # from the result's pixels to the picture's
    resample = Image.Resampling[filter.upper()]
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=rgb(fill)
    )


def shift(image: Image.Image, right: int, down: int, fill: Fill) -> Image.Image:
    """Moved by whole pixels; what leaves on one side is lost, what is free is filled."""
    moved = Image.new(image.mode, image.size, rgb(fill))
    moved.paste(image, (right, down))
    return moved
