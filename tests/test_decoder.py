"""Decoder blocks against torch's own, all words at once against one after the other."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minivit.attention import KeyValueCache, causal_mask
from minivit.config import Activation
from minivit.decoder import DecoderBlock, DecoderCache
from tests.block_cases import CONFIG, B, D, H, M, N, padding, randomize


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_words_look_at_the_words_so_far_and_then_at_the_memory() -> None:
    """Three sums: causal self-attention, cross-attention, MLP."""
    block = DecoderBlock(CONFIG)
    randomize(block)
    x, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    h = x + block.attn(block.norm1(x), is_causal=True)[0]
    h = h + block.cross_attn(block.norm2(h), memory)[0]
    expected = h + block.mlp(block.norm3(h))
    torch.testing.assert_close(block(x, memory)[0], expected)


# ---- against torch.nn.TransformerDecoderLayer --------------------------------------------------


def twins(norm_first: bool, activation: Activation) -> tuple[DecoderBlock, nn.Module]:
    theirs = nn.TransformerDecoderLayer(
        D,
        H,
        dim_feedforward=CONFIG.hidden_dim,
        dropout=0.0,
        activation=activation,
        layer_norm_eps=CONFIG.layer_norm_eps,
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    config = replace(CONFIG, activation=activation, norm_first=norm_first)
    ours = DecoderBlock(config).double()
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
def test_decoder_block_is_torchs(norm_first: bool, activation: Activation, padded: bool) -> None:
    ours, theirs = twins(norm_first, activation)
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
def test_without_gradients_a_block_gives_the_same_and_leaves_its_inputs_alone(
    norm_first: bool,
) -> None:
    block = DecoderBlock(replace(CONFIG, norm_first=norm_first))
    randomize(block)
    inputs = torch.randn(B, N, D), torch.randn(B, M, D)
    before = [tensor.clone() for tensor in inputs]
    expected, _ = block(*inputs)
    with torch.no_grad():
        outputs = [block(*inputs)[0] for _ in range(2)]
    assert torch.equal(outputs[0], expected) and torch.equal(outputs[1], expected)
    assert all(map(torch.equal, inputs, before))


@pytest.mark.parametrize("option", ["dropout", "attention_dropout"])
def test_dropout_of_a_block_is_for_training(option: str) -> None:
    block = DecoderBlock(replace(CONFIG, **{option: 0.5}))
    inputs = torch.randn(B, N, D), torch.randn(B, M, D)
    assert not torch.equal(block(*inputs)[0], block(*inputs)[0])
    block.eval()
    assert torch.equal(block(*inputs)[0], block(*inputs)[0])


def test_positions_are_added_to_queries_and_keys_and_not_to_values() -> None:
    block = DecoderBlock(CONFIG)
    randomize(block)
    x, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    position, places = torch.randn(1, N, D), torch.randn(B, M, D)
    normed = block.norm1(x)
    placed = normed + position
    h = x + block.attn(placed, placed, normed, is_causal=True)[0]
    h = h + block.cross_attn(block.norm2(h) + position, memory + places, memory)[0]
    expected = h + block.mlp(block.norm3(h))
    output, _ = block(x, memory, position=position, memory_position=places)
    torch.testing.assert_close(output, expected)


def test_rows_are_rows_of_both_maps() -> None:
    block = DecoderBlock(CONFIG)
    x, memory = torch.randn(B, N, D), torch.randn(B, M, D)
    _, every = block(x, memory, need_weights=True)
    _, rows = block(x, memory, rows=[-1, 0])
    for some, whole in zip(rows, every, strict=True):
        torch.testing.assert_close(some, whole[:, :, [-1, 0]])


def test_layer_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer_scale is 0\.1, but a decoder block has no Layer"):
        DecoderBlock(replace(CONFIG, layer_scale=0.1))


def test_no_bias_means_no_bias_in_both_attentions() -> None:
    block = DecoderBlock(replace(CONFIG, qkv_bias=False))
    assert block.attn.qkv.bias is None and block.cross_attn.qkv.bias is None


def test_a_block_compiles_as_one_graph() -> None:
    block, x, memory = DecoderBlock(CONFIG).eval(), torch.randn(B, N, D), torch.randn(B, M, D)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    masks = {"key_mask": padding((3, 5), N), "memory_mask": padding((7, 2), M)}
    output, _ = compiled(x, memory, **masks)
    torch.testing.assert_close(output, block(x, memory, **masks)[0])


def test_arguments_of_before_are_still_taken() -> None:
    block, x, memory = DecoderBlock(CONFIG), torch.randn(B, N, D), torch.randn(B, M, D)
    words, cells = padding((3, 5), N), padding((7, 2), M)
    expected, _ = block(x, memory, key_mask=words, memory_mask=cells)
    with pytest.warns(DeprecationWarning, match="key_padding_mask is called key_mask now"):
        output, _ = block(x, memory, key_padding_mask=words, memory_mask=cells)
    assert torch.equal(output, expected)
    with pytest.warns(DeprecationWarning, match="memory_padding_mask is called memory_mask now"):
        output, _ = block(x, memory, key_mask=words, memory_padding_mask=cells)
    assert torch.equal(output, expected)
    with pytest.warns(DeprecationWarning, match="called rows") as warned:
        _, weights = block(x, memory, need_weights=[1])
    assert weights.cross_attention.shape == (B, H, 1, M) and len(warned) == 1


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
    block = DecoderBlock(replace(CONFIG, activation="relu", norm_first=norm_first))
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
        for some, every, keys in (
            (weights.self_attention, full_weights.self_attention, end),
            (weights.cross_attention, full_weights.cross_attention, M),
        ):
            torch.testing.assert_close(some, every[:, :, start:end, :keys], atol=1e-5, rtol=0)
    assert cache.self_attention.length == N and cache.cross_attention.length == M


def test_beams_go_on_from_the_beams_they_chose() -> None:
    block = DecoderBlock(CONFIG)
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


@pytest.mark.parametrize("options", [{}, {"need_weights": True}])
def test_beams_share_a_memory_as_if_each_had_a_copy(options: dict[str, bool]) -> None:
    block = DecoderBlock(CONFIG)
    randomize(block)
    x, memory = torch.randn(3 * B, N, D), torch.randn(B, M, D)
    cells = padding((7, 2), M)
    shared, weights = block(x, memory, memory_mask=cells, **options)
    copies = memory.repeat_interleave(3, dim=0), cells.repeat_interleave(3, dim=0)
    expected, expected_weights = block(x, copies[0], memory_mask=copies[1], **options)
    torch.testing.assert_close(shared, expected)
    if options:
        torch.testing.assert_close(weights.cross_attention, expected_weights.cross_attention)
    with pytest.raises(ValueError, match=r"chosen rows .* several beams: ask for all rows"):
        block(x, memory, rows=[0])
