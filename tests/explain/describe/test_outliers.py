"""Outlier tokens: lengths after a block, and planted ones."""

from __future__ import annotations

import pytest
import torch

from minivit.explain import outlier_tokens
from tests.explain.sharpened import WIDE, make_images, make_model, untouched


@pytest.mark.parametrize("variant", ["registers", "mean", "clip"])
@pytest.mark.parametrize("block", [0, 1, -1, -2])
def test_lengths_are_those_after_the_block(variant: str, block: int) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    with untouched(model, images):
        norms, outliers = outlier_tokens(model, images, block=block, times=1.1)
    assert norms.shape == outliers.shape == (2, 3, 8) and outliers.dtype == torch.bool
    with torch.no_grad():
        tokens = model.embed(images)
        for each in model.blocks[: block % 2 + 1]:
            tokens = each(tokens)[0]
    lengths = tokens[:, model.num_prefix_tokens :].square().sum(-1).sqrt()
    torch.testing.assert_close(norms, lengths.unflatten(1, (3, 8)))
    for picture in range(2):
        ordered = lengths[picture].sort().values
        median = (ordered[11] + ordered[12]) / 2
        assert torch.equal(outliers[picture].flatten(), lengths[picture] > 1.1 * median)
    assert 0 < int(outliers.sum()) < 24


def test_a_planted_outlier_is_seen_in_its_picture_and_place() -> None:
    model, images = make_model("registers"), make_images(3)
    assert not outlier_tokens(model, images).outliers.any()
    images[1, :, 12:18, 20:24] *= 300  # row 2, col 5
    outliers = outlier_tokens(model, images).outliers
    assert outliers.nonzero().tolist() == [[1, 2, 5]]


def test_bad_arguments_are_refused() -> None:
    model, images = make_model(), make_images()
    with pytest.raises(IndexError, match="block 2: choose from -2 to 1"):
        outlier_tokens(model, images, block=2)
    for times in (0.5, float("inf")):
        with pytest.raises(ValueError, match="times is"):
            outlier_tokens(model, images, times=times)
