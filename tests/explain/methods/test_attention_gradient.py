"""One block's weights times their gradients, against autograd over the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain import METHODS
from tests.explain.vits import COLS, KINDS, ROWS, as_maps, attention_arrays, make_images, make_model

method = METHODS["attention_gradient"]


@pytest.mark.parametrize("block", [0, 1, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_positive_part_of_weights_times_gradients(kind: str, block: int) -> None:
    model, images = make_model(kind), make_images()
    logits, attentions = model(images, return_attention=True)
    expected = []
    for picture, number in enumerate((4, 0)):
        (gradient,) = torch.autograd.grad(
            logits[picture, number], attentions[block], retain_graph=True
        )
        weights = attention_arrays(model, images)[block][picture]
        mean = np.maximum(weights * gradient[picture].numpy(), 0).mean(axis=0)
        patches = mean[model.num_prefix_tokens :]
        expected.append(patches.mean(axis=0) if kind == "mean" else mean[0])
    maps = method(model, images, [4, 0], block=block)
    assert maps.shape == (2, ROWS, COLS) and maps.max() > 0
    np.testing.assert_allclose(maps.numpy(), as_maps(model, np.stack(expected)), atol=1e-12)


def test_of_one_block_it_is_the_relevance() -> None:
    model, images = make_model(depth=1), make_images()
    torch.testing.assert_close(method(model, images, 1), METHODS["relevance"](model, images, 1))


def test_a_block_that_does_not_exist_is_refused() -> None:
    for block in (3, -4):
        with pytest.raises(IndexError, match=f"block {block}: choose from -3 to 2"):
            method(make_model(), make_images(), block=block)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="the model has no head"):
        method(make_model(num_classes=0), make_images())
