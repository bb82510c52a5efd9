"""Weights times lengths of values, head by head in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from minivit.explain import METHODS
from tests.explain.vits import COLS, KINDS, ROWS, as_maps, attention_arrays, make_images, make_model

method = METHODS["value_norm"]


@pytest.mark.parametrize("of", ["outputs", "values"])
@pytest.mark.parametrize("block", [0, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_is_multiplied_by_the_length_of_its_vector(
    kind: str, block: int, of: str
) -> None:
    model, images, patch = make_model(kind), make_images(), (1, 4)
    token = model.num_prefix_tokens + patch[0] * COLS + patch[1]
    weights = attention_arrays(model, images)[block]
    with torch.no_grad():
        tokens = model.embed(images)
        for module in model.blocks[:block] if block else []:
            tokens, _ = module(tokens)
        module = model.blocks[block]
        normed = module.norm1(tokens).numpy()
    matrix, bias = (
        part.detach().numpy()[48:] for part in (module.attn.qkv.weight, module.attn.qkv.bias)
    )
    out = module.attn.proj.weight.detach().numpy()
    heads = []
    for head in range(3):
        own = slice(8 * head, 8 * head + 8)
        vectors = normed @ matrix[own].T + bias[own]
        if of == "outputs":
            vectors = vectors @ out[:, own].T
        heads.append(weights[:, head, token] * np.linalg.norm(vectors, axis=-1))
    maps = method(model, images, block=block, patch=patch, of=of)
    assert maps.shape == (2, ROWS, COLS)
    np.testing.assert_allclose(maps.numpy(), as_maps(model, np.mean(heads, axis=0)), atol=1e-12)
    one = method(model, images, block=block, patch=patch, of=of, head=1)
    np.testing.assert_allclose(one.numpy(), as_maps(model, heads[1]), atol=1e-12)


def test_without_a_patch_the_class_token_looks() -> None:
    """With values of one length everywhere, the map is the attention times that length."""
    model, images = make_model(), make_images()
    with torch.no_grad():
        model.blocks[-1].attn.qkv.weight[48:] = 0
        model.blocks[-1].attn.qkv.bias[48:] = 0.5
    expected = 0.5 * 8**0.5 * METHODS["attention"](model, images)
    torch.testing.assert_close(method(model, images, of="values"), expected)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mean", {}, "no class token: give the patch"),
        ("registers", {"head": 3}, "head 3: choose from 0 to 2"),
        ("registers", {"of": "keys"}, "of is 'keys': choose from outputs, values"),
    ],
)
def test_what_is_not_there_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(make_model(kind), make_images(), **options)
