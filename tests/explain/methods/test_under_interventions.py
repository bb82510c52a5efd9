"""Methods within interventions explain the model as it then is, or refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import METHODS, intervene, patch_map, rollout
from tests.explain.vits import KINDS, WITH_CLASS_TOKEN, make_images, make_model


def other_weights(model: VisionTransformer) -> Tensor:
    """Weights of a block of another picture, (1, H, N, N)."""
    with torch.no_grad():
        return model(make_images(3)[2:], return_attention=[1])[1][0]


def changes(model: VisionTransformer) -> list[dict[str, Any]]:
    """Interventions at the first block, in the middle and at the last one."""
    weights = other_weights(model)
    return [
        {"patches": [(0, 0), (1, 3)]},
        {"weights": {0: weights, 2: "uniform"}},
        {"weights": {-1: weights}},
        {"heads": {-1: [0]}, "by": "mean"},
        {"blocks": [-1], "tokens": [5, 7]},
    ]


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("kind", WITH_CLASS_TOKEN)
def test_the_rolled_row_is_that_of_the_weights_within(kind: str, num_heads: int) -> None:
    """Also where hooks sit on blocks whose weights are computed from kept inputs."""
    model, images = make_model(kind, num_heads=num_heads), make_images()
    plain = METHODS["rollout"](model, images)
    for change in changes(model):
        with intervene(model, **change), torch.no_grad():
            _, attentions = model(images, return_attention=True)
            expected = patch_map(rollout(attentions)[:, 0], attentions)
            maps = METHODS["rollout"](model, images)
        torch.testing.assert_close(maps, expected, atol=1e-9, rtol=0)
        reaches = "heads" not in change and "blocks" not in change  # weights come before these
        assert bool((maps - plain).abs().max() > 1e-4) == reaches


@pytest.mark.parametrize("keep", ["maps", "inputs"])
@pytest.mark.parametrize("kind", KINDS)
def test_relevance_is_that_of_the_gradients_within(kind: str, keep: str) -> None:
    model, images = make_model(kind, depth=4), make_images()
    for change in changes(model):
        with intervene(model, **change):
            logits, attentions = model(images, return_attention=True)
            score = logits[:, 3].sum()
            gradients = torch.autograd.grad(score, list(attentions))
            flow = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
            for weights, gradient in zip(attentions, gradients, strict=True):
                flow = flow + (weights.detach() * gradient).clamp(min=0).mean(1) @ flow
            pooled = kind == "mean"
            first = model.num_prefix_tokens
            row = flow[:, first:].mean(1) if pooled else flow[:, 0]
            maps = METHODS["relevance"](model, images, 3, keep=keep)
        torch.testing.assert_close(maps, patch_map(row, attentions), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_pixels_are_those_within(kind: str) -> None:
    model, images = make_model(kind), make_images()
    for change in changes(model):
        with intervene(model, **change):
            pixels = images.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(pixels)[:, 1].sum(), pixels)
            expected = gradient.abs().unflatten(3, (6, 8)).unflatten(2, (4, 8)).mean((1, 3, 5))
            maps = METHODS["input_gradient"](model, images, 1)
        torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)


def test_values_beside_a_block_with_hooks_are_refused() -> None:
    model, images = make_model(), make_images()
    with intervene(model, weights={1: "uniform"}):
        METHODS["value_norm"](model, images)
        with pytest.raises(ValueError, match="block 1 has hooks, as of an intervention"):
            METHODS["value_norm"](model, images, block=1)
