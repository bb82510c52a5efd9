"""Colours: brightness, contrast, saturation and hue, alone and as a random jitter."""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from minivit.data.augmentation.colour import (
    ColorJitter,
    adjust_brightness,
    adjust_contrast,
    shift_hue,
)
from tests.data.augmentation.draws import (
    BLUE,
    GREEN,
    PHOTOS,
    RED,
    WHITE,
    agree,
    corners,
    difference,
    draws,
    is_uniform,
    noise,
    quarters,
)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.77, 0.999, 1.0, 1.0001, 1.3, 2.0, 7.7])
@pytest.mark.parametrize("photo", PHOTOS)
def test_the_table_of_levels_equals_the_blend_of_whole_pictures(factor, photo):
    image = noise(*photo)
    theirs = ImageEnhance.Brightness(image).enhance(factor)
    assert difference(adjust_brightness(image, factor), theirs) == 0
    image = image.point(lambda level: level // 3 + 90)
    theirs = ImageEnhance.Contrast(image).enhance(factor)
    assert difference(adjust_contrast(image, factor), theirs) == 0


def test_factor_one_changes_nothing():
    steps = (("contrast", 1.0), ("brightness", 1.0), ("saturation", 1.0))
    assert difference(ColorJitter().apply(noise(60, 40), steps), noise(60, 40)) == 0
    hues = difference(shift_hue(noise(60, 40), 0.0), noise(60, 40).convert("HSV").convert("RGB"))
    assert hues == 0


def test_factor_zero_leaves_black_the_mean_and_grey():
    image = quarters()  # grey levels: red 76, green 150 (149.7), blue 29, white 255; mean 127.5
    jitter = ColorJitter()
    assert jitter.apply(image, (("brightness", 0.0),)).getcolors() == [(600, (0, 0, 0))]
    assert jitter.apply(image, (("contrast", 0.0),)).getcolors() == [(600, (128, 128, 128))]
    grey = jitter.apply(image, (("saturation", 0.0),))
    assert corners(grey) == ((76,) * 3, (150,) * 3, (29,) * 3, (255,) * 3)


def test_a_third_of_the_circle_turns_red_to_green():
    turned = corners(shift_hue(quarters(), 1 / 3))
    for colour, expected in zip(turned, (GREEN, BLUE, RED, WHITE), strict=True):
        assert np.abs(np.subtract(colour, expected)).max() <= 6  # a step of hue is 1.4 degrees
    back = corners(shift_hue(quarters(), -1 / 3))
    for colour, expected in zip(back, (BLUE, RED, GREEN, WHITE), strict=True):
        assert np.abs(np.subtract(colour, expected)).max() <= 6


def test_the_order_of_the_steps_matters_and_is_random():
    jitter = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.1)
    one, two = (("brightness", 2.0), ("contrast", 0.5)), (("contrast", 0.5), ("brightness", 2.0))
    assert difference(jitter.apply(quarters(), one), jitter.apply(quarters(), two)) > 20
    orders = Counter(tuple(name for name, _ in steps) for steps in draws(jitter, number=4800))
    assert len(orders) == 24 and all(abs(count - 200) < 60 for count in orders.values())


def test_factors_are_uniform_in_their_range():
    jitter = ColorJitter(brightness=0.3, contrast=1.7, saturation=(0.2, 1.5), hue=0.2)
    values = {name: [] for name in ("brightness", "contrast", "saturation", "hue")}
    for steps in draws(jitter):
        for name, factor in steps:
            values[name].append(factor)
    assert is_uniform(values["brightness"], 0.7, 1.3)
    assert is_uniform(values["contrast"], 0.0, 2.7)
    assert is_uniform(values["saturation"], 0.2, 1.5)
    assert is_uniform(values["hue"], -0.2, 0.2)


def test_what_does_nothing_is_left_out():
    assert set(draws(ColorJitter(), number=5)) == {()}
    only = ColorJitter(brightness=(1.0, 1.0), contrast=(2, 2), saturation=0, hue=(0.0, 0.0))
    assert set(draws(only, number=5)) == {(("contrast", 2.0),)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorJitter(brightness=-0.1), "brightness is -0.1"),
        (lambda: ColorJitter(contrast=(-0.1, 1)), "contrast is"),
        (lambda: ColorJitter(saturation=math.nan), "saturation is nan"),
        (lambda: ColorJitter(hue=0.6), "hue is 0.6, expected a number in 0..0.5"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- side by side with torchvision -----------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize(
    "fields",
    [
        {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.5},
        {"brightness": (0.5, 1.3), "contrast": (0.8, 1.5), "saturation": (0.2, 1.5)},
        {"brightness": 3.0},
        {"contrast": 3.0},
        {"saturation": 3.0},
        {"hue": (-0.5, 0.5)},
    ],
)
def test_colours_equal_torchvision(v2, fields):
    theirs, ours = v2.ColorJitter(**fields), ColorJitter(**fields)
    names = ("brightness", "contrast", "saturation", "hue")
    for photo in PHOTOS:
        image = noise(*photo)
        for _ in range(15):
            chosen = theirs.make_params([image])
            order = [names[number] for number in chosen["fn_idx"]]
            steps = [(name, chosen[f"{name}_factor"]) for name in order]
            steps = tuple(step for step in steps if step[1] is not None)
            levels = difference(ours.apply(image, steps), theirs.transform(image, chosen))
            assert levels == 0, f"{levels} grey levels, {photo}, {steps}"


@pytest.mark.parity
def test_factors_are_distributed_as_torchvisions(v2):
    image, number = Image.new("RGB", (300, 200)), 1500
    fields = {"brightness": 0.3, "contrast": 1.7, "saturation": (0.2, 1.5), "hue": 0.2}
    theirs = [v2.ColorJitter(**fields).make_params([image]) for _ in range(number)]
    ours = [dict(steps) for steps in draws(ColorJitter(**fields), (200, 300), number)]
    for name in fields:
        assert agree([one[name] for one in ours], [one[f"{name}_factor"] for one in theirs]), name
