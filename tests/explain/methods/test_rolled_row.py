"""The rolled row is a row of the whole product of matrices, whatever the options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.explain import METHODS, patch_map, rollout
from minivit.explain.methods import rolled_row
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


def test_it_is_exact_in_float32_with_any_number_of_blocks_and_kept_maps() -> None:
    for depth, num_heads in ((1, 3), (2, 1), (4, 6), (3, 12)):
        model = make_model(depth=depth, num_heads=num_heads).float()
        images = make_images().float()
        _, attentions = model(images, return_attention=True)
        expected = patch_map(rollout(attentions)[:, 0], attentions)
        torch.testing.assert_close(method(model, images), expected, atol=1e-6, rtol=0)


def test_shares_of_a_model_without_prefix_tokens_sum_to_one() -> None:
    model, images = make_model("mean", num_register_tokens=0), make_images()
    sums = method(model, images, patch=(1, 2)).sum(dim=(1, 2))
    torch.testing.assert_close(sums, torch.ones(2, dtype=torch.float64))


def test_weights_are_in_memory_a_head_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the last block are one row, and each block's heads share one piece of memory."""
    seen: list[tuple[tuple[int, ...], int]] = []
    original = rolled_row.write_weights

    def noted(memory: Tensor, query: Tensor, key: Tensor, mask: None) -> Tensor:
        seen.append((tuple(memory.shape), memory.data_ptr()))
        return original(memory, query, key, mask)

    monkeypatch.setattr(rolled_row, "write_weights", noted)
    model = make_model(depth=4)  # of 3 heads: one map is kept, then two inputs, and one row
    method(model, make_images())
    length = model.num_prefix_tokens + ROWS * COLS
    assert [shape for shape, _ in seen] == [(2, 1, length)] * 3 + [(2, length, length)] * 6
    for block in range(3):
        assert len({place for _, place in seen[3 * block : 3 * block + 3]}) == 1


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
