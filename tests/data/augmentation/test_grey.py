"""Photos for one-channel models, through transforms made for colour; and the model's own resize."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.data.augmentation.pipeline import (
    Augmentation,
    RandomErasing,
    RandomHorizontalFlip,
    Resize,
)
from minivit.preprocess import Preprocess

GREY = Preprocess(image_size=(32, 48), mode="crop", filter="bicubic", mean=(0.4,), std=(0.2,))
COLOUR = dataclasses.replace(GREY, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))


def photo(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 10_007 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_plain_augmentation_of_a_grey_model_is_its_preprocess() -> None:
    plain = Augmentation(transforms=(Resize.of(GREY),), preprocess=GREY)
    for size in ((60, 40), (41, 67)):
        x = plain(photo(*size), np.random.default_rng(0))
        assert x.shape == (1, 32, 48) and torch.equal(x, GREY(photo(*size)))


@pytest.mark.parametrize("value", [0.0, (0.5, 0.6, 0.7), "random"])
def test_transforms_and_erasing_work_on_one_channel(value: object) -> None:
    erasing = RandomErasing(p=1.0, value=value)  # type: ignore[arg-type]
    steps = (Resize.of(GREY), RandomHorizontalFlip(p=1.0))
    augmentation = Augmentation(transforms=steps, preprocess=GREY, erasing=erasing)
    x = augmentation(photo(60, 40), np.random.default_rng(3))
    whole = GREY(photo(60, 40)).flip(-1)
    assert x.shape == whole.shape and 0 < (x != whole).float().mean() < 0.5


@pytest.mark.parametrize("rounding", ["even", "down"])
def test_the_resize_step_rounds_its_crop_as_the_model_does(rounding: str) -> None:
    """The centre of a photo of odd width lies between two pixels."""
    preprocess = dataclasses.replace(COLOUR, crop_rounding=rounding, crop_fraction=32 / 35.5)
    picture = photo(83, 35)
    assert Resize.of(preprocess)(picture, np.random.default_rng(0)).tobytes() == (
        preprocess.view(picture).tobytes()
    )
