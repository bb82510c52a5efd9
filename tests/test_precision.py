"""Weights that are asked for in half precision, against float64, for scores as trained ones.

The tokens that a layer is given are the same here for both. What half precision made of them before
is measured on real weights (`tests/test_real.py`).
"""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import minivit
from minivit.attention import KeyValueCache, MultiHeadAttention, explicit_attention
from minivit.config import ViTConfig
from minivit.cpu import Linear
from minivit.precision import is_rounded
from minivit.vit import VisionTransformer
from tests.attention_cases import WAYS

B, N, M, D, H = 2, 150, 140, 64, 4
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = [*HALVES, "autocast"]
EXACT = 1e-3  # largest error of a weight; 1e-2 is promised, 1e-5 to 5e-5 were seen


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def sharp_layer() -> MultiHeadAttention:
    """A layer whose scores reach 300, most of it from a vector that all keys share."""
    layer = MultiHeadAttention(D, H).eval()
    with torch.no_grad():
        layer.qkv.weight[: 2 * D].normal_(std=1.4 / math.sqrt(D))
        layer.qkv.bias[:D].normal_(std=5.0)
        layer.qkv.bias[D : 2 * D].normal_(std=15.0)
    return layer


def in_mode(mode: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()


def converted(mode: str, *things: Any) -> list[Any]:
    """Copies of a layer and its tokens as they are in this mode."""
    dtype = HALVES.get(mode, torch.float32)
    return [None if thing is None else copy.deepcopy(thing).to(dtype) for thing in things]


def make_tokens(kind: str) -> list[Tensor | None]:
    """Query, key and value, as an encoder, DETR and a decoder give them."""
    query, key, value = torch.randn(B, N, D), torch.randn(B, M, D), torch.randn(B, M, D)
    match kind:
        case "self":
            return [query, None, None]
        case "self, with positions":
            return [query, None, value[:, :1].expand(B, N, D)]
        case "cross":
            return [query, key, None]
    return [query, key, value]


KINDS = ("self", "self, with positions", "cross", "cross, values of their own")
MASKS = ("none", "keys", "boolean", "additive", "causal")


def make_mask(kind: str, num_keys: int) -> dict[str, Any]:
    match kind:
        case "keys":
            return {"key_mask": torch.rand(B, num_keys) > 0.3}
        case "boolean":
            return {"mask": torch.rand(B, H, N, num_keys) > 0.3}
        case "additive":
            return {"mask": 30 * torch.randn(N, num_keys)}
        case "causal":
            return {"is_causal": True, "key_mask": torch.rand(B, num_keys) > 0.1}
    return {}


def exact(layer: MultiHeadAttention, tokens: list[Any], **options: Any) -> tuple[Tensor, Tensor]:
    """The same in float64."""
    if (mask := options.get("mask")) is not None and mask.dtype != torch.bool:
        options = {**options, "mask": mask.double()}
    wide = [None if each is None else each.double() for each in tokens]
    output, weights = copy.deepcopy(layer).double()(*wide, **options, need_weights=True)
    return output, weights


def test_the_layer_of_these_tests_is_as_sharp_as_trained_ones() -> None:
    layer, x = sharp_layer(), torch.randn(B, N, D)
    q, k, _ = layer._project(x, None, None, None)
    scores = q @ k.transpose(-2, -1) / math.sqrt(D / H)
    assert scores.abs().max() > 300
    _, weights = layer(x, need_weights=True)
    strongest = weights.amax(-1)
    assert strongest.median() < 0.9 and strongest.max() > 0.999  # many weights, and single ones


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_weights_are_those_of_exact_arithmetic(mode: str, kind: str, mask: str) -> None:
    layer, *tokens = converted(mode, sharp_layer(), *make_tokens(kind))
    options = make_mask(mask, N if tokens[1] is None else M)
    _, expected = exact(layer, tokens, **options)
    asked = [0, -1, 7]
    with in_mode(mode):
        plain, _ = layer(*tokens, **options)
        output, weights = layer(*tokens, **options, need_weights=True)
        beside, rows = layer(*tokens, **options, rows=asked)
    assert weights.dtype == rows.dtype == torch.float32
    assert (weights - expected).abs().max() < EXACT
    assert (rows - expected[:, :, asked]).abs().max() < EXACT
    assert (
        plain.dtype
        == output.dtype
        == (torch.bfloat16 if mode == "autocast" else layer.qkv.weight.dtype)
    )
    assert torch.equal(beside, plain)


@pytest.mark.parametrize("mode", MODES)
def test_the_output_is_made_of_the_returned_weights(mode: str) -> None:
    """So it is nearer to exact arithmetic than a plain run's, and has gradients for them."""
    layer, x = converted(mode, sharp_layer(), torch.randn(B, N, D))
    expected, _ = exact(layer, [x])
    with in_mode(mode):
        output, weights = layer(x, need_weights=True)
        plain, _ = layer(x)
    error, plain_error = ((each - expected).abs().mean() for each in (output, plain))
    assert error < 0.02 and error < plain_error
    (gradient,) = torch.autograd.grad(output.float().square().sum(), weights)
    assert gradient.dtype == torch.float32 and gradient.abs().amax(-1).min() > 0


@pytest.mark.parametrize("way", ["all", "rows"])
def test_gradients_of_weights_under_autocast_are_those_of_float32(way: str) -> None:
    layer = sharp_layer()
    x = torch.randn(B, 9, D, requires_grad=True)
    learned = (x, layer.qkv.weight)
    gradients = []
    for mode in ("autocast", "float32"):
        with in_mode(mode):
            _, weights = layer(x, **WAYS[way])
        gradients.append(torch.autograd.grad(weights.float().square().sum(), learned))
    for ours, expected in zip(*gradients, strict=True):
        assert (ours - expected).norm() < 1e-3 * expected.norm()


@torch.no_grad()
def test_rows_cost_next_to_nothing() -> None:
    """Neither K of all tokens nor anything else is computed again for them."""
    layer, x = converted("bfloat16", sharp_layer(), torch.randn(B, N, D))

    def operations(**way: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            layer(x, **way)
        return counter.get_total_flops()

    assert operations(rows=[0]) < 1.05 * operations()


@torch.no_grad()
def test_what_a_hook_or_another_layer_makes_of_q_and_k_is_in_the_weights() -> None:
    layer, x = converted("bfloat16", sharp_layer(), torch.randn(B, N, D))
    untouched = layer(x, rows=[0])[1]
    swap = torch.cat([torch.arange(D, 2 * D), torch.arange(D), torch.arange(2 * D, 3 * D)])
    turned = copy.deepcopy(layer)
    turned.qkv.weight.copy_(layer.qkv.weight[swap])
    turned.qkv.bias.copy_(layer.qkv.bias[swap])
    expected = turned(x, rows=[0])[1]

    class Swapped(Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input)[..., swap]

    hooked, replaced = copy.deepcopy(layer), copy.deepcopy(layer)
    hooked.qkv.register_forward_hook(lambda _m, _i, output: output[..., swap])
    replaced.qkv = Swapped(D, 3 * D).bfloat16()
    replaced.qkv.load_state_dict(layer.qkv.state_dict())
    for other in (hooked, replaced):
        for way in ({"rows": [0]}, {"need_weights": True}):
            weights = other(x, **way)[1][:, :, :1]
            assert (weights - expected).abs().mean() < 0.1 * (untouched - expected).abs().mean()
    assert torch.equal(layer(x, rows=[0])[1], untouched)
    assert is_rounded(layer.qkv) and not is_rounded(copy.deepcopy(layer.qkv).float())


@torch.no_grad()
def test_of_cached_keys_the_products_are_exact() -> None:
    """The keys were rounded when they were cached."""
    layer, x = converted("bfloat16", sharp_layer(), torch.randn(B, 9, D))
    q, k, v = layer._project(x, None, None, None)
    cache = KeyValueCache(B, H, 9, D // H, dtype=torch.bfloat16)
    _, weights = layer(x, cache=cache, need_weights=True)
    expected = explicit_attention(q.double(), k.double(), v.double())[1]
    assert weights.dtype == torch.float32
    assert (weights - expected).abs().max() < EXACT


@pytest.mark.parametrize("mode", ["bfloat16", "autocast"])
@torch.no_grad()
def test_logits_beside_rows_are_those_of_a_plain_run(mode: str) -> None:
    """Also on many tokens, which are served entry by entry where bfloat16 is fast."""
    sizes: dict[str, Any] = {"dim": 32, "depth": 2, "num_heads": 2, "hidden_dim": 64}
    config = ViTConfig(
        image_size=(96, 144),
        patch_size=(8, 8),
        num_classes=5,
        activation="gelu",
        layer_norm_eps=1e-6,
        **sizes,
    )
    model, images = converted(mode, VisionTransformer(config).eval(), torch.randn(2, 3, 96, 144))
    torch.nn.init.normal_(model.head.weight)
    with in_mode(mode):
        plain = model(images)
        logits, rows = model(images, return_attention=minivit.AttentionRows([0, 1], [0]))
        _, attentions = model(images, return_attention=True)
    assert torch.equal(logits, plain)
    for block, row in enumerate(rows):
        assert row.dtype == torch.float32
        tolerance = 1e-5 if block == 0 else 1e-2  # with all weights, block 0 gave other tokens
        torch.testing.assert_close(row, attentions[block][:, :, :1], atol=tolerance, rtol=0)


@torch.no_grad()
def test_shapes_can_be_had_without_numbers() -> None:
    """On the meta device, for which there is no autocast."""
    layer = sharp_layer().bfloat16().to("meta")
    x = torch.empty(B, N, D, dtype=torch.bfloat16, device="meta")
    assert layer(x, need_weights=True)[1].shape == (B, H, N, N)
    assert layer(x, rows=[0, 3])[1].shape == (B, H, 2, N)
