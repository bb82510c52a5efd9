"""Crops, flips and turns: where the boxes lie, and what becomes of the pixels.

In the parity run each transform stands beside torchvision.transforms.v2 with the same parameters.
"""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minivit.data.augmentation import geometry
from minivit.data.augmentation.boxes import Box
from minivit.data.augmentation.geometry import (
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    resized_crop,
    shear,
    shift,
)
from tests.data.augmentation.draws import (
    BLUE,
    FILTERS,
    GREEN,
    PHOTOS,
    RATIOS,
    RED,
    SHARES,
    SIDES,
    WARP_FILTERS,
    WHITE,
    agree,
    corners,
    difference,
    draws,
    is_uniform,
    noise,
    quarters,
)

# --- crop ----------------------------------------------------------------------------------------


@given(SIDES, SIDES, SHARES, RATIOS, st.integers(0, 99))
def test_every_box_lies_within_the_photo(height, width, scale, ratio, seed):
    crop = RandomResizedCrop(8, scale=scale, ratio=ratio)
    box = crop.draw(np.random.default_rng(seed), (height, width))
    assert all(type(number) is int for number in box)
    assert box.height >= 1 and 0 <= box.top <= box.top + box.height <= height
    assert box.width >= 1 and 0 <= box.left <= box.left + box.width <= width


def test_boxes_are_uniform_in_area_in_the_logarithm_of_the_ratio_and_in_place():
    crop = RandomResizedCrop(8, scale=(0.1, 0.4), ratio=(0.5, 3.0))
    boxes = draws(crop, size=(2000, 3000))
    area = [box.height * box.width / 6e6 for box in boxes]
    assert is_uniform(area, 0.1, 0.4)
    assert is_uniform([math.log(b.width / b.height) for b in boxes], math.log(0.5), math.log(3))
    assert is_uniform([b.top / (2000 - b.height) for b in boxes], 0, 1)
    assert is_uniform([b.left / (3000 - b.width) for b in boxes], 0, 1)
    assert abs(np.corrcoef(area, [b.top / (2000 - b.height) for b in boxes])[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((40, 1000), (0, 473, 40, 53)),  # (height, width); 53 / 40 is nearly 4 / 3
        ((1000, 40), (473, 0, 53, 40)),
        ((1, 12_000), (0, 5999, 1, 1)),
        ((60, 60), (0, 0, 60, 60)),
    ],
)
def test_where_no_box_fits_it_is_the_largest_in_the_middle(size, box):
    scale = (1.0, 1.0)  # fits nowhere unless the ratio is drawn to the digit
    crop = RandomResizedCrop(8, scale=scale, ratio=(3 / 4, 4 / 3))
    assert set(draws(crop, size, 20)) == {box}


def test_ten_boxes_are_tried():
    """Of a square photo, where the share of tries that fit can be integrated."""
    crop = RandomResizedCrop(8, scale=(0.7, 1.0), ratio=(0.25, 4.0))
    boxes = draws(crop, size=(1000, 1000), number=4000)
    area = 0.7 + 0.3 * (np.arange(10_000) + 0.5) / 10_000
    fits = np.mean(-np.log(area) / math.log(4))  # ratios from area to 1 / area, of 1 / 4 to 4
    whole = np.mean([box == (0, 0, 1000, 1000) for box in boxes])
    assert whole == pytest.approx((1 - fits) ** 10, abs=0.02)


def test_the_filter_does_not_see_beyond_the_box():
    image = Image.new("RGB", (90, 60), RED)
    image.paste(BLUE, (20, 10, 60, 40))
    for filter in FILTERS:
        for size in [(7, 11), (120, 160)]:
            crop = RandomResizedCrop(size, filter=filter)
            view = crop.apply(image, Box(top=10, left=20, height=30, width=40))
            assert view.size == size[::-1]
            assert view.getextrema() == ((0, 0), (0, 0), (255, 255))


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("size", [(31, 47), (150, 200)])
def test_a_large_box_is_never_copied_as_a_whole(monkeypatch, filter, size):
    image, cut = noise(157, 103), []
    boxes = [Box(3, 5, 90, 140), Box(0, 0, 103, 156), Box(0, 0, 103, 157), Box(99, 0, 1, 157)]
    plain = [resized_crop(image, box, size, filter) for box in boxes]
    monkeypatch.setattr(geometry, "_STRIP_PIXELS", 1000)
    crop = Image.Image.crop

    def recorded(self, box):
        cut.append((box[2] - box[0]) * (box[3] - box[1]))
        return crop(self, box)

    monkeypatch.setattr(Image.Image, "crop", recorded)
    for box, expected in zip(boxes, plain, strict=True):
        assert difference(resized_crop(image, box, size, filter), expected) == 0
    assert len(cut) == 13 + 18 + 1 and max(cut) <= 1000


def test_the_whole_photo_in_its_own_size_is_the_photo():
    for filter in FILTERS:
        image = noise(60, 40)
        crop = RandomResizedCrop((40, 60), filter=filter)
        assert difference(crop.apply(image, Box(0, 0, 40, 60)), image) == 0
    shifted = RandomResizedCrop((20, 30)).apply(image, Box(5, 7, 20, 30))
    assert difference(shifted, image.crop((7, 5, 37, 25))) == 0


# --- flips and turns -----------------------------------------------------------------------------


def test_flip_exchanges_left_and_right():
    flip = RandomHorizontalFlip()
    assert corners(flip.apply(quarters(), True)) == (GREEN, RED, WHITE, BLUE)
    assert corners(flip.apply(quarters(), False)) == (RED, GREEN, BLUE, WHITE)
    assert difference(flip.apply(flip.apply(noise(37, 23), True), True), noise(37, 23)) == 0
    assert np.mean(draws(RandomHorizontalFlip(0.3))) == pytest.approx(0.3, abs=0.03)
    assert not any(draws(RandomHorizontalFlip(0.0))) and all(draws(RandomHorizontalFlip(1.0)))


@pytest.mark.parametrize(
    ("degrees", "size", "expected"),
    [
        (0, (30, 20), (RED, GREEN, BLUE, WHITE)),
        (90, (20, 30), (GREEN, WHITE, RED, BLUE)),
        (180, (30, 20), (WHITE, BLUE, GREEN, RED)),
        (270, (20, 30), (BLUE, RED, WHITE, GREEN)),
    ],
)
def test_quarter_turns_run_counter_clockwise_and_keep_every_pixel(degrees, size, expected):
    turned = RandomQuarterTurn().apply(quarters(), degrees)
    assert turned.size == size and corners(turned) == expected
    pixels = np.rot90(np.asarray(noise(37, 23)), degrees // 90)
    assert np.array_equal(np.asarray(RandomQuarterTurn().apply(noise(37, 23), degrees)), pixels)


def test_quarter_turns_are_equally_likely():
    counts = Counter(draws(RandomQuarterTurn(), number=4000))
    assert sorted(counts) == [0, 90, 180, 270]
    assert all(abs(count - 1000) < 100 for count in counts.values())
    assert set(draws(RandomQuarterTurn((0, 180)))) == {0, 180}


@pytest.mark.parametrize("filter", WARP_FILTERS)
def test_rotation_keeps_the_size_and_fills_the_corners(filter):
    grey = (10, 20, 30)
    rotation = RandomRotation(180, filter=filter, fill=grey)
    assert difference(rotation.apply(noise(37, 23), 0.0), noise(37, 23)) == 0
    assert corners(rotation.apply(quarters(), 180.0)) == (WHITE, BLUE, GREEN, RED)
    turned = rotation.apply(quarters((300, 200)), 45.0)
    assert turned.size == (300, 200)
    assert corners(turned) == (grey,) * 4
    # counter-clockwise: red comes from above left to the left, green to above, and so on
    inner = [turned.getpixel(at) for at in ((90, 100), (150, 40), (150, 160), (210, 100))]
    assert inner == [RED, GREEN, BLUE, WHITE]
    assert corners(RandomRotation(90, filter=filter).apply(quarters(), 45.0)) == ((0, 0, 0),) * 4


def test_angles_are_uniform():
    assert is_uniform(draws(RandomRotation(15)), -15, 15)
    assert is_uniform(draws(RandomRotation((20, 30.5))), 20, 30.5)


def test_shear_and_shift_move_what_they_say():
    image = quarters((60, 40))
    assert difference(shift(image, 0, 0, 0), image) == 0
    moved = shift(image, 13, -7, (1, 2, 3))
    assert difference(moved.crop((13, 0, 60, 33)), image.crop((0, 7, 47, 40))) == 0
    assert moved.crop((0, 0, 13, 40)).getcolors() == [(13 * 40, (1, 2, 3))]
    assert moved.crop((0, 33, 60, 40)).getcolors() == [(60 * 7, (1, 2, 3))]
    assert shift(image, 100, 0, 9).getcolors() == [(60 * 40, (9, 9, 9))]
    slanted = np.asarray(shear(image, 0.25, 0.0, "nearest", 9))
    for row in range(40):  # each row by a quarter of its number of pixels, to the left
        by = int((row + 0.5) * 0.25 + 0.5)
        assert np.array_equal(slanted[row, : 60 - by], np.asarray(image)[row, by:])
        assert (slanted[row, 60 - by :] == 9).all()
    down = np.asarray(shear(image.transpose(Image.Transpose.TRANSPOSE), 0.0, 0.25, "nearest", 9))
    assert np.array_equal(down.transpose(1, 0, 2), slanted)


# --- fields --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "RandomResizedCrop size is 0, expected pixels"),
        (lambda: RandomResizedCrop((8, 8, 8)), "size is"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "scale is .0.5, 0.1."),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.1)), "within 0..1"),
        (lambda: RandomResizedCrop(8, scale=[0.5, 1]), "scale is"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), "ratio is .*above 0"),
        (lambda: RandomResizedCrop(8, ratio=(1, math.inf)), "ratio is"),
        (lambda: RandomResizedCrop(8, filter="cubic"), "filter is 'cubic': choose from nearest"),
        (lambda: RandomHorizontalFlip(1.5), "RandomHorizontalFlip p is 1.5"),
        (lambda: RandomHorizontalFlip(True), "p is True"),
        (lambda: RandomRotation(-5), "degrees is -5"),
        (lambda: RandomRotation((5, -5)), "degrees is"),
        (lambda: RandomRotation(5, filter="lanczos"), "choose from nearest, bilinear, bicubic"),
        (lambda: RandomRotation(5, fill=256), "fill is 256, expected 0..255"),
        (lambda: RandomRotation(5, fill=(1, 2)), "fill is"),
        (lambda: RandomQuarterTurn((0, 45)), "angles is .0, 45., expected .*90"),
        (lambda: RandomQuarterTurn(()), "angles is"),
        (lambda: Resize(image_size=(0, 8), mode="crop", filter="box"), r"image_size.*\(0, 8\)"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- side by side with torchvision -----------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("size", [(64, 96), (48, 48)])
def test_crops_equal_torchvision(v2, filter, size):
    theirs = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode(filter))
    ours = RandomResizedCrop(size, filter=filter)
    for photo in [*PHOTOS, (500, 375)]:
        image = noise(*photo)
        for _ in range(10):
            chosen = theirs.make_params([image])
            levels = difference(ours.apply(image, Box(**chosen)), theirs.transform(image, chosen))
            assert levels == 0, f"{levels} grey levels, {photo}, {chosen}"


@pytest.mark.parity
@pytest.mark.parametrize("filter", WARP_FILTERS)
def test_rotations_and_flips_equal_torchvision(v2, filter):
    theirs = v2.RandomRotation(180, interpolation=v2.InterpolationMode(filter), fill=(1, 200, 30))
    ours = RandomRotation(180, filter=filter, fill=(1, 200, 30))
    flip = v2.RandomHorizontalFlip(1.0)
    for photo in PHOTOS:
        image = noise(*photo)
        angles = [theirs.make_params([image])["angle"] for _ in range(10)]
        for angle in [*angles, 0.0, 90.0, 180.0, 270.0, -90.0, 1e-3]:
            chosen = {"angle": angle}
            levels = difference(ours.apply(image, angle), theirs.transform(image, chosen))
            assert levels == 0, f"{levels} grey levels, {photo}, {chosen}"
        assert difference(RandomHorizontalFlip().apply(image, True), flip(image)) == 0
        for angle in (0, 90, 180, 270):
            turned = v2.functional.rotate(image, angle, expand=True)
            assert difference(RandomQuarterTurn().apply(image, angle), turned) == 0


@pytest.mark.parity
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (40, 150)])
def test_boxes_are_distributed_as_torchvisions(v2, size):
    image, number = Image.new("RGB", size), 1500
    theirs = [v2.RandomResizedCrop(8).make_params([image]) for _ in range(number)]
    ours = draws(RandomResizedCrop(8), size[::-1], number)
    for name in ("top", "left", "height", "width"):
        assert agree([getattr(box, name) for box in ours], [box[name] for box in theirs]), name
    theirs = [v2.RandomRotation(15).make_params([image])["angle"] for _ in range(number)]
    assert agree(draws(RandomRotation(15), size[::-1], number), theirs)
