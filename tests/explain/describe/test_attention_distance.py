"""How far heads look: the loop on paper, and attention whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain import attention_distance
from minivit.explain.describe.attention_distance import patch_distances, uniform_distance
from tests.explain.sharpened import PATCH, SIZE, VARIANTS, WIDE, make_images, make_model, untouched


def by_hand(weights: np.ndarray, rows: int, cols: int, num_prefix: int) -> float:
    """(N, N) of one head of one picture."""
    means = []
    for query in range(rows * cols):
        row = weights[num_prefix + query]
        total = part = 0.0
        for key in range(rows * cols):
            down = (key // cols - query // cols) * PATCH[0]
            right = (key % cols - query % cols) * PATCH[1]
            total += row[num_prefix + key] * (down**2 + right**2) ** 0.5
            part += row[num_prefix + key]
        means.append(total / part)
    return sum(means) / len(means)


@pytest.mark.parametrize("size", [SIZE, WIDE])
@pytest.mark.parametrize("variant", ["class", "distilled", "mean"])
def test_it_is_the_loop_on_paper(variant: str, size: tuple[int, int]) -> None:
    model, images = make_model(variant), make_images(size=size)
    with untouched(model, images):
        distances = attention_distance(model, images)
    assert distances.shape == (2, 2, 3) and not distances.requires_grad
    _, attentions = model(images, return_attention=True)
    for picture, block, head in ((0, 0, 2), (1, 1, 0)):
        expected = by_hand(
            attentions[block][picture, head].detach().numpy(),
            size[0] // PATCH[0],
            size[1] // PATCH[1],
            model.num_prefix_tokens,
        )
        assert float(distances[picture, block, head]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_head_that_looks_at_all_alike_has_the_distance_of_chance(variant: str) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight[:24] = 0  # queries
            block.attn.qkv.bias[:24] = 0
    chance = uniform_distance(model, images)
    torch.testing.assert_close(
        attention_distance(model, images), torch.full((2, 2, 3), chance).double(), rtol=1e-6, atol=0
    )
    points = [(6 * row, 4 * col) for row in range(3) for col in range(8)]
    expected = np.mean([np.hypot(a[0] - b[0], a[1] - b[1]) for a in points for b in points])
    assert chance == pytest.approx(expected, rel=1e-6)


def test_distances_are_in_pixels_down_and_right() -> None:
    distances = patch_distances(make_model(), SIZE)
    assert distances.shape == (36, 36)
    assert distances[0, 1] == PATCH[1] and distances[0, 9] == PATCH[0]
    assert float(distances[3, 9 + 4]) == pytest.approx(np.hypot(*PATCH))
    assert torch.equal(distances, distances.T) and not distances.diagonal().any()


def test_a_patch_that_looks_at_prefix_tokens_alone_gives_a_number() -> None:
    model, images = make_model("registers"), make_images()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.mul_(1e4)
    assert bool(attention_distance(model, images).isfinite().all())


def test_half_precision_gives_what_its_own_weights_give() -> None:
    model, images = make_model("registers").bfloat16(), make_images().bfloat16()
    distances = attention_distance(model, images)
    assert distances.dtype == torch.float32 and bool(distances.isfinite().all())
