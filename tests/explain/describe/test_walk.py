"""Block by block: the model's own tokens and weights, and one block's in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.describe.walk import measure_attention, tokens_by_block
from tests.explain.sharpened import VARIANTS, make_images, make_model, untouched


@pytest.mark.parametrize("rows", [None, [0, -1, 5]])
@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_that_the_model_returns(variant: str, rows: list[int] | None) -> None:
    model, images = make_model(variant), make_images()
    with untouched(model, images):
        weights = measure_attention(model, images, lambda weights: weights, rows=rows)
    _, attentions = model(images, return_attention=True)
    expected = torch.stack([each if rows is None else each[:, :, rows] for each in attentions], 1)
    torch.testing.assert_close(weights, expected.detach())


def test_tokens_end_as_the_model_encodes_them() -> None:
    model, images = make_model("registers"), make_images()
    with fixed(model):
        first, middle, last = tokens_by_block(model, images)
        assert torch.equal(first, model.embed(images))
        torch.testing.assert_close(model.norm(last), model.encode(images))
        torch.testing.assert_close(model.blocks[0](first)[0], middle)


def test_weights_of_a_block_are_gone_before_the_next_are_made() -> None:
    model, images = make_model(depth=4), make_images()
    made: list[weakref.ref[Tensor]] = []

    def measure(weights: Tensor) -> Tensor:
        made.append(weakref.ref(weights))
        return weights.sum(dim=-1)

    alive: list[int] = []  # weights that are there when a block begins
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda *_: alive.append(sum(each() is not None for each in made))
        )
    assert measure_attention(model, images, measure).shape == (2, 4, 3, 37)
    assert len(made) == 4 and alive == [0, 0, 0, 0]


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    model, images = make_model(dropout=0.1).train(), make_images()

    def fail(weights: Tensor) -> Tensor:
        raise RuntimeError("measured badly")

    with pytest.raises(RuntimeError, match="badly"), untouched(model, images):
        measure_attention(model, images, fail)
