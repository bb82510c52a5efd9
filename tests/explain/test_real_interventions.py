"""Interventions on trained weights, beside transformers' model whose weights were changed instead.

The model is that of `make real`, a DINOv2 ViT-S/14; it has no head and is given one of chance.
"""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import minivit
from minivit.explain import (
    attention_parts,
    contributions,
    intervene,
    logit_lens,
    rank_parts,
    record,
)
from minivit.preprocess import open_image
from weights_convert import real

pytestmark = pytest.mark.parity

PHOTOS = Path(__file__).parents[2] / "tutorials" / "photos"
HEIGHT, WIDTH = 112, 168  # 8 rows x 12 cols


@cache
def ours() -> minivit.VisionTransformer:
    """The converted model, with a head for five classes."""
    path = real.path()
    assert path is not None, "no trained weights here: run 'make real'"
    trained = minivit.load_model(path)
    assert isinstance(trained, minivit.VisionTransformer)
    config = dataclasses.replace(trained.config, num_classes=5)
    model = minivit.VisionTransformer(config, preprocess=trained.preprocess).eval()
    head = torch.randn(5, config.dim, generator=torch.Generator().manual_seed(0))
    head = {"head.weight": head / config.dim**0.5, "head.bias": torch.linspace(-1, 1, 5)}
    model.load_state_dict(trained.state_dict() | head)
    return model


@cache
def theirs() -> Any:
    from transformers import Dinov2Model

    folder = real.transformers_folder()
    assert folder is not None, "no trained weights here: run 'make real'"
    return Dinov2Model.from_pretrained(folder, attn_implementation="eager").eval()


@cache
def photos() -> Tensor:
    """(2, 3, height, width)."""
    values = {"image_size": (HEIGHT, WIDTH), "crop_fraction": 1.0}
    preprocess = minivit.Preprocess.from_dict(ours().preprocess.to_dict() | values)
    names = ("cat", "coffee")
    return torch.stack([preprocess(open_image(PHOTOS / f"{name}.jpg")) for name in names])


def layer_of(model: Any, block: int, *names: str) -> torch.nn.Linear:
    """A linear layer of a block by the end of its name, which differs between versions."""
    modules = model.encoder.layer[block].named_modules()
    (layer,) = [module for name, module in modules if name.endswith(names)]
    assert isinstance(layer, torch.nn.Linear)
    return layer


def assert_tokens(model: Any) -> None:
    """Asserts that our tokens, as they are in this moment, are those of transformers' model."""
    with torch.no_grad():
        tokens, expected = ours().encode(photos()), model(photos()).last_hidden_state
    torch.testing.assert_close(tokens, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("block", "head"), [(0, 5), (6, 0), (11, 2)])
def test_a_silent_head_is_transformers_with_zeros_in_its_matrix(block: int, head: int) -> None:
    model = copy.deepcopy(theirs())
    with torch.no_grad():
        matrix = layer_of(model, block, "o_proj", "attention.output.dense").weight
        matrix[:, 64 * head : 64 * head + 64] = 0
    with intervene(ours(), heads={block: [head]}):
        assert_tokens(model)
    assert_tokens(theirs())


def test_silent_mlps_and_halved_attention_are_transformers_with_other_layer_scales() -> None:
    model = copy.deepcopy(theirs())
    with torch.no_grad():
        model.encoder.layer[3].layer_scale2.lambda1.zero_()
        model.encoder.layer[8].layer_scale1.lambda1 *= 0.5
    with intervene(ours(), mlps=[3]), intervene(ours(), attention=[8], by=0.5):
        assert_tokens(model)


def test_uniform_weights_are_transformers_without_queries() -> None:
    model = copy.deepcopy(theirs())
    query = layer_of(model, 9, "q_proj", "attention.query")
    with torch.no_grad():
        query.weight.zero_()
        query.bias.zero_()
    with intervene(ours(), weights={9: "uniform"}):
        assert_tokens(model)


@torch.no_grad()
def test_weights_of_another_photo_are_those_that_are_used() -> None:
    """Trained weights reach from 1 down to where float32 ends."""
    cat, coffee = photos()[:1], photos()[1:]
    _, attentions = ours()(coffee, return_attention=[5, 11])
    with intervene(ours(), weights=dict(zip([5, 11], attentions, strict=True))):
        logits, used = ours()(cat, return_attention=True)
        torch.testing.assert_close(ours()(cat), logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(used[5], attentions[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(used[11], attentions[1], atol=1e-5, rtol=0)
    assert (used[4] - ours()(coffee, return_attention=[4])[1][0]).abs().max() > 0.1


@torch.no_grad()
def test_shares_add_up_to_the_logit() -> None:
    shares = contributions(ours(), photos(), 3)
    assert shares.error.abs().max() < 1e-4
    torch.testing.assert_close(shares.logit, ours()(photos())[:, 3])
    assert shares.heads.abs().max() > 0.01


@torch.no_grad()
def test_heads_and_bias_add_up_to_the_attention() -> None:
    with record(ours(), "attention") as recording:
        ours()(photos())
    for block in range(12):
        heads, bias = attention_parts(ours(), photos(), block)
        torch.testing.assert_close(
            heads.sum(1) + bias, recording["attention", block], atol=1e-5, rtol=0
        )


@torch.no_grad()
def test_the_lens_ends_with_the_logits() -> None:
    rows = logit_lens(ours(), photos())
    assert torch.equal(rows[:, -1], ours()(photos()))


@torch.no_grad()
def test_each_part_is_ranked_by_what_its_loss_does() -> None:
    images = photos()[:1]
    ranking = rank_parts(ours(), images, 3)
    before = ours()(images).log_softmax(1)[0, 3]
    with intervene(ours(), heads={7: [4]}):
        head = ours()(images).log_softmax(1)[0, 3] - before
    with intervene(ours(), mlps=[2]):
        mlp = ours()(images).log_softmax(1)[0, 3] - before
    torch.testing.assert_close(ranking.heads[7, 4], head, atol=1e-5, rtol=0)
    torch.testing.assert_close(ranking.mlps[2], mlp, atol=1e-5, rtol=0)
