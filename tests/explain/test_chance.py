"""The chance of a picture: its own, the same anywhere, and no trace of it."""

from __future__ import annotations

import pytest
import torch

from minivit.explain.chance import generators
from tests.explain.sharpened import make_images


def draw(images: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.stack([torch.rand(8, generator=each) for each in generators(images, seed)])


def test_it_depends_on_seed_and_picture_alone() -> None:
    images = make_images(3)
    before = torch.get_rng_state()
    numbers = draw(images, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(numbers, draw(images, 4))
    assert torch.equal(numbers[[2, 0]], draw(images[[2, 0]], 4))  # in another order
    assert torch.equal(numbers[1:2], draw(images[1:2], 4))  # alone
    flipped = images.flip(-1)
    for other in (draw(images, 5), draw(flipped, 4), numbers[[1, 2, 0]]):
        assert not bool((other == numbers).any())


def test_precision_and_layout_do_not_matter_where_the_numbers_are_the_same() -> None:
    images = make_images(2).float()
    numbers = draw(images, 0)
    assert torch.equal(numbers, draw(images.double(), 0))
    assert torch.equal(numbers, draw(images.contiguous(memory_format=torch.channels_last), 0))


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_bad_seeds_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed is"):
        generators(make_images(), seed)
