"""Kept patches: a token that is not kept is as if the model could not attend to it."""

from __future__ import annotations

import pytest
import torch

from minivit.explain.kept import logits_of_kept
from tests.explain.scored_models import sharp

VARIANTS = [
    {},
    {"pooling": "mean"},
    {"class_token": False, "pooling": "mean", "num_register_tokens": 0},
    {"pooling": "cls_and_mean", "head_blocks": 2},
    {"norm_pre": True, "pos_embed_prefix": False},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_all_patches_in_any_order_are_the_picture(changes: dict[str, object]) -> None:
    model, images = sharp(**changes), torch.randn(2, 3, 32, 72)
    keep = torch.stack([torch.randperm(36) for _ in range(2)])
    expected = model(images).detach()
    torch.testing.assert_close(logits_of_kept(model, images, keep), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", VARIANTS)
def test_what_is_not_kept_cannot_be_seen(changes: dict[str, object]) -> None:
    """Other pixels in the patches that went change nothing; in those that stay, they do."""
    model, images = sharp(**changes), torch.randn(1, 3, 32, 48)
    keep = torch.tensor([[0, 7, 8, 22]])  # of 6 a row: (0, 0), (1, 1), (1, 2), (3, 4)
    before = logits_of_kept(model, images, keep)
    other = torch.randn_like(images)
    for number in keep[0].tolist():
        row, col = divmod(number, 6)
        there = (..., slice(8 * row, 8 * row + 8), slice(8 * col, 8 * col + 8))
        other[there] = images[there]
    assert torch.equal(logits_of_kept(model, other, keep), before)
    other[..., 8:16, 16:24] += 1
    assert not torch.allclose(logits_of_kept(model, other, keep), before)


def test_no_patch_leaves_what_the_model_says_by_itself() -> None:
    model, images = sharp(), torch.randn(2, 3, 32, 48)
    first, second = logits_of_kept(model, images, torch.empty(2, 0, dtype=torch.long))
    torch.testing.assert_close(first, second)


def test_what_cannot_be_kept_is_refused() -> None:
    images = torch.randn(1, 3, 32, 48)
    with pytest.raises(ValueError, match=r"keep has numbers of patches that are not 0 to 23"):
        logits_of_kept(sharp(), images, torch.tensor([[24]]))
    with pytest.raises(ValueError, match=r"no patch is kept"):
        logits_of_kept(sharp(pooling="mean"), images, torch.empty(1, 0, dtype=torch.long))
