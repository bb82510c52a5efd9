"""Blocks against torch's own transformer layers, and their parts one by one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minivit.attention import KeyValueCache, causal_mask
from minivit.blocks import (
    ACTIVATIONS,
    MLP,
    DecoderBlock,
    DecoderCache,
    DropPath,
    EncoderBlock,
    LayerScale,
    quick_gelu,
)

B, N, M, D, H = 2, 5, 7, 12, 3
OPTIONS = {"hidden_dim": 20, "layer_norm_eps": 1e-3}  # an epsilon that shows in the output


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randomize(module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.3)
            if "norm" in name and name.endswith("weight"):
                parameter += 1.0


def padding(lengths: tuple[int, int], size: int) -> Tensor:
    """(B, size), True = a real token."""
    return torch.arange(size) < torch.tensor(lengths)[:, None]


# ---- against torch.nn.TransformerEncoderLayer --------------------------------------------------


def encoder_twins(norm_first: bool, activation: str) -> tuple[EncoderBlock, nn.Module]:
    theirs = nn.TransformerEncoderLayer(
        D,
        H,
        dim_feedforward=OPTIONS["hidden_dim"],
        dropout=0.0,
        activation=activation,
        layer_norm_eps=OPTIONS["layer_norm_eps"],
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    ours = EncoderBlock(D, H, activation=activation, norm_first=norm_first, **OPTIONS).double()
    randomize(theirs)
    ours.load_state_dict(
        {
            "norm1.weight": theirs.norm1.weight,
            "norm1.bias": theirs.norm1.bias,
            "attn.qkv.weight": theirs.self_attn.in_proj_weight,
            "attn.qkv.bias": theirs.self_attn.in_proj_bias,
            "attn.proj.weight": theirs.self_attn.out_proj.weight,
            "attn.proj.bias": theirs.self_attn.out_proj.bias,
            "norm2.weight": theirs.norm2.weight,
            "norm2.bias": theirs.norm2.bias,
            "mlp.fc1.weight": theirs.linear1.weight,
            "mlp.fc1.bias": theirs.linear1.bias,
            "mlp.fc2.weight": theirs.linear2.weight,
            "mlp.fc2.bias": theirs.linear2.bias,
        }
    )
    return ours, theirs


@pytest.mark.parametrize("masked", ["none", "padding", "boolean", "causal", "causal and padding"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_block_is_torchs(norm_first: bool, activation: str, masked: str) -> None:
    ours, theirs = encoder_twins(norm_first, activation)
    x = torch.randn(B, N, D, dtype=torch.float64)
    mask = None
    if masked == "boolean":
        mask = torch.rand(N, N) > 0.4
        mask[:, 0] = True
    keys = padding((3, 5), N) if "padding" in masked else None
    their_mask = causal_mask(N, N) if "causal" in masked else mask
    expected = theirs(
        x,
        src_mask=None if their_mask is None else ~their_mask,
        src_key_padding_mask=None if keys is None else ~keys,
    )
    normed = theirs.norm1(x) if norm_first else x
    _, expected_weights = theirs.self_attn(
        normed,
        normed,
        normed,
        attn_mask=None if their_mask is None else ~their_mask,
        key_padding_mask=None if keys is None else ~keys,
        average_attn_weights=False,
    )
    arguments = {"mask": mask, "key_mask": keys, "is_causal": "causal" in masked}
    output, none = ours(x, **arguments)
    assert none is None
    torch.testing.assert_close(output, expected)
    output, weights = ours(x, **arguments, need_weights=True)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights, expected_weights)
    output, rows = ours(x, **arguments, need_weights=[-1, 0])
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(rows, expected_weights[:, :, [-1, 0]])


# ---- against torch.nn.TransformerDecoderLayer --------------------------------------------------


def decoder_twins(norm_first: bool, activation: str) -> tuple[DecoderBlock, nn.Module]:
    theirs = nn.TransformerDecoderLayer(
        D,
        H,
        dim_feedforward=OPTIONS["hidden_dim"],
        dropout=0.0,
        activation=activation,
        layer_norm_eps=OPTIONS["layer_norm_eps"],
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    ours = DecoderBlock(D, H, activation=activation, norm_first=norm_first, **OPTIONS).double()
    randomize(theirs)
    weights = {}
    for our_name, their_name in (
        ("norm1", "norm1"),
        ("norm2", "norm2"),
        ("norm3", "norm3"),
        ("mlp.fc1", "linear1"),
        ("mlp.fc2", "linear2"),
        ("attn.proj", "self_attn.out_proj"),
        ("cross_attn.proj", "multihead_attn.out_proj"),
    ):
        module = theirs.get_submodule(their_name)
        weights |= {f"{our_name}.{key}": value for key, value in module.state_dict().items()}
    for our_name, attention in (("attn", theirs.self_attn), ("cross_attn", theirs.multihead_attn)):
        weights[f"{our_name}.qkv.weight"] = attention.in_proj_weight
        weights[f"{our_name}.qkv.bias"] = attention.in_proj_bias
    ours.load_state_dict(weights)
    return ours, theirs


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_block_is_torchs(norm_first: bool, activation: str, padded: bool) -> None:
    ours, theirs = decoder_twins(norm_first, activation)
    x = torch.randn(B, N, D, dtype=torch.float64)
    memory = torch.randn(B, M, D, dtype=torch.float64)
    words = padding((3, 5), N) if padded else None
    cells = padding((7, 2), M) if padded else None
    expected = theirs(
        x,
        memory,
        tgt_mask=~causal_mask(N, N),
        tgt_key_padding_mask=None if words is None else ~words,
        memory_key_padding_mask=None if cells is None else ~cells,
    )
    arguments = {"key_mask": words, "memory_mask": cells}
    output, nothing = ours(x, memory, **arguments)
    assert nothing == (None, None)
    torch.testing.assert_close(output, expected)
    output, weights = ours(x, memory, **arguments, need_weights=True)
    torch.testing.assert_close(output, expected)

    # The cross-attention of torch's layer asks with what came out of its self-attention.
    if norm_first:
        asking = x + theirs._sa_block(theirs.norm1(x), ~causal_mask(N, N), _inverse(words))
        asking = theirs.norm2(asking)
    else:
        asking = theirs.norm1(x + theirs._sa_block(x, ~causal_mask(N, N), _inverse(words)))
    _, expected_weights = theirs.multihead_attn(
        asking, memory, memory, key_padding_mask=_inverse(cells), average_attn_weights=False
    )
    torch.testing.assert_close(weights.cross_attention, expected_weights)
    normed = theirs.norm1(x) if norm_first else x
    _, expected_weights = theirs.self_attn(
        normed,
        normed,
        normed,
        attn_mask=~causal_mask(N, N),
        key_padding_mask=_inverse(words),
        average_attn_weights=False,
    )
    torch.testing.assert_close(weights.self_attention, expected_weights)


def _inverse(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else ~mask


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_without_gradients_a_block_gives_the_same_and_leaves_its_inputs_alone(
    kind: str, norm_first: bool
) -> None:
    options = OPTIONS | {"activation": "gelu", "norm_first": norm_first}
    block = EncoderBlock(D, H, **options) if kind == "encoder" else DecoderBlock(D, H, **options)
    randomize(block)
    inputs = [torch.randn(B, N, D) for _ in range(1 if kind == "encoder" else 2)]
    before = [tensor.clone() for tensor in inputs]
    expected, _ = block(*inputs)
    with torch.no_grad():
        outputs = [block(*inputs)[0] for _ in range(2)]
    assert torch.equal(outputs[0], expected) and torch.equal(outputs[1], expected)
    assert all(torch.equal(one, two) for one, two in zip(inputs, before, strict=True))


def test_what_a_hook_kept_stays_what_it_was() -> None:
    block = EncoderBlock(D, H, activation="gelu", **OPTIONS)
    randomize(block)
    x = torch.randn(B, N, D)
    kept = []
    block.attn.register_forward_hook(lambda _module, _inputs, output: kept.append(output[0]))
    block.mlp.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    block(x)
    with torch.no_grad():
        block(x)
    torch.testing.assert_close(kept[2:], kept[:2])


# ---- step by step ------------------------------------------------------------------------------


def new_cache(batch_size: int, length: int) -> DecoderCache:
    return DecoderCache(
        KeyValueCache(batch_size, H, length, D // H), KeyValueCache(batch_size, H, M, D // H)
    )


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    ends=st.sets(st.integers(1, N - 1)),
    norm_first=st.booleans(),
)
def test_decoding_in_steps_is_decoding_at_once(seed: int, ends: set[int], norm_first: bool) -> None:
    torch.manual_seed(seed)
    block = DecoderBlock(D, H, activation="relu", norm_first=norm_first, **OPTIONS)
    randomize(block)
    x, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    cells = padding((7, 4), M)
    full, full_weights = block(x, memory, memory_mask=cells, need_weights=True)
    cache = new_cache(B, N)
    borders = [0, *sorted(ends), N]
    for start, end in itertools.pairwise(borders):
        output, weights = block(
            x[:, start:end], memory, memory_mask=cells, cache=cache, need_weights=True
        )
        torch.testing.assert_close(output, full[:, start:end], atol=1e-5, rtol=0)
        for found, expected, keys in (
            (weights.self_attention, full_weights.self_attention, end),
            (weights.cross_attention, full_weights.cross_attention, M),
        ):
            torch.testing.assert_close(found, expected[:, :, start:end, :keys], atol=1e-5, rtol=0)
    assert cache.self_attention.length == N and cache.cross_attention.length == M


def test_beams_go_on_from_the_beams_they_chose() -> None:
    block = DecoderBlock(D, H, activation="gelu", **OPTIONS)
    randomize(block)
    memory = torch.randn(1, M, D).expand(3, -1, -1)
    past, new = torch.randn(3, 4, D), torch.randn(3, 1, D)
    beams = torch.tensor([2, 0, 2])
    cache = new_cache(3, 5)
    with torch.no_grad():
        block(past, memory, cache=cache)
        cache.reorder(beams)
        output, _ = block(new, memory, cache=cache)
        expected, _ = block(torch.cat([past[beams], new], dim=1), memory)
    torch.testing.assert_close(output, expected[:, 4:], atol=1e-5, rtol=0)


# ---- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [("gelu", nn.GELU()), ("gelu_tanh", nn.GELU(approximate="tanh")), ("relu", nn.ReLU())],
)
def test_activations_are_torchs(name: str, module: nn.Module) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name](x), module(x))


@pytest.mark.parametrize("x", [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0])
def test_activations_are_their_formulas(x: float) -> None:
    """The three GELUs differ by up to 0.02: enough to spoil a logit, too little to see."""
    tanh = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    expected = {
        "gelu": x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + tanh) / 2,
        "quick_gelu": x / (1 + math.exp(-1.702 * x)),
        "relu": max(x, 0.0),
    }
    assert expected.keys() == ACTIVATIONS.keys() - {"swiglu"}
    for name, value in expected.items():
        found = ACTIVATIONS[name](torch.tensor(x, dtype=torch.float64)).item()
        assert found == pytest.approx(value, abs=1e-12)


def test_swiglu_gates_the_second_half_with_the_first() -> None:
    x = torch.tensor([0.5, -2.0, 3.0, 7.0], dtype=torch.float64)
    gate = [0.5 / (1 + math.exp(-0.5)), -2.0 / (1 + math.exp(2.0))]
    expected = torch.tensor([gate[0] * 3.0, gate[1] * 7.0], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS["swiglu"](x), expected)
    mlp = MLP(D, 20, activation="swiglu")
    assert mlp.fc1.weight.shape == (40, D) and mlp.fc2.weight.shape == (D, 20)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_an_mlp_uses_the_activation_it_was_asked_for(name: str) -> None:
    mlp = MLP(D, 20, activation=name)
    x = torch.randn(B, N, D)
    hidden = ACTIVATIONS[name](F.linear(x, mlp.fc1.weight, mlp.fc1.bias))
    torch.testing.assert_close(mlp(x), F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias))


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'swish': choose from gelu, gelu_tanh, quick_gelu, relu"):
        MLP(D, 20, activation="swish")


def test_mlp_drops_hidden_units_in_training_only() -> None:
    mlp = MLP(D, 20, activation="gelu", dropout=0.5)
    x = torch.randn(B, N, D)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_drop_path_drops_whole_samples_and_keeps_the_mean(probability: float) -> None:
    count = 20_000
    x = torch.rand(count, 2, 3) + 1.0
    output = DropPath(probability).train()(x)
    dropped = (output == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    dropped = dropped.all(1)
    torch.testing.assert_close(output[~dropped], x[~dropped] / (1 - probability))
    spread = math.sqrt(probability * (1 - probability) / count)
    assert dropped.float().mean().item() == pytest.approx(probability, abs=4 * spread)


def test_drop_path_does_nothing_in_eval_or_at_probability_zero() -> None:
    x = torch.randn(3, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_drop_path_refuses_what_is_no_probability(probability: float) -> None:
    with pytest.raises(ValueError, match=f"{probability}"):
        DropPath(probability)


def test_both_branches_of_a_block_are_dropped_independently() -> None:
    block = EncoderBlock(D, H, activation="gelu", drop_path=0.5, **OPTIONS)
    randomize(block)
    x = torch.randn(1, N, D).expand(64, -1, -1)
    with torch.no_grad():
        output, _ = block(x)
    kinds = {tuple(sample.flatten()[:4].tolist()) for sample in output}
    assert len(kinds) == 4  # both branches, one of them, the other, none
    assert tuple(x[0].flatten()[:4].tolist()) in kinds


@pytest.mark.parametrize("norm_first", [False, True])
def test_layer_scale_scales_the_ends_of_both_branches(norm_first: bool) -> None:
    block = EncoderBlock(
        D, H, activation="gelu", norm_first=norm_first, layer_scale=0.25, **OPTIONS
    )
    assert torch.equal(block.ls1.gamma, torch.full((D,), 0.25))
    plain = EncoderBlock(D, H, activation="gelu", norm_first=norm_first, **OPTIONS)
    randomize(block)
    weights = {name: value for name, value in block.state_dict().items() if "gamma" not in name}
    for scale, end in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
        gamma = block.state_dict()[scale]
        weights[f"{end}.weight"] = gamma[:, None] * weights[f"{end}.weight"]
        weights[f"{end}.bias"] = gamma * weights[f"{end}.bias"]
    plain.load_state_dict(weights)
    x = torch.randn(B, N, D)
    torch.testing.assert_close(block(x)[0], plain(x)[0])


def test_layer_scale_has_a_factor_a_channel() -> None:
    scale = LayerScale(3, 1e-5)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert scale(torch.ones(1, 2, 3)).tolist() == [[[1.0, 2.0, 3.0]] * 2]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("option", ["dropout", "attention_dropout"])
def test_dropout_of_a_block_is_for_training(kind: str, option: str) -> None:
    options = OPTIONS | {"activation": "gelu", option: 0.5}
    block = EncoderBlock(D, H, **options) if kind == "encoder" else DecoderBlock(D, H, **options)
    inputs = (torch.randn(B, N, D),) if kind == "encoder" else torch.randn(2, B, N, D).unbind()
    assert not torch.equal(block(*inputs)[0], block(*inputs)[0])
    block.eval()
    assert torch.equal(block(*inputs)[0], block(*inputs)[0])


def test_quick_gelu_is_not_gelu() -> None:
    x = torch.linspace(-3, 3, 61)
    assert 0.01 < (quick_gelu(x) - F.gelu(x)).abs().max() < 0.03
