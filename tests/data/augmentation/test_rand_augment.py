"""RandAugment: the fourteen operations, how strong they are and how often they come."""

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from minivit.data.augmentation.geometry import (
    shift,
)
from minivit.data.augmentation.rand_augment import OPERATIONS, RandAugment, magnitude_of, operate
from tests.data.augmentation.draws import (
    WARP_FILTERS,
    difference,
    draws,
    noise,
)


def test_operations_are_equally_likely_and_go_either_way():
    steps = [step for drawn in draws(RandAugment(num_ops=3), number=4000) for step in drawn]
    counts = Counter(name for name, _ in steps)
    assert set(counts) == set(OPERATIONS) and len(OPERATIONS) == 14
    assert all(abs(count - 12_000 / 14) < 110 for count in counts.values())
    signed = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    signed |= {"Brightness", "Color", "Contrast", "Sharpness"}
    for name in OPERATIONS:
        drawn = [magnitude for other, magnitude in steps if other == name]
        expected = magnitude_of(name, 9, 31, (1000, 1500))
        if name in signed:
            assert set(drawn) == {expected, -expected}
            assert np.mean(np.sign(drawn)) == pytest.approx(0, abs=0.12)
        else:
            assert set(drawn) == {expected}


def test_magnitudes_rise_from_nothing_to_the_last_bin():
    size = (331, 662)
    last = {
        "ShearX": 0.3,
        "ShearY": 0.3,
        "TranslateX": 300,
        "TranslateY": 150,
        "Rotate": 30,
        "Brightness": 0.9,
        "Color": 0.9,
        "Contrast": 0.9,
        "Sharpness": 0.9,
        "Posterize": 4,
        "Solarize": 0,
    }
    for name in OPERATIONS:
        first = {"Posterize": 8, "Solarize": 1}.get(name, 0)
        assert magnitude_of(name, 0, 31, size) == first
        assert magnitude_of(name, 30, 31, size) == pytest.approx(last.get(name, 0))
        middle = (first + last.get(name, 0)) / 2
        assert magnitude_of(name, 15, 31, size) == pytest.approx(middle)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_weakest_operation_changes_nothing_the_strongest_does(name):
    image = noise(60, 40).point(lambda level: level // 2 + 40)
    weakest = magnitude_of(name, 0, 31, (40, 60))
    strongest = magnitude_of(name, 30, 31, (40, 60))
    if name not in ("AutoContrast", "Equalize"):
        assert difference(operate(image, name, weakest, "nearest", 0), image) == 0
    changed = difference(operate(image, name, strongest, "bilinear", 0), image) > 0
    assert changed == (name != "Identity")


def test_operations_follow_one_another():
    image = noise(60, 40)
    steps = (("Posterize", 4), ("TranslateX", 12.9), ("Brightness", -0.5))
    expected = shift(image.point(lambda level: level & 0xF0), 12, 0, 77)
    expected = expected.point(lambda level: level // 2)
    assert difference(RandAugment(fill=77).apply(image, steps), expected) == 0
    assert RandAugment(num_ops=0).draw(np.random.default_rng(0), (4, 6)) == ()
    with pytest.raises(ValueError, match="'Blur': expected one of Identity, ShearX"):
        operate(image, "Blur", 1.0, "nearest", 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(num_ops=-1), "num_ops is -1"),
        (lambda: RandAugment(magnitude=31), "magnitude is 31, expected .* 0..30"),
        (lambda: RandAugment(num_magnitude_bins=1, magnitude=0), "bins is 1"),
        (lambda: RandAugment(filter="box"), "filter is 'box'"),
        (lambda: RandAugment(fill="black"), "fill is 'black'"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- side by side with torchvision -----------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("filter", WARP_FILTERS)
@pytest.mark.parametrize("bins", [31, 7])
def test_every_operation_of_randaugment_equals_torchvision(v2, filter, bins):
    fill = (5, 100, 9)
    theirs = v2.RandAugment(interpolation=v2.InterpolationMode(filter), fill=fill)
    assert tuple(theirs._AUGMENTATION_SPACE) == OPERATIONS
    for photo in [(75, 50), (50, 75), (41, 23), (1, 40), (1, 1)]:
        image = noise(*photo).point(lambda level: level * 4 // 5 + 13)
        for name, (magnitudes, signed) in theirs._AUGMENTATION_SPACE.items():
            every = magnitudes(bins, image.height, image.width)
            for step in range(bins):
                magnitude = 0.0 if every is None else float(every[step])
                assert magnitude_of(name, step, bins, (image.height, image.width)) == magnitude
                for value in (magnitude, -magnitude) if signed else (magnitude,):
                    other = theirs._apply_image_or_video_transform(
                        image, name, value, interpolation=theirs.interpolation, fill=theirs._fill
                    )
                    levels = difference(operate(image, name, value, filter, fill), other)
                    assert levels == 0, f"{levels} grey levels, {photo}, {name} {value}"


@pytest.mark.parity
def test_randaugment_draws_as_torchvision_does(v2, monkeypatch):
    calls: list[tuple[str, float]] = []
    theirs, image = v2.RandAugment(num_ops=3), Image.new("RGB", (150, 100))

    def recorded(image, name, magnitude, **_):
        calls.append((name, magnitude))
        return image

    monkeypatch.setattr(theirs, "_apply_image_or_video_transform", recorded)
    for _ in range(2000):
        theirs(image)
    drawn = draws(RandAugment(num_ops=3), (100, 150), 2000)
    ours = Counter(step for steps in drawn for step in steps)
    assert set(ours) == set(calls)  # the same names, magnitudes and signs, to the last digit
    for step, count in Counter(calls).items():
        assert abs(count - ours[step]) < 5 * math.sqrt(2 * count)
