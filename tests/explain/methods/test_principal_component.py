"""Principal components against numpy's eigenvectors; their sign follows attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain import METHODS
from tests.explain.vits import COLS, KINDS, ROWS, as_maps, attention_arrays, make_images, make_model

method = METHODS["principal_component"]


@pytest.mark.parametrize("component", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_an_eigenvector_on_the_side_of_attention(kind: str, component: int) -> None:
    model, images = make_model(kind), make_images()
    maps = method(model, images, component=component).numpy()
    with torch.no_grad():
        patches = model.encode(images)[:, model.num_prefix_tokens :].numpy()
    last = attention_arrays(model, images)[-1].mean(axis=1)
    received = as_maps(model, last.mean(axis=1) if kind == "mean" else last[:, 0])
    for picture in range(2):
        centred = patches[picture] - patches[picture].mean(axis=0)
        vectors = np.linalg.eigh(centred.T @ centred)[1]
        along = (centred @ vectors[:, -1 - component]).reshape(ROWS, COLS)
        along *= np.sign((along * received[picture]).sum())
        np.testing.assert_allclose(maps[picture], along, atol=1e-10)


def test_the_sign_turns_with_attention_and_with_nothing_else() -> None:
    """A last block that moves nothing, and looks first at one side of the component, then there."""
    model, images = make_model("class token"), make_images(1)
    last = model.blocks[-1]
    with torch.no_grad():
        for layer in (last.attn.proj, last.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
        before = method(model, images)
        last.attn.qkv.weight[:24] *= -1  # the queries look away from where they looked
        last.attn.qkv.bias[:24] *= -1
        after = method(model, images)
    torch.testing.assert_close(after.abs(), before.abs())
    torch.testing.assert_close(after, -before)


def test_a_component_that_does_not_exist_is_refused() -> None:
    for component in (-1, 23):  # 24 patches about their mean lie along 23 directions
        with pytest.raises(ValueError, match=f"component {component}: choose from 0 to 22"):
            method(make_model(), make_images(), component=component)


def test_patches_that_do_not_differ_have_no_component() -> None:
    model = make_model()
    with torch.no_grad():
        model.norm.weight.zero_()
    maps = method(model, make_images())
    torch.testing.assert_close(maps, torch.zeros_like(maps))
