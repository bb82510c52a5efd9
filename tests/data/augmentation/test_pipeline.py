"""Augmentation: what is drawn, what is done with it, and that a sample depends on three numbers.

In the parity run each transform stands beside torchvision.transforms.v2 with the same parameters.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from minivit.data.augmentation import geometry
from minivit.data.augmentation.colour import adjust_brightness, adjust_contrast, shift_hue
from minivit.data.augmentation.geometry import Box, resized_crop, shear, shift
from minivit.data.augmentation.pipeline import (
    Augmentation,
    ColorJitter,
    Erasure,
    RandAugment,
    RandomErasing,
    RandomHorizontalFlip,
    RandomQuarterTurn,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    sample_rng,
)
from minivit.data.augmentation.rand_augment import OPERATIONS, magnitude_of, operate
from minivit.preprocess import BadImageError, Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FILTERS = ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
WARP_FILTERS = FILTERS[:3]
# (width, height): 3:2 and 2:3, odd and tiny ones, strips
PHOTOS = [(150, 100), (100, 150), (333, 251), (37, 23), (9, 91), (1, 1), (40, 1), (1, 40), (2, 3)]
PREPROCESS = Preprocess(image_size=(40, 60), mode="squash", filter="bilinear", mean=MEAN, std=STD)


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


# --- one sample, three numbers ---------------------------------------------------------------


def everything(**changes) -> Augmentation:
    fields = {
        "transforms": (
            RandomResizedCrop((40, 60)),
            RandomHorizontalFlip(),
            ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            RandomRotation(15),
            RandAugment(),
        ),
        "preprocess": PREPROCESS,
        "erasing": RandomErasing(value="random"),
    }
    return Augmentation(**(fields | changes))


class Samples(Dataset):
    """Twelve photos as a training run sees them in one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.augmentation = everything()

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.augmentation(noise(90, 60 + index), sample_rng(7, self.epoch, index))


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    triples = [(s, e, i) for s in range(3) for e in range(3) for i in range(3)]
    make = everything()
    first = {triple: make(noise(90, 60), sample_rng(*triple)) for triple in triples}
    np.random.seed(3)
    torch.manual_seed(3)
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    for triple in reversed(triples):
        assert torch.equal(make(noise(90, 60), sample_rng(*triple)), first[triple])
    assert np.array_equal(np.random.get_state()[1], state[0])
    assert torch.equal(torch.get_rng_state(), state[1])
    assert len({tuple(x.flatten().tolist()) for x in first.values()}) == len(triples)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_number_of_workers_changes_nothing():
    expected = [Samples(epoch=2)[index] for index in range(12)]
    for workers in (0, 1, 3):
        loader = DataLoader(Samples(epoch=2), batch_size=5, num_workers=workers)
        assert torch.equal(torch.cat(list(loader)), torch.stack(expected)), workers
    assert not torch.equal(Samples(epoch=3)[0], expected[0])


@pytest.mark.parametrize("triple", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_numbers_name_no_sample(triple):
    with pytest.raises(ValueError, match=r"seed, epoch, index: found .*-1"):
        sample_rng(*triple)


# --- from photo to tensor --------------------------------------------------------------------


def test_the_tensor_is_the_normalised_view():
    for index in range(20):
        make = everything(erasing=None)
        view = make.view(noise(90, 60), sample_rng(0, 0, index))
        tensor = make(noise(90, 60), sample_rng(0, 0, index))
        assert tensor.shape == (3, 40, 60) and tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        expected = (np.asarray(view) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        np.testing.assert_array_equal(tensor.numpy(), expected.transpose(2, 0, 1))


def test_without_transforms_it_is_what_preprocess_gives():
    resize = Resize(image_size=(40, 60), mode="crop", filter="bicubic", crop_fraction=0.9)
    preprocess = Preprocess(
        image_size=(40, 60), mode="crop", filter="bicubic", crop_fraction=0.9, mean=MEAN, std=STD
    )
    make = Augmentation(transforms=(resize,), preprocess=preprocess)
    assert torch.equal(make(noise(90, 71), sample_rng(0, 0, 0)), preprocess(noise(90, 71)))
    as_catr = Resize(image_size=(30, 30), mode="fit_longest", filter="bicubic")
    turned = Augmentation(transforms=(RandomQuarterTurn((90,)), as_catr), preprocess=preprocess)
    assert turned(noise(90, 60), sample_rng(0, 0, 0)).shape == (3, 30, 20)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F", "HSV"])
@pytest.mark.parametrize("size", [(90, 60), (1, 1), (1, 50), (50, 1)])
def test_any_mode_and_size(mode, size):
    image = Image.new("I;16", size, 40_000) if mode == "I;16" else noise(*size).convert(mode)
    before = image.tobytes()
    for index in range(10):
        tensor = everything()(image, sample_rng(0, 0, index))
        assert tensor.shape == (3, 40, 60) and tensor.isfinite().all()
    assert image.tobytes() == before and image.mode == mode


def test_the_photo_is_left_alone():
    image = noise(60, 40)
    before = image.tobytes()
    for transforms in [(), (RandomHorizontalFlip(0),), (RandomResizedCrop((40, 60)),)]:
        make = Augmentation(transforms=transforms, preprocess=PREPROCESS)
        make(image, sample_rng(0, 0, 0)).zero_()
        assert image.tobytes() == before


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(BadImageError, match=r"\(0, 5\).*at least 1"):
        everything()(Image.new("RGB", (0, 5)), sample_rng(0, 0, 0))


def test_one_line_describes_it_all():
    line = everything().describe()
    assert "\n" not in line
    order = ["ResizedCrop(size=(40, 60), scale=(0.08, 1.0)", "Flip(p=0.5)", "ColorJitter(bright"]
    order += ["Rotation(degrees=15", "RandAugment(num_ops=2, magnitude=9", "normalise", "Erasing("]
    places = [line.index(part) for part in order]
    assert places == sorted(places)
    assert everything(erasing=None).describe().endswith("normalise")


# --- crop ------------------------------------------------------------------------------------

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 3000))
SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair)))
RATIOS = st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)).map(lambda pair: tuple(sorted(pair)))


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


# --- flips and turns -------------------------------------------------------------------------


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


# --- colours ---------------------------------------------------------------------------------


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
    for found, expected in zip(turned, (GREEN, BLUE, RED, WHITE), strict=True):
        assert np.abs(np.subtract(found, expected)).max() <= 6  # a step of hue is 1.4 degrees
    back = corners(shift_hue(quarters(), -1 / 3))
    for found, expected in zip(back, (BLUE, RED, GREEN, WHITE), strict=True):
        assert np.abs(np.subtract(found, expected)).max() <= 6


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


# --- RandAugment -----------------------------------------------------------------------------


def test_operations_are_equally_likely_and_go_either_way():
    steps = [step for drawn in draws(RandAugment(num_ops=3), number=4000) for step in drawn]
    counts = Counter(name for name, _ in steps)
    assert set(counts) == set(OPERATIONS) and len(OPERATIONS) == 14
    assert all(abs(count - 12_000 / 14) < 110 for count in counts.values())
    signed = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    signed |= {"Brightness", "Color", "Contrast", "Sharpness"}
    for name in OPERATIONS:
        found = [magnitude for other, magnitude in steps if other == name]
        expected = magnitude_of(name, 9, 31, (1000, 1500))
        if name in signed:
            assert set(found) == {expected, -expected}
            assert np.mean(np.sign(found)) == pytest.approx(0, abs=0.12)
        else:
            assert set(found) == {expected}


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


# --- erasing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1.5, (0.1, 0.2, 0.3), "random"])
def test_the_box_is_erased_and_nothing_else(value):
    x = torch.randn(3, 40, 60, generator=torch.Generator().manual_seed(0))
    erasing, before = RandomErasing(p=1, value=value), x.clone()
    for seed in range(20):
        erasure = erasing.draw(np.random.default_rng(seed), (40, 60))
        (top, left, height, width), values = erasure
        result = erasing.apply(x, erasure)
        mask = torch.zeros(40, 60, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        assert torch.equal(result[:, ~mask], before[:, ~mask])
        if value == "random":
            assert torch.equal(result[:, mask], torch.from_numpy(values).flatten(1))
        else:
            expected = torch.tensor(value, dtype=torch.float32).expand(3)
            assert torch.equal(result[:, mask], expected[:, None].expand(3, int(mask.sum())))
            assert values is None
    assert torch.equal(x, before)
    assert erasing.apply(x, None) is x


def test_noise_is_normal():
    every = [one.noise for one in draws(RandomErasing(p=1, value="random"), (40, 60), 300)]
    values = np.concatenate([box.ravel() for box in every])
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert values.dtype == np.float32


def test_erased_boxes_are_uniform_in_area_and_in_the_logarithm_of_the_ratio():
    drawn = draws(RandomErasing(scale=(0.05, 0.2), ratio=(0.5, 4.0)), size=(3000, 2000))
    boxes = [erasure.box for erasure in drawn if erasure is not None]
    assert len(boxes) / len(drawn) == pytest.approx(0.5, abs=0.03)
    assert is_uniform([b.height * b.width / 6e6 for b in boxes], 0.05, 0.2)
    assert is_uniform([math.log(b.height / b.width) for b in boxes], math.log(0.5), math.log(4))
    assert is_uniform([b.top / (3000 - b.height) for b in boxes], 0, 1)
    assert is_uniform([b.left / (2000 - b.width) for b in boxes], 0, 1)


@given(SIDES, SIDES, SHARES, RATIOS, st.integers(0, 99))
def test_an_erased_box_never_spans_a_side(height, width, scale, ratio, seed):
    erasing = RandomErasing(p=1, scale=scale, ratio=ratio)
    erasure = erasing.draw(np.random.default_rng(seed), (height, width))
    if erasure is not None:
        top, left, high, wide = erasure.box
        assert 0 <= top <= top + high <= height and high < height
        assert 0 <= left <= left + wide <= width and wide < width


# --- fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "RandomResizedCrop size: found 0, expected pixels"),
        (lambda: RandomResizedCrop((8, 8, 8)), "size: found"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "scale: found .0.5, 0.1."),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.1)), "within 0..1"),
        (lambda: RandomResizedCrop(8, scale=[0.5, 1]), "scale: found"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), "ratio: found .*above 0"),
        (lambda: RandomResizedCrop(8, ratio=(1, math.inf)), "ratio: found"),
        (lambda: RandomResizedCrop(8, filter="cubic"), "filter: found 'cubic', expected nearest"),
        (lambda: RandomHorizontalFlip(1.5), "RandomHorizontalFlip p: found 1.5"),
        (lambda: RandomHorizontalFlip(True), "p: found True"),
        (lambda: RandomRotation(-5), "degrees: found -5"),
        (lambda: RandomRotation((5, -5)), "degrees: found"),
        (lambda: RandomRotation(5, filter="lanczos"), "expected nearest | bilinear | bicubic"),
        (lambda: RandomRotation(5, fill=256), "fill: found 256, expected 0..255"),
        (lambda: RandomRotation(5, fill=(1, 2)), "fill: found"),
        (lambda: RandomQuarterTurn((0, 45)), "angles: found .0, 45., expected .*90"),
        (lambda: RandomQuarterTurn(()), "angles: found"),
        (lambda: Resize(image_size=(0, 8), mode="crop", filter="box"), "image_size: found"),
        (lambda: ColorJitter(brightness=-0.1), "brightness: found -0.1"),
        (lambda: ColorJitter(contrast=(-0.1, 1)), "contrast: found"),
        (lambda: ColorJitter(saturation=math.nan), "saturation: found nan"),
        (lambda: ColorJitter(hue=0.6), "hue: found 0.6, expected a number in 0..0.5"),
        (lambda: RandAugment(num_ops=-1), "num_ops: found -1"),
        (lambda: RandAugment(magnitude=31), "magnitude: found 31, expected .* 0..30"),
        (lambda: RandAugment(num_magnitude_bins=1, magnitude=0), "bins: found 1"),
        (lambda: RandAugment(filter="box"), "filter: found 'box'"),
        (lambda: RandAugment(fill="black"), "fill: found 'black'"),
        (lambda: RandomErasing(p=-0.1), "RandomErasing p: found -0.1"),
        (lambda: RandomErasing(scale=(0, 2)), "scale: found"),
        (lambda: RandomErasing(ratio=(-1, 2)), "ratio: found"),
        (lambda: RandomErasing(value="noise"), "value: found 'noise'"),
        (lambda: RandomErasing(value=(0.0, 0.0)), "value: found"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        make()


# --- side by side with torchvision -----------------------------------------------------------


@pytest.fixture(scope="module")
def v2():
    pytest.importorskip("torchvision")
    from torchvision.transforms import v2

    torch.manual_seed(0)
    return v2


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
            found = difference(ours.apply(image, Box(**chosen)), theirs.transform(image, chosen))
            assert found == 0, f"{found} grey levels, {photo}, {chosen}"


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
            found = difference(ours.apply(image, angle), theirs.transform(image, chosen))
            assert found == 0, f"{found} grey levels, {photo}, {chosen}"
        assert difference(RandomHorizontalFlip().apply(image, True), flip(image)) == 0
        for angle in (0, 90, 180, 270):
            turned = v2.functional.rotate(image, angle, expand=True)
            assert difference(RandomQuarterTurn().apply(image, angle), turned) == 0


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
            found = difference(ours.apply(image, steps), theirs.transform(image, chosen))
            assert found == 0, f"{found} grey levels, {photo}, {steps}"


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
                    found = difference(operate(image, name, value, filter, fill), other)
                    assert found == 0, f"{found} grey levels, {photo}, {name} {value}"


@pytest.mark.parity
@pytest.mark.parametrize("value", [0.0, 1.5, (0.1, 0.2, 0.3), "random"])
def test_erasing_equals_torchvision(v2, value):
    theirs, ours = v2.RandomErasing(p=1, value=value), RandomErasing(p=1, value=value)
    for photo in PHOTOS:
        x = torch.randn(3, photo[1], photo[0])
        for _ in range(15):
            chosen = theirs.make_params([x])
            erasure = None
            if chosen["v"] is not None:
                box = Box(chosen["i"], chosen["j"], chosen["h"], chosen["w"])
                erasure = Erasure(box, chosen["v"].numpy() if value == "random" else None)
            assert torch.equal(ours.apply(x, erasure), theirs.transform(x, chosen))


@pytest.mark.parity
def test_a_whole_recipe_equals_torchvision(v2, monkeypatch):
    """All steps one after the other, with torchvision's draws in place of ours."""
    crop, jitter = v2.RandomResizedCrop((64, 96)), v2.ColorJitter(brightness=0.3)
    rotation = v2.RandomRotation(15)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, True), v2.Normalize(MEAN, STD)])
    for photo in PHOTOS:
        image = noise(*photo)
        box, colours = crop.make_params([image]), jitter.make_params([image])
        angle = rotation.make_params([image])
        other = rotation.transform(jitter.transform(crop.transform(image, box), colours), angle)
        ours = (RandomResizedCrop((64, 96)), ColorJitter(brightness=0.3), RandomRotation(15))
        drawn = [Box(**box), (("brightness", colours["brightness_factor"]),), angle["angle"]]
        for transform, chosen in zip(ours, drawn, strict=True):
            monkeypatch.setattr(type(transform), "draw", lambda *_, chosen=chosen: chosen)
        make = Augmentation(transforms=ours, preprocess=PREPROCESS)
        assert difference(make.view(image, sample_rng(0, 0, 0)), other) == 0
        tensor = make(image, sample_rng(0, 0, 0))
        torch.testing.assert_close(tensor, to_tensor(other).contiguous(), rtol=0, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (40, 150)])
def test_draws_are_distributed_as_torchvisions(v2, size):
    image, number = Image.new("RGB", size), 1500
    theirs = [v2.RandomResizedCrop(8).make_params([image]) for _ in range(number)]
    ours = draws(RandomResizedCrop(8), size[::-1], number)
    for name in ("top", "left", "height", "width"):
        assert agree([getattr(box, name) for box in ours], [box[name] for box in theirs]), name

    x = torch.zeros(3, size[1], size[0])
    theirs = [v2.RandomErasing(p=1).make_params([x]) for _ in range(number)]
    ours = [drawn for drawn in draws(RandomErasing(p=1), size[::-1], number) if drawn]
    theirs = [box for box in theirs if box["v"] is not None]
    assert abs(len(ours) - len(theirs)) < 0.05 * number
    for name, short in (("top", "i"), ("left", "j"), ("height", "h"), ("width", "w")):
        assert agree([getattr(e.box, name) for e in ours], [b[short] for b in theirs]), name

    fields = {"brightness": 0.3, "contrast": 1.7, "saturation": (0.2, 1.5), "hue": 0.2}
    theirs = [v2.ColorJitter(**fields).make_params([image]) for _ in range(number)]
    ours = [dict(steps) for steps in draws(ColorJitter(**fields), size[::-1], number)]
    for name in fields:
        assert agree([one[name] for one in ours], [one[f"{name}_factor"] for one in theirs]), name
    theirs = [v2.RandomRotation(15).make_params([image])["angle"] for _ in range(number)]
    assert agree(draws(RandomRotation(15), size[::-1], number), theirs)


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
