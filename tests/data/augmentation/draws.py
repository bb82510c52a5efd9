"""Pictures for the tests of transforms, and checks of what the transforms draw."""

import math

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from minivit.preprocess import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FILTERS = ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
WARP_FILTERS = FILTERS[:3]
# (width, height): 3:2 and 2:3, odd and tiny ones, strips
PHOTOS = [(150, 100), (100, 150), (333, 251), (37, 23), (9, 91), (1, 1), (40, 1), (1, 40), (2, 3)]
PREPROCESS = Preprocess(image_size=(40, 60), mode="squash", filter="bilinear", mean=MEAN, std=STD)

# Strategies: sides of a picture, ranges of shares of its area, ranges of aspect ratios.
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 3000))
SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair)))
RATIOS = st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)).map(lambda pair: tuple(sorted(pair)))


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def quarters(size: tuple[int, int] = (30, 20)) -> Image.Image:
    """A 3:2 picture: red and green above, blue and white below."""
    width, height = size
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def corners(image: Image.Image) -> tuple[object, ...]:
    """The colours of the four corners: above left and right, below left and right."""
    right, bottom = image.width - 1, image.height - 1
    return tuple(image.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom)))


def difference(one: Image.Image, two: Image.Image) -> int:
    """The largest difference in grey levels."""
    assert (one.mode, one.size) == (two.mode, two.size)
    return int(abs(np.asarray(one).astype(int) - np.asarray(two)).max())


def is_uniform(values: list[float], low: float, high: float) -> bool:
    """Kolmogorov and Smirnov: the odds of a false alarm are 1 in 1000, and the seeds are fixed."""
    shares = (np.sort(values) - low) / (high - low)
    steps = np.arange(len(values) + 1) / len(values)
    distance = max(abs(shares - steps[1:]).max(), abs(shares - steps[:-1]).max())
    return bool(distance < 1.95 / math.sqrt(len(values)))


def agree(one: list[float], two: list[float]) -> bool:
    """The same test for two sets of draws from distributions that are not known."""
    every = np.sort(one + two)
    first, second = (np.searchsorted(np.sort(v), every, side="right") / len(v) for v in (one, two))
    return bool(abs(first - second).max() < 1.95 * math.sqrt(1 / len(one) + 1 / len(two)))


def draws(transform, size=(1000, 1500), number=3000, seed=0) -> list:
    rng = np.random.default_rng(seed)
    return [transform.draw(rng, size) for _ in range(number)]
