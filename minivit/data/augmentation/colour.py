"""Changes of brightness, contrast, saturation, hue and sharpness, and their random jitter.

    result = clip((1 - factor) · plain + factor · picture)

where `plain` is black (brightness), the mean grey (contrast), the grey picture (saturation) or the
smoothed picture (sharpness): factor 1 changes nothing, 0 leaves `plain`, above 1 overdoes it.
Haeberli & Voorhies 1994, "Image processing by interpolation and extrapolation"; Pillow's
ImageEnhance. Where `plain` is one level, a table of 256 levels stands for the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageStat

from minivit.data.augmentation.transform import Transform, require
from minivit.fields import is_number, is_range


def adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    """The picture moved towards black by a factor below 1, away from it by one above."""
    return _blend_with_level(image, 0, factor)


def adjust_contrast(image: Image.Image, factor: float) -> Image.Image:
    """The picture moved towards its mean grey level by a factor below 1, away by one above."""
    mean = ImageStat.Stat(image.convert("L")).mean[0]
    return _blend_with_level(image, int(mean + 0.5), factor)


def adjust_saturation(image: Image.Image, factor: float) -> Image.Image:
    """The picture moved towards its grey version by a factor below 1, away by one above."""
    return ImageEnhance.Color(image).enhance(factor)


def adjust_sharpness(image: Image.Image, factor: float) -> Image.Image:
    """The picture moved towards one smoothed over 3x3 pixels by a factor below 1, away above."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def shift_hue(image: Image.Image, turn: float) -> Image.Image:
    """The picture with its hues turned by -0.5..0.5 of the colour circle, in steps of 1/256."""
    step = int(turn * 255) % 256
    turned = [(level + step) % 256 for level in range(256)]
    return image.convert("HSV").point([*turned, *range(256), *range(256)]).convert("RGB")


def _blend_with_level(image: Image.Image, level: int, factor: float) -> Image.Image:
    """The picture with each of its levels blended with one level.

    Pillow itself blends a ramp of all levels, so that rounding and clipping are its own.
    """
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    table = Image.blend(Image.new("L", ramp.size, level), ramp, factor).tobytes()
    return image.point(list(table) * 3)


_ADJUST: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": shift_hue,
}


@dataclass(frozen=True, kw_only=True)
class ColorJitter(Transform[tuple[tuple[str, float], ...]]):
    """Brightness, contrast, saturation and hue, each by a random factor, in random order.

    The parameters are (name, factor) in the order of their use.

    Attributes:
        brightness, contrast, saturation: Range of the factor, uniform; or a number v for
            (max(0, 1 - v), 1 + v). 0 leaves the step out.
        hue: Range of the turn within -0.5..0.5, uniform; or a number v for (-v, v).
    """

    brightness: float | tuple[float, float] = 0.0
    contrast: float | tuple[float, float] = 0.0
    saturation: float | tuple[float, float] = 0.0
    hue: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            good = is_number(value, 0) or is_range(value, 0)
            require(self, name, good, "a number, 0 or more, or (low, high) of such")
        good = is_number(self.hue, 0, 0.5) or is_range(self.hue, -0.5, 0.5)
        require(self, "hue", good, "a number in 0..0.5, or (low, high) within -0.5..0.5")

    def draw(
        self, rng: np.random.Generator, size: tuple[int, int]
    ) -> tuple[tuple[str, float], ...]:
        """(name, factor) for each step that is not left out."""
        steps = []
        for name in _ADJUST:
            low, high = self._range(name)
            if not low == high == (0 if name == "hue" else 1):
                steps.append((name, rng.uniform(low, high)))
        return tuple(steps[i] for i in rng.permutation(len(steps)))

    def apply(self, image: Image.Image, parameters: tuple[tuple[str, float], ...]) -> Image.Image:
        """The picture after these steps."""
        for name, factor in parameters:
            image = _ADJUST[name](image, factor)
        return image

    def _range(self, name: str) -> tuple[float, float]:
        """The range from which the factor is drawn."""
        value: float | tuple[float, float] = getattr(self, name)
        if isinstance(value, tuple):
            return value
        return (-value, value) if name == "hue" else (max(0.0, 1 - value), 1 + value)
