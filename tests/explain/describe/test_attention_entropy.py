"""Entropy of attention: numpy, its two ends, and rows with zeros."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from minivit.explain import attention_entropy
from tests.explain.sharpened import VARIANTS, WIDE, make_images, make_model, untouched


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_mean_of_the_rows(variant: str) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    with untouched(model, images):
        entropy = attention_entropy(model, images)
    assert entropy.shape == (2, 2, 3) and not entropy.requires_grad
    _, attentions = model(images, return_attention=True)
    for block, attention in enumerate(attentions):
        weights = attention.detach().numpy()
        expected = -(weights * np.log(weights)).sum(-1).mean(-1)
        np.testing.assert_allclose(entropy[:, block].numpy(), expected, rtol=1e-10)


def test_it_goes_from_none_to_that_of_uniform_weights() -> None:
    model, images = make_model("registers"), make_images()
    qkv = model.blocks[0].attn.qkv
    with torch.no_grad():
        qkv.weight[:24] = 0
        qkv.bias[:24] = 0
    uniform = attention_entropy(model, images)[:, 0]
    torch.testing.assert_close(uniform, torch.full((2, 3), math.log(1 + 3 + 36)).double())
    sharp = make_model("registers")
    with torch.no_grad():
        sharp.blocks[0].attn.qkv.weight.mul_(1e4)  # rows of one 1 and zeros
    assert float(attention_entropy(sharp, images)[:, 0].abs().max()) < 1e-3
