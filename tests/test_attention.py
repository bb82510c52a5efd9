"""Attention against torch's own, the two paths against each other, and what must hold always.

The variants that are faster on a CPU are held to it in test_cpu.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import minivit
from minivit.attention import (
    KeyValueCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    merge_masks,
    plain_attention,
    scaled_dot_product_attention,
)
from tests.attention_cases import KINDS, WAYS, B, H, M, N, d, make_mask, qkv


def test_attention_is_a_softmax_over_keys_and_a_mean_of_values() -> None:
    """By hand: one query of width 4, so that √d = 2, and two keys."""
    query = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    key = torch.tensor([[0.0, 5.0, 0.0, 0.0], [math.log(3), 0.0, 7.0, 0.0]])
    value = torch.tensor([[8.0], [4.0]])
    # scores 0 and log 3, so the second key gets three times the weight of the first
    output, weights = plain_attention(query, key, value)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(output, torch.tensor([[0.25 * 8.0 + 0.75 * 4.0]]))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# ---- the equation ------------------------------------------------------------------------------


def test_weights_are_the_softmax_of_the_scaled_scores() -> None:
    query, key, value = qkv(dtype=torch.float64)
    output, weights = scaled_dot_product_attention(query, key, value, need_weights=True)
    assert weights is not None and weights.shape == (B, H, N, M)
    for b, h, n in itertools.product(range(B), range(H), range(N)):
        scores = [sum(query[b, h, n] * key[b, h, m]).item() / 2 for m in range(M)]  # √d = 2
        powers = torch.tensor(scores, dtype=torch.float64).exp()
        expected = powers / powers.sum()
        torch.testing.assert_close(weights[b, h, n], expected)
        torch.testing.assert_close(
            output[b, h, n], sum(expected[m] * value[b, h, m] for m in range(M))
        )


def test_weights_are_given_only_when_asked_for() -> None:
    assert scaled_dot_product_attention(*qkv())[1] is None
    attention = MultiHeadAttention(8, 2)
    assert attention(torch.randn(B, N, 8))[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (N, M), (1, M)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_are_one_function(kind: str, n: int, m: int, dtype: torch.dtype) -> None:
    """The fused kernel and the explicit equation, with gradients and without."""
    query, key, value = qkv(n, m, dtype)
    mask, is_causal = make_mask(kind, n, m, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    results = []
    for recorded in (False, True):
        inputs = [tensor.clone().requires_grad_(recorded) for tensor in (query, key, value)]
        for need_weights in (False, True):
            output, _ = scaled_dot_product_attention(
                *inputs, mask=mask, is_causal=is_causal, need_weights=need_weights
            )
            assert output.dtype == dtype
            gradients = torch.autograd.grad(output.sin().sum(), inputs) if recorded else None
            results.append((output.detach(), gradients))
    for output, gradients in results[1:]:
        torch.testing.assert_close(output, results[0][0], atol=tolerance, rtol=0)
        if gradients is not None:
            torch.testing.assert_close(gradients, results[2][1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_weights_sum_to_one_and_explain_the_output(kind: str) -> None:
    query, key, value = qkv(6, 6)
    mask, is_causal = make_mask(kind, 6, 6)
    fused, _ = scaled_dot_product_attention(query, key, value, mask=mask, is_causal=is_causal)
    _, weights = scaled_dot_product_attention(
        query, key, value, mask=mask, is_causal=is_causal, need_weights=True
    )
    assert weights is not None
    torch.testing.assert_close(weights @ value, fused, atol=1e-5, rtol=0)
    sums = weights.sum(-1)
    blind = torch.zeros_like(sums, dtype=torch.bool)
    if kind == "some queries see nothing":
        blind[0, :, 3] = True
    if kind == "one picture sees nothing":
        blind[1] = True
    torch.testing.assert_close(sums, (~blind).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("way", [{}, {"need_weights": True}, {"rows": [2]}])
def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(
    way: dict[str, Any], additive: bool
) -> None:
    """In the fused kernel too, and the weights' own gradients are finite as well."""
    mask, _ = make_mask("some queries see nothing")
    assert mask is not None
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    inputs = [tensor.requires_grad_() for tensor in qkv()]
    output, weights = scaled_dot_product_attention(*inputs, mask=mask, **way)
    assert output[0, :, 2].count_nonzero() == 0 and output[0, :, 1].count_nonzero() == H * d
    if weights is not None:
        assert weights[0, :, 0 if "rows" in way else 2].count_nonzero() == 0
        assert weights[1].count_nonzero() > 0
    total = output.sin().sum() + (0 if weights is None else weights.sin().sum())
    for gradient in torch.autograd.grad(total, inputs):
        assert gradient.isfinite().all()
    with torch.no_grad():  # the in-place variant of the explicit path
        again, _ = scaled_dot_product_attention(*inputs, mask=mask, **way)
    assert again[0, :, 2].count_nonzero() == 0


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 7), (1, 4)])
def test_causal_means_that_the_last_query_sees_the_last_key(n: int, m: int) -> None:
    query, key, value = qkv(n, m)
    _, weights = scaled_dot_product_attention(query, key, value, is_causal=True, need_weights=True)
    assert weights is not None
    for i, j in itertools.product(range(n), range(m)):
        assert bool((weights[..., i, j] > 0).all()) == (j <= i + m - n)
    assert torch.equal(causal_mask(n, m), weights[0, 0] > 0)


@pytest.mark.parametrize("first", ["boolean", "keys", "additive", "additive with -inf"])
@pytest.mark.parametrize("second", ["boolean", "keys", "additive", "additive with -inf"])
def test_merged_masks_let_through_what_both_let_through(first: str, second: str) -> None:
    masks = make_mask(first)[0], make_mask(second)[0]
    merged = merge_masks(*masks)
    assert merged is not None

    def added(mask: Tensor | None) -> Tensor:
        assert mask is not None
        return mask if mask.dtype != torch.bool else torch.where(mask, 0.0, -torch.inf)

    expected = added(masks[0]) + added(masks[1])
    torch.testing.assert_close(added(merged), expected)
    assert merge_masks(masks[0], None) is masks[0] and merge_masks(None, masks[1]) is masks[1]
    assert merge_masks(None, None) is None


def test_a_mask_may_be_of_another_precision() -> None:
    """Masks are often made once, in float32, while the model runs in another precision."""
    mask = torch.randn(N, M)
    for dtype, recorded in itertools.product((torch.float64, torch.bfloat16), (False, True)):
        inputs = [tensor.to(dtype).requires_grad_(recorded) for tensor in qkv()]
        fused, _ = scaled_dot_product_attention(*inputs, mask=mask)
        output, weights = scaled_dot_product_attention(*inputs, mask=mask, need_weights=True)
        _, rows = scaled_dot_product_attention(*inputs, mask=mask, rows=[0])
        assert weights is not None and rows is not None
        assert fused.dtype == output.dtype == dtype
        assert weights.dtype == rows.dtype == torch.promote_types(dtype, torch.float32)
        tolerance = 1e-12 if dtype == torch.float64 else 3e-2
        torch.testing.assert_close(output, fused, atol=tolerance, rtol=0)


# ---- against torch.nn.MultiheadAttention -------------------------------------------------------

D = H * d


def twins(**options: float) -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    """Ours and torch's, with the same weights."""
    ours = MultiHeadAttention(D, H, **options).double()  # type: ignore[arg-type]
    theirs = nn.MultiheadAttention(D, H, batch_first=True, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    return ours, theirs


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("mask_kind", ["none", "boolean", "a head each", "additive", "causal"])
@pytest.mark.parametrize("who", ["self", "cross", "cross, values of their own"])
def test_multi_head_attention_is_torchs(who: str, mask_kind: str, padded: bool) -> None:
    ours, theirs = twins()
    m = N if who == "self" else M
    query, key, value = (torch.randn(B, length, D, dtype=torch.float64) for length in (N, m, m))
    tokens = {"self": (query,), "cross": (query, key)}.get(who, (query, key, value))
    triple = {"self": (query, query, query), "cross": (query, key, key)}.get(who, tokens)

    mask, their_mask = None, None  # torch's boolean masks say who is ignored
    if mask_kind == "boolean":
        mask, _ = make_mask("boolean, two dimensions", N, m)
        their_mask = ~mask  # type: ignore[operator]
    elif mask_kind == "a head each":
        mask, _ = make_mask("boolean, a head each", N, m)
        their_mask = ~mask.flatten(0, 1)  # type: ignore[union-attr]
    elif mask_kind == "additive":
        mask = torch.randn(N, m, dtype=torch.float64)
        their_mask = mask
    elif mask_kind == "causal":
        their_mask = ~causal_mask(N, m)
    keys = None
    if padded:
        keys = torch.ones(B, m, dtype=torch.bool)
        keys[0, 3:] = keys[1, 4:] = False
        if their_mask is not None and their_mask.dtype != torch.bool:
            their_keys = torch.zeros(B, m, dtype=torch.float64).masked_fill(~keys, -torch.inf)
        else:
            their_keys = ~keys

    ours_arguments = {
        "mask": mask,
        "key_mask": keys,
        "is_causal": mask_kind == "causal",
    }
    output, weights = ours(*tokens, **ours_arguments, need_weights=True)
    fused, _ = ours(*tokens, **ours_arguments)
    expected, expected_weights = theirs(
        *triple,
        attn_mask=their_mask,
        key_padding_mask=their_keys if padded else None,
        average_attn_weights=False,
    )
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(weights, expected_weights)


def test_values_may_be_given_without_keys() -> None:
    ours, theirs = twins()
    query, value = torch.randn(2, B, N, D, dtype=torch.float64)
    output, _ = ours(query, value=value)
    torch.testing.assert_close(output, theirs(query, query, value)[0])


def test_no_bias_means_no_bias_in_q_k_and_v() -> None:
    attention = MultiHeadAttention(D, H, qkv_bias=False)
    assert attention.qkv.bias is None and attention.proj.bias is not None
    x = torch.randn(B, N, D)
    for tokens in ((x,), (x, torch.randn(B, M, D))):
        output, weights = attention(*(0 * t for t in tokens), need_weights=True)
        torch.testing.assert_close(output, attention.proj.bias.expand_as(output))
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / weights.shape[-1]))


@pytest.mark.parametrize(("dim", "num_heads"), [(10, 3), (8, 0), (4, 8)])
def test_heads_that_do_not_share_the_width_evenly_are_refused(dim: int, num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"num_heads is {num_heads} and the width is {dim}"):
        MultiHeadAttention(dim, num_heads)


@pytest.mark.parametrize("recorded", [False, True])
def test_bfloat16_autocast_serves_both_paths(recorded: bool) -> None:
    attention = MultiHeadAttention(D, H)
    x = torch.randn(B, N, D)
    exact, exact_weights = attention(x, need_weights=True)
    with torch.set_grad_enabled(recorded), torch.autocast("cpu", dtype=torch.bfloat16):
        fused, _ = attention(x, is_causal=False)
        output, weights = attention(x, need_weights=True)
        beside, rows = attention(x, rows=[0, 2])
        masked = attention(x, mask=torch.zeros(N, N), need_weights=True)[0]
    assert fused.dtype == output.dtype == beside.dtype == torch.bfloat16
    assert torch.equal(beside, fused)
    for result in (fused, output, masked):
        torch.testing.assert_close(result.float(), exact, atol=2e-2, rtol=0)
    torch.testing.assert_close(weights.float(), exact_weights, atol=1e-2, rtol=0)
    torch.testing.assert_close(rows.float(), exact_weights[:, :, [0, 2]], atol=1e-2, rtol=0)
    if recorded:
        (output.float().sum() + rows.float().square().sum()).backward()
        assert attention.qkv.weight.grad is not None
        assert attention.qkv.weight.grad.isfinite().all()


# ---- rows beside the fused kernel --------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_full_map_and_the_output_is_that_of_a_plain_run(
    kind: str, recorded: bool
) -> None:
    asked = [0, -1, 3, 3, -6]
    inputs = [tensor.requires_grad_(recorded) for tensor in qkv(6, 6)]
    mask, is_causal = make_mask(kind, 6, 6)
    options = {"mask": mask, "is_causal": is_causal}
    plain, _ = scaled_dot_product_attention(*inputs, **options)  # type: ignore[arg-type]
    _, full = scaled_dot_product_attention(*inputs, **options, need_weights=True)  # type: ignore[arg-type]
    output, rows = scaled_dot_product_attention(*inputs, **options, rows=asked)  # type: ignore[arg-type]
    assert torch.equal(output, plain)
    assert full is not None and rows is not None and rows.shape == (B, H, len(asked), 6)
    torch.testing.assert_close(rows, full[:, :, [0, 5, 3, 3, 0]], atol=1e-6, rtol=0)
    assert rows.requires_grad == recorded


@pytest.mark.parametrize(("n", "m"), [(3, 7), (1, 7)])
def test_rows_of_a_causal_map_that_is_not_square(n: int, m: int) -> None:
    inputs = qkv(n, m)
    _, full = scaled_dot_product_attention(*inputs, is_causal=True, need_weights=True)
    _, rows = scaled_dot_product_attention(*inputs, is_causal=True, rows=[-1])
    assert full is not None and rows is not None
    torch.testing.assert_close(rows, full[:, :, -1:], atol=1e-6, rtol=0)


def test_no_rows_are_an_empty_map() -> None:
    _, rows = scaled_dot_product_attention(*qkv(), rows=[])
    assert rows is not None and rows.shape == (B, H, 0, M)


@pytest.mark.parametrize("half", [False, True])
def test_gradients_of_the_output_reach_rows_and_count_once(half: bool) -> None:
    """Also of rows that are asked for twice, and where the weights are more precise than x."""
    attention = MultiHeadAttention(16, 2).to(torch.bfloat16 if half else torch.float32)
    x = torch.randn(2, 5, 16, dtype=attention.qkv.weight.dtype, requires_grad=True)
    (expected,) = torch.autograd.grad(attention(x)[0].float().square().sum(), x)
    output, rows = attention(x, rows=[4, 1, -1])
    assert torch.equal(output, attention(x)[0])
    loss = output.float().square().sum()
    of_rows, gradient = torch.autograd.grad(loss, (rows, x))
    assert of_rows[:, :, :2].abs().amin(dim=(0, 1, 3)).min() > 0
    assert of_rows[:, :, 2].count_nonzero() == 0
    tolerance = 5e-2 if half else 1e-5
    torch.testing.assert_close(gradient, expected, atol=tolerance, rtol=tolerance)


def test_dropped_weights_give_rows_no_gradient_of_the_output() -> None:
    """What the fused kernel dropped is not known, so that any gradient would be wrong."""
    query, key, value = (each.requires_grad_() for each in qkv())
    output, rows = scaled_dot_product_attention(query, key, value, dropout=0.5, rows=[0])
    (gradient,) = torch.autograd.grad(output.sum(), (rows,), allow_unused=True)
    assert gradient is None


def test_rows_are_rows_whatever_need_weights_says() -> None:
    inputs = qkv()
    _, rows = scaled_dot_product_attention(*inputs, rows=[1])
    _, same = scaled_dot_product_attention(*inputs, rows=[1], need_weights=True)
    assert rows is not None and same is not None and torch.equal(rows, same)


def test_weights_alone_are_those_beside_the_output() -> None:
    query, key, value = qkv()
    mask, _ = make_mask("additive with -inf")
    for recorded in (False, True):
        query.requires_grad_(recorded)
        _, weights = scaled_dot_product_attention(query, key, value, mask=mask, need_weights=True)
        assert weights is not None and weights.requires_grad == recorded
        assert torch.equal(attention_weights(query, key, mask), weights)


@pytest.mark.parametrize("row", [N, -N - 1, 1000])
def test_a_row_beyond_the_queries_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=rf"attention row {row} .* {N} query .* -{N} to {N - 1}"):
        scaled_dot_product_attention(*qkv(), rows=[0, row])


# ---- dropout -----------------------------------------------------------------------------------


def test_returned_weights_are_those_before_dropout() -> None:
    query, key, value = qkv()
    plain, expected = scaled_dot_product_attention(query, key, value, need_weights=True)
    output, weights = scaled_dot_product_attention(
        query, key, value, dropout=0.5, need_weights=True
    )
    torch.testing.assert_close(weights, expected)
    assert not torch.allclose(output, plain)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_keeps_the_expected_output(need_weights: bool) -> None:
    query, key, value = (tensor[:1, :1].expand(40_000, 1, -1, -1) for tensor in qkv())
    plain, _ = scaled_dot_product_attention(query[:1], key[:1], value[:1])
    output, _ = scaled_dot_product_attention(
        query, key, value, dropout=0.3, need_weights=need_weights
    )
    assert output.std(0).mean() > 0.1
    torch.testing.assert_close(output.mean(0, keepdim=True), plain, atol=0.02, rtol=0)


def test_a_layer_drops_in_training_only() -> None:
    attention = MultiHeadAttention(D, H, dropout=0.5)
    x = torch.randn(B, N, D)
    for need_weights in (False, True):
        attention.train()
        outputs = [attention(x, need_weights=need_weights)[0] for _ in range(2)]
        assert not torch.allclose(*outputs)
        attention.eval()
        outputs = [attention(x, need_weights=need_weights)[0] for _ in range(2)]
        assert torch.equal(*outputs)


# ---- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kind", ["none", "boolean", "additive with -inf", "causal", "some queries see nothing"]
)
@pytest.mark.parametrize("m", [3, 4])
def test_gradcheck(kind: str, m: int, way: str) -> None:
    """Of output and weights, self-attention's square maps and cross-attention's others."""
    inputs = [
        torch.randn(1, 1, length, 2, dtype=torch.float64, requires_grad=True)
        for length in (3, m, m)
    ]
    mask, is_causal = make_mask(kind, 3, m, torch.float64)
    if mask is not None:
        mask = mask[:1, :1]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = scaled_dot_product_attention(
            *tensors, mask=mask, is_causal=is_causal, **WAYS[way]
        )
        return tuple(tensor for tensor in results if tensor is not None)

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("way", WAYS)
def test_gradcheck_of_a_learned_additive_mask(way: str) -> None:
    """A relative position bias is one; it learns also where Q and K are frozen."""
    query, key, value = (torch.randn(1, 1, 3, 2, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def function(bias: Tensor) -> tuple[Tensor, ...]:
        results = scaled_dot_product_attention(query, key, value, mask=bias, **WAYS[way])
        return tuple(tensor for tensor in results if tensor is not None)

    assert torch.autograd.gradcheck(function, [bias])


def test_gradcheck_of_the_whole_layer() -> None:
    attention = MultiHeadAttention(4, 2).double()
    query = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    for way in ("all", "rows"):
        assert torch.autograd.gradcheck(
            lambda q, m, options=WAYS[way]: attention(q, m, **options), [query, memory]
        )


# ---- properties --------------------------------------------------------------------------------

seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 6)


@settings(max_examples=40)
@given(seed=seeds, n=sizes, m=sizes, scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_weights_are_not_negative_and_sum_to_one_over_what_may_be_seen(
    seed: int, n: int, m: int, scale: float
) -> None:
    torch.manual_seed(seed)
    query, key, value = (scale * torch.randn(B, H, length, d) for length in (n, m, m))
    mask = torch.rand(B, H, n, m) > 0.5
    recorded = query.clone().requires_grad_()
    for asking in (query, recorded):
        _, weights = scaled_dot_product_attention(asking, key, value, mask=mask, need_weights=True)
        assert weights is not None
        assert bool((weights >= 0).all())
        assert weights[~mask].count_nonzero() == 0
        torch.testing.assert_close(weights.sum(-1), mask.any(-1).float(), atol=1e-5, rtol=0)


@settings(max_examples=40)
@given(seed=seeds, n=sizes, m=sizes, additive=st.booleans(), per_query=st.booleans())
def test_masked_keys_never_matter(
    seed: int, n: int, m: int, additive: bool, per_query: bool
) -> None:
    torch.manual_seed(seed)
    query, key, value = qkv(n, m)
    visible = torch.rand(B, 1, n if per_query else 1, m) > 0.5
    mask = torch.where(visible, 0.0, -torch.inf) if additive else visible
    changed = int(torch.randint(m, ()))
    key2, value2 = key.clone(), value.clone()
    key2[:, :, changed] = 1e4 * torch.randn(B, H, d)
    value2[:, :, changed] = 1e4 * torch.randn(B, H, d)
    untouched = ~visible[..., changed].expand(B, H, n)  # queries that do not see the changed key
    for options in WAYS.values():
        before = scaled_dot_product_attention(query, key, value, mask=mask, **options)
        after = scaled_dot_product_attention(query, key2, value2, mask=mask, **options)
        torch.testing.assert_close(after[0][untouched], before[0][untouched], atol=1e-6, rtol=0)
        if before[1] is not None and after[1] is not None:
            rows = untouched[..., options["rows"]] if "rows" in options else untouched
            torch.testing.assert_close(after[1][rows], before[1][rows], atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(seed=seeds, lengths=st.lists(st.integers(0, 6), min_size=B, max_size=B))
def test_padding_never_matters_to_the_layer(seed: int, lengths: list[int]) -> None:
    torch.manual_seed(seed)
    attention = MultiHeadAttention(D, H)
    query, memory = torch.randn(B, N, D), torch.randn(B, 6, D)
    real = torch.arange(6) < torch.tensor(lengths)[:, None]
    for need_weights in (False, True):
        output, _ = attention(query, memory, key_mask=real, need_weights=need_weights)
        for b, length in enumerate(lengths):
            alone, _ = attention(query[b : b + 1], memory[b : b + 1, :length])
            torch.testing.assert_close(output[b : b + 1], alone, atol=1e-5, rtol=0)


def steps(length: int, sizes: Iterator[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of pieces of the given sizes that together make up the length."""
    start = 0
    while start < length:
        end = min(length, start + next(sizes))
        yield start, end
        start = end


@settings(max_examples=40)
@given(
    seed=seeds,
    length=st.integers(1, 9),
    chunks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    need_weights=st.booleans(),
)
def test_cached_decoding_is_full_decoding(
    seed: int, length: int, chunks: list[int], need_weights: bool
) -> None:
    torch.manual_seed(seed)
    attention = MultiHeadAttention(D, H)
    x = torch.randn(B, length, D)
    full, full_weights = attention(x, is_causal=True, need_weights=True)
    cache = KeyValueCache(B, H, length, d)
    for start, end in steps(length, itertools.cycle(chunks)):
        output, weights = attention(
            x[:, start:end], is_causal=True, cache=cache, need_weights=need_weights
        )
        assert cache.length == end
        torch.testing.assert_close(output, full[:, start:end], atol=1e-5, rtol=0)
        if need_weights:
            expected = full_weights[:, :, start:end, :end]
            torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)


@settings(max_examples=40)
@given(seed=seeds, beams=st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_reordered_cache_is_that_of_the_chosen_beams(seed: int, beams: list[int]) -> None:
    torch.manual_seed(seed)
    attention = MultiHeadAttention(D, H)
    past, new = torch.randn(4, 3, D), torch.randn(4, 2, D)
    cache = KeyValueCache(4, H, 5, d)
    with torch.no_grad():
        attention(past, is_causal=True, cache=cache)
        cache.reorder(torch.tensor(beams))
        output, _ = attention(new, is_causal=True, cache=cache)
        full, _ = attention(torch.cat([past[beams], new], dim=1), is_causal=True)
    torch.testing.assert_close(output, full[:, 3:], atol=1e-5, rtol=0)


# ---- the cache ---------------------------------------------------------------------------------


def test_cross_attention_reads_its_memory_once() -> None:
    attention = MultiHeadAttention(D, H)
    query, memory = torch.randn(B, 3, D), torch.randn(B, M, D)
    expected, expected_weights = attention(query, memory, need_weights=True)
    cache = KeyValueCache(B, H, M, d)
    with torch.no_grad():
        for t in range(3):
            given = memory if t == 0 else torch.full_like(memory, torch.nan)
            output, weights = attention(query[:, t : t + 1], given, cache=cache, need_weights=True)
            assert cache.length == M
            torch.testing.assert_close(output, expected[:, t : t + 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(weights, expected_weights[:, :, t : t + 1])


def test_a_cache_takes_its_memory_once() -> None:
    cache = KeyValueCache(B, H, 4, d, dtype=torch.float64)
    key, value = torch.randn(2, B, H, 3, d, dtype=torch.float64)
    keys, values = cache.append(key, value)
    assert torch.equal(keys, key) and torch.equal(values, value) and cache.length == 3
    more = torch.randn(2, B, H, 1, d, dtype=torch.float64)
    later, _ = cache.append(*more)
    assert later.data_ptr() == keys.data_ptr()
    assert torch.equal(cache.keys, torch.cat([key, more[0]], dim=2))
    assert torch.equal(cache.values, torch.cat([value, more[1]], dim=2))


def test_a_cache_works_where_gradients_are_recorded() -> None:
    """Step by step, and with beams that are chosen anew: the gradients are those of one pass."""
    attention, beams = MultiHeadAttention(D, H), torch.tensor([1, 1, 0])
    past, new = torch.randn(3, 3, D, requires_grad=True), torch.randn(3, 1, D, requires_grad=True)
    before, _ = attention(past, is_causal=True)
    whole, _ = attention(torch.cat([past[beams], new], dim=1), is_causal=True)
    loss = before.square().sum() + whole[:, 3].square().sum()
    expected = torch.autograd.grad(loss, (past, new))
    cache = KeyValueCache(3, H, 5, d)
    steps = [attention(past[:, t : t + 1], is_causal=True, cache=cache)[0] for t in range(3)]
    cache.reorder(beams)
    steps.append(attention(new, is_causal=True, cache=cache)[0])
    gradients = torch.autograd.grad(torch.cat(steps, dim=1).square().sum(), (past, new))
    torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="max_length"):
        attention(past, is_causal=True, cache=cache)


def test_a_cache_is_public() -> None:
    assert minivit.KeyValueCache is KeyValueCache and "KeyValueCache" in minivit.__all__


def test_a_full_cache_says_so_and_keeps_what_it_has() -> None:
    cache = KeyValueCache(B, H, 4, d)
    key, value = torch.randn(2, B, H, 3, d)
    cache.append(key, value)
    with pytest.raises(ValueError, match=r"holds 4 tokens and was given 5.*larger max_length"):
        cache.append(key[:, :, :2], value[:, :, :2])
    assert cache.length == 3 and torch.equal(cache.keys, key) and torch.equal(cache.values, value)


def test_two_sentences_are_two_caches() -> None:
    attention = MultiHeadAttention(D, H)
    x = torch.randn(2, B, 3, D)
    caches = [KeyValueCache(B, H, 3, d) for _ in range(2)]
    with torch.no_grad():
        for t in range(3):  # in turns, through one layer
            outputs = [
                attention(x[s, :, t : t + 1], is_causal=True, cache=caches[s])[0] for s in range(2)
            ]
        for s in range(2):
            expected, _ = attention(x[s], is_causal=True)
            torch.testing.assert_close(outputs[s], expected[:, 2:], atol=1e-5, rtol=0)


def test_causal_attention_is_torchs_is_causal() -> None:
    query, key, value = qkv(6, 6)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    for need_weights in (False, True):
        output, _ = scaled_dot_product_attention(
            query, key, value, is_causal=True, need_weights=need_weights
        )
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


# ---- names of before ---------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [[0, -1], (2,), []])
def test_rows_may_still_be_asked_for_as_need_weights(numbers: Any) -> None:
    inputs = qkv()
    _, expected = scaled_dot_product_attention(*inputs, rows=numbers)
    with pytest.warns(DeprecationWarning, match=r"need_weights=\[…\] is called rows=\[…\] now"):
        _, rows = scaled_dot_product_attention(*inputs, need_weights=numbers)
    assert rows is not None and expected is not None and torch.equal(rows, expected)
    attention, x = MultiHeadAttention(D, H), torch.randn(B, N, D)
    with pytest.warns(DeprecationWarning, match="called rows") as warned:
        _, rows = attention(x, need_weights=numbers)
    assert torch.equal(rows, attention(x, rows=numbers)[1])
    assert warned[0].filename == __file__  # shown to whoever calls the layer


def test_key_mask_may_still_be_called_key_padding_mask() -> None:
    attention, x = MultiHeadAttention(D, H), torch.randn(B, N, D)
    real = torch.rand(B, N) > 0.3
    expected, _ = attention(x, key_mask=real)
    with pytest.warns(DeprecationWarning, match="key_padding_mask is called key_mask") as warned:
        output, _ = attention(x, key_padding_mask=real)
    assert torch.equal(output, expected) and warned[0].filename == __file__
