"""Random erasing: the box is overwritten and nothing else, and it lies anywhere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivit.data.augmentation.boxes import Box
from minivit.data.augmentation.erasing import Erasure, RandomErasing
from tests.data.augmentation.draws import (
    PHOTOS,
    RATIOS,
    SHARES,
    SIDES,
    agree,
    draws,
    is_uniform,
)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomErasing(p=-0.1), "RandomErasing p is -0.1"),
        (lambda: RandomErasing(scale=(0, 2)), "scale is"),
        (lambda: RandomErasing(ratio=(-1, 2)), "ratio is"),
        (lambda: RandomErasing(value="noise"), "value is 'noise'"),
        (lambda: RandomErasing(value=(0.0, 0.0)), "value is"),
    ],
)
def test_impossible_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- side by side with torchvision -----------------------------------------------------------


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
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (40, 150)])
def test_erased_boxes_are_distributed_as_torchvisions(v2, size):
    x, number = torch.zeros(3, size[1], size[0]), 1500
    theirs = [v2.RandomErasing(p=1).make_params([x]) for _ in range(number)]
    ours = [drawn for drawn in draws(RandomErasing(p=1), size[::-1], number) if drawn]
    theirs = [box for box in theirs if box["v"] is not None]
    assert abs(len(ours) - len(theirs)) < 0.05 * number
    for name, short in (("top", "i"), ("left", "j"), ("height", "h"), ("width", "w")):
        assert agree([getattr(e.box, name) for e in ours], [b[short] for b in theirs]), name
