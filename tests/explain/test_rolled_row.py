"""The rolled row is a row of the whole product of matrices, whatever the options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from minivit.explain import METHODS, patch_map, rolled_row, rollout
from tests.explain.vits import (
    COLS,
    KINDS,
    ROWS,
    WITH_CLASS_TOKEN,
    as_maps,
    attention_arrays,
    make_images,
    make_model,
)

method = METHODS["rollout"]


@pytest.mark.parametrize("kind", WITH_CLASS_TOKEN)
def test_it_is_the_class_tokens_row_of_the_product(kind: str) -> None:
    model, images = make_model(kind), make_images()
    expected = []
    for picture in range(2):
        flow = np.eye(model.num_prefix_tokens + ROWS * COLS)
        for weights in attention_arrays(model, images):
            flow = (0.5 * weights[picture].mean(0) + 0.5 * np.eye(len(flow))) @ flow
        expected.append(flow[0])
    maps = method(model, images)
    assert maps.shape == (2, ROWS, COLS)
    np.testing.assert_allclose(maps.numpy(), as_maps(model, np.stack(expected)), atol=1e-9)


@pytest.mark.parametrize("patch", [(0, 5), (3, 0), (2, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_has_a_row_too(kind: str, patch: tuple[int, int]) -> None:
    model, images = make_model(kind), make_images()
    _, attentions = model(images, return_attention=True)
    token = model.num_prefix_tokens + patch[0] * COLS + patch[1]
    expected = patch_map(rollout(attentions)[:, token], attentions)
    torch.testing.assert_close(method(model, images, patch=patch), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"residual": 0.2},
        {"residual": 0.0},
        {"residual": 1.0},
        {"fusion": "max"},
        {"fusion": "min", "residual": 0.3},
        {"discard": 0.9},
        {"fusion": "max", "discard": 0.5},
    ],
)
def test_options_are_those_of_the_product(options: dict[str, Any]) -> None:
    model, images = make_model(), make_images()
    with torch.no_grad():
        _, attentions = model(images, return_attention=True)
        expected = patch_map(rollout(attentions, **options)[:, 0], attentions)
    torch.testing.assert_close(method(model, images, **options), expected, atol=1e-9, rtol=0)


def test_it_is_exact_in_float32_and_for_one_block() -> None:
    for depth in (1, 4):
        model, images = make_model(depth=depth).float(), make_images().float()
        _, attentions = model(images, return_attention=True)
        expected = patch_map(rollout(attentions)[:, 0], attentions)
        torch.testing.assert_close(method(model, images), expected, atol=1e-6, rtol=0)


def test_shares_and_those_of_the_prefix_tokens_sum_to_one() -> None:
    model, images = make_model("mean"), make_images()
    sums = method(model, images, patch=(1, 2)).sum(dim=(1, 2))
    torch.testing.assert_close(sums, torch.ones(2, dtype=torch.float64))


def test_no_more_than_a_head_of_a_block_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call for weights is of one head, and the last block's of one row."""
    shapes = []
    original = rolled_row.attention_weights

    def seen(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        weights = original(query, key)
        shapes.append(tuple(weights.shape))
        return weights

    monkeypatch.setattr(rolled_row, "attention_weights", seen)
    model = make_model()
    method(model, make_images())
    length = model.num_prefix_tokens + ROWS * COLS
    assert shapes == [(2, 1, length)] * 3 + [(2, length, length)] * 6


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mean", {}, "no class token: give the patch"),
        ("registers", {"patch": (4, 0)}, r"patch \(4, 0\): the patches are a grid of 4 rows x 6"),
        ("registers", {"patch": (0, -1)}, "grid of 4 rows x 6 cols"),
        ("registers", {"fusion": "median"}, "choose from mean, max, min"),
        ("registers", {"residual": 2.0}, "residual is 2.0"),
        ("registers", {"discard": 1.0}, "discard is 1.0"),
    ],
)
def test_what_is_no_rollout_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(make_model(kind), make_images(), **options)
