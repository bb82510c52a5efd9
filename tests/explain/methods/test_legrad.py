"""LeGrad against the equation: each block's score, derived by its own weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import METHODS
from tests.explain.vits import COLS, KINDS, ROWS, as_maps, make_images, make_model

method = METHODS["legrad"]


def block_score(model: VisionTransformer, tokens: Tensor, number: int, weights: Tensor) -> Tensor:
    """Logits (B, classes) read after a block that was given these weights, from its parts."""
    block = model.blocks[number]
    value = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)[2]
    value = value.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
    attended = (weights @ value).transpose(1, 2).flatten(2)
    h = tokens + block.ls1(block.attn.proj(attended))
    out = model.norm(h + block.ls2(block.mlp(block.norm2(h))))
    return model.classify(out, [out[:, 0]] * (model.config.head_blocks - 1))


def by_hand(model: VisionTransformer, images: Tensor, classes: list[int]) -> list[np.ndarray]:
    """(B, N) of each block."""
    with torch.no_grad():
        tokens, results = model.embed(images), []
    for number, block in enumerate(model.blocks):
        with torch.no_grad():
            after, weights = block(tokens, need_weights=True)
        weights.requires_grad_()
        logits = block_score(model, tokens, number, weights)
        score = sum(logits[picture, each] for picture, each in enumerate(classes))
        (gradient,) = torch.autograd.grad(score, weights)
        results.append(np.maximum(gradient.numpy(), 0).mean(axis=(1, 2)))
        tokens = after
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_mean_over_blocks_heads_and_queries(kind: str) -> None:
    model, images = make_model(kind), make_images()
    each = by_hand(model, images, [2, 4])
    maps = method(model, images, [2, 4])
    assert maps.shape == (2, ROWS, COLS) and maps.max() > 0
    np.testing.assert_allclose(maps.numpy(), as_maps(model, np.mean(each, axis=0)), atol=1e-12)
    some = method(model, images, [2, 4], blocks=[-1, 0, 2])
    expected = as_maps(model, (each[0] + each[2]) / 2)
    np.testing.assert_allclose(some.numpy(), expected, atol=1e-12)


def test_the_gradient_is_the_one_that_finite_differences_give() -> None:
    model, images, step = make_model(), make_images(1), 1e-6
    with torch.no_grad():
        tokens, _ = model.blocks[0](model.embed(images))
        _, weights = model.blocks[1](tokens, need_weights=True)
        row = np.zeros(weights.shape[-1])
        for head, query, key in np.ndindex(*weights.shape[1:]):
            up, down = weights.clone(), weights.clone()
            up[0, head, query, key] += step
            down[0, head, query, key] -= step
            both = [block_score(model, tokens, 1, each)[0, 3].item() for each in (up, down)]
            row[key] += max(0, (both[0] - both[1]) / (2 * step))
    expected = as_maps(model, row[None] / weights[0, :, :, 0].numel())
    maps = method(model, images, 3, blocks=[1])
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_without_a_class_it_is_the_one_predicted_after_the_last_block() -> None:
    model, images = make_model(), make_images()
    predicted = model(images).argmax(dim=1)
    assert torch.equal(method(model, images), method(model, images, predicted))


def test_what_is_no_choice_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks is empty"):
        method(make_model(), make_images(), blocks=[])
    with pytest.raises(IndexError, match="block 3: choose from -3 to 2"):
        method(make_model(), make_images(), blocks=[0, 3])
