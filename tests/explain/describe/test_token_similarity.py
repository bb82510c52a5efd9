"""Similarity of patches: pair by pair, and its two ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import token_similarity
from tests.explain.sharpened import VARIANTS, WIDE, make_images, make_model, untouched


@torch.no_grad()
def all_tokens(model: VisionTransformer, images: Tensor) -> list[np.ndarray]:
    tokens = [model.embed(images)]
    for block in model.blocks:
        tokens.append(block(tokens[-1])[0])
    return [each[:, model.num_prefix_tokens :].numpy() for each in tokens]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_mean_over_pairs(variant: str) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    with untouched(model, images):
        similarity = token_similarity(model, images)
    assert similarity.shape == (2, 3) and not similarity.requires_grad
    for place, patches in enumerate(all_tokens(model, images)):
        for picture in range(2):
            cosines = [
                abs(one @ two) / np.linalg.norm(one) / np.linalg.norm(two)
                for i, one in enumerate(patches[picture])
                for j, two in enumerate(patches[picture])
                if i != j
            ]
            assert float(similarity[picture, place]) == pytest.approx(np.mean(cosines), rel=1e-9)


def test_patches_that_are_alike_have_one() -> None:
    model, images = make_model("mean"), torch.zeros(1, 3, 24, 36).double()
    with torch.no_grad():
        model.pos_embed.zero_()
    torch.testing.assert_close(token_similarity(model, images), torch.ones(1, 3).double())


def test_one_patch_has_nothing_to_be_like() -> None:
    with pytest.raises(ValueError, match="one patch"):
        token_similarity(make_model(), make_images(size=(6, 4)))
