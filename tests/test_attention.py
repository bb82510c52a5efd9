"""Attention against torch's own, the two paths against each other, and what must hold always."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minivit.attention import (
    KeyValueCache,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    merge_masks,
    scaled_dot_product_attention,
)

B, H, N, M, d = 2, 3, 5, 7, 4
KINDS = (
    "none",
    "boolean",
    "boolean, two dimensions",
    "boolean, one dimension",
    "boolean, a head each",
    "keys",
    "additive",
    "additive with -inf",
    "causal",
    "causal and boolean",
    "causal and keys",
    "causal and additive",
    "some queries see nothing",
    "one picture sees nothing",
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def qkv(n: int = N, m: int = M, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(B, H, length, d, dtype=dtype) for length in (n, m, m))


def make_mask(
    kind: str, n: int = N, m: int = M, dtype: torch.dtype = torch.float32
) -> tuple[Tensor | None, bool]:
    """A mask of that kind, and whether causality is asked for besides."""

    def boolean(*shape: int) -> Tensor:
        mask = torch.rand(shape) > 0.4
        mask[..., 0] = True  # every query sees something
        return mask

    causal = kind.startswith("causal")
    match kind.removeprefix("causal").removeprefix(" and "):
        case "none" | "":
            return None, causal
        case "boolean":
            return boolean(B, 1, n, m), causal
        case "boolean, two dimensions":
            return boolean(n, m), causal
        case "boolean, one dimension":
            return boolean(m), causal
        case "boolean, a head each":
            return boolean(B, H, n, m), causal
        case "keys":
            return boolean(B, 1, 1, m), causal
        case "additive":
            return torch.randn(1, H, n, m, dtype=dtype), causal
        case "additive with -inf":
            hidden = ~boolean(B, H, n, m)
            return torch.randn(B, H, n, m, dtype=dtype).masked_fill(hidden, -torch.inf), causal
        case "some queries see nothing":
            mask = boolean(B, 1, n, m)
            mask[0, :, n // 2] = False
            return mask, causal
        case "one picture sees nothing":
            mask = boolean(B, 1, n, m)
            mask[1] = False
            return mask, causal
    raise AssertionError(kind)


class Recorder(TorchDispatchMode):
    """Notes every tensor that an operation makes or writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []  # held, so that no memory is given out twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.made += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result

    def storages(self, smallest: int) -> set[int]:
        """Addresses of all pieces of memory of at least so many bytes."""
        found = (tensor.untyped_storage() for tensor in self.made)
        return {storage.data_ptr() for storage in found if storage.nbytes() >= smallest}

    def largest(self) -> int:
        """Bytes of the largest piece of memory."""
        return max(tensor.untyped_storage().nbytes() for tensor in self.made)


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the queries that have gone to torch's fused kernel."""
    calls = []
    fused = F.scaled_dot_product_attention

    def count(query: Tensor, *arguments: object, **options: object) -> Tensor:
        calls.append(query.shape)
        return fused(query, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    return calls


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
@pytest.mark.parametrize("need_weights", [False, True, (2,)])
def test_a_query_that_may_see_nothing_gets_zeros_and_finite_gradients(
    need_weights: bool | tuple[int, ...], additive: bool
) -> None:
    """In the fused kernel too, and the weights' own gradients are finite as well."""
    mask, _ = make_mask("some queries see nothing")
    assert mask is not None
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    inputs = [tensor.requires_grad_() for tensor in qkv()]
    output, weights = scaled_dot_product_attention(*inputs, mask=mask, need_weights=need_weights)
    assert output[0, :, 2].count_nonzero() == 0 and output[0, :, 1].count_nonzero() == H * d
    if weights is not None:
        assert weights[0, :, 2 if need_weights is True else 0].count_nonzero() == 0
        assert weights[1].count_nonzero() > 0
    total = output.sin().sum() + (0 if weights is None else weights.sin().sum())
    for gradient in torch.autograd.grad(total, inputs):
        assert gradient.isfinite().all()
    with torch.no_grad():  # the in-place variant of the explicit path
        again, _ = scaled_dot_product_attention(*inputs, mask=mask, need_weights=need_weights)
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
        _, rows = scaled_dot_product_attention(*inputs, mask=mask, need_weights=[0])
        assert weights is not None and rows is not None
        assert fused.dtype == output.dtype == weights.dtype == rows.dtype == dtype
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
        beside, rows = attention(x, need_weights=[0, 2])
        masked = attention(x, mask=torch.zeros(N, N), need_weights=True)[0]
    assert fused.dtype == output.dtype == beside.dtype == torch.bfloat16
    assert torch.equal(beside, fused)
    for found in (fused, output, masked):
        torch.testing.assert_close(found.float(), exact, atol=2e-2, rtol=0)
    torch.testing.assert_close(weights.float(), exact_weights, atol=1e-2, rtol=0)
    torch.testing.assert_close(rows.float(), exact_weights[:, :, [0, 2]], atol=1e-2, rtol=0)
    if recorded:
        (output.float().sum() + rows.float().square().sum()).backward()
        assert attention.qkv.weight.grad is not None
        assert attention.qkv.weight.grad.isfinite().all()


@pytest.mark.parametrize("need_weights", [False, (0, -1)])
@pytest.mark.parametrize(
    ("n", "m", "way"),
    [
        (200, 200, "by entry"),
        (128, 300, "by entry"),
        (127, 300, "fused"),
        (300, 127, "fused"),
        (4096, 4097, "fused"),
    ],
)
def test_in_bfloat16_many_tokens_are_served_entry_by_entry(
    n: int,
    m: int,
    way: str,
    need_weights: bool | tuple[int, ...],
    fused_calls: list[torch.Size],
) -> None:
    parts = tuple(torch.randn(2, 1, length, 8, dtype=torch.bfloat16) for length in (n, m, m))
    output, _ = scaled_dot_product_attention(*parts, need_weights=need_weights)
    assert len(fused_calls) == (way == "fused")
    exact, _ = scaled_dot_product_attention(*(part.float() for part in parts), need_weights=True)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("why", ["gradients", "mask", "causal", "dropout", "float32", "no entry"])
def test_all_else_is_left_to_the_fused_kernel(why: str, fused_calls: list[torch.Size]) -> None:
    dtype = torch.float32 if why == "float32" else torch.bfloat16
    query, key, value = torch.randn(3, 0 if why == "no entry" else 2, 1, 200, 8).to(dtype)
    value.requires_grad_(why == "gradients")
    mask = torch.rand(200, 200) > 0.5 if why == "mask" else None
    dropout = 0.5 if why == "dropout" else 0.0
    output, _ = scaled_dot_product_attention(
        query, key, value, mask=mask, is_causal=why == "causal", dropout=dropout
    )
    assert fused_calls == [output.shape]


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
    output, rows = scaled_dot_product_attention(*inputs, **options, need_weights=asked)  # type: ignore[arg-type]
    assert torch.equal(output, plain)
    assert full is not None and rows is not None and rows.shape == (B, H, len(asked), 6)
    torch.testing.assert_close(rows, full[:, :, [0, 5, 3, 3, 0]], atol=1e-6, rtol=0)
    assert rows.requires_grad == recorded


@pytest.mark.parametrize(("n", "m"), [(3, 7), (1, 7)])
def test_rows_of_a_causal_map_that_is_not_square(n: int, m: int) -> None:
    inputs = qkv(n, m)
    _, full = scaled_dot_product_attention(*inputs, is_causal=True, need_weights=True)
    _, rows = scaled_dot_product_attention(*inputs, is_causal=True, need_weights=[-1])
    assert full is not None and rows is not None
    torch.testing.assert_close(rows, full[:, :, -1:], atol=1e-6, rtol=0)


def test_no_rows_are_an_empty_map() -> None:
    _, rows = scaled_dot_product_attention(*qkv(), need_weights=[])
    assert rows is not None and rows.shape == (B, H, 0, M)


@pytest.mark.parametrize("row", [N, -N - 1, 1000])
def test_a_row_beyond_the_queries_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=rf"attention row {row} .* {N} query .* -{N} to {N - 1}"):
        scaled_dot_product_attention(*qkv(), need_weights=[0, row])


@pytest.mark.parametrize("kind", ["none", "keys", "causal"])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_memory_of_rows_grows_with_their_number(num_rows: int, kind: str) -> None:
    """Nothing of N x M entries is made, not even of one byte each."""
    length = 400
    query, key, value = qkv(length, length)
    mask, is_causal = make_mask(kind, length, length)

    def most_bytes(need_weights: bool | list[int]) -> int:
        with Recorder() as recorder:
            scaled_dot_product_attention(
                query, key, value, mask=mask, is_causal=is_causal, need_weights=need_weights
            )
        return recorder.largest()

    map_bytes = B * H * length * length * 4
    rows = list(range(num_rows))
    assert most_bytes(True) >= map_bytes
    assert most_bytes(rows) <= max(most_bytes(False), B * H * num_rows * length * 4)
    assert most_bytes(rows) < length * length


# ---- memory of the explicit path ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "boolean", "additive with -inf"])
def test_without_gradients_one_piece_of_memory_holds_scores_and_weights(kind: str) -> None:
    length = 64
    query, key, value = qkv(length, length)
    mask, _ = make_mask(kind, length, length)
    with torch.no_grad(), Recorder() as recorder:
        scaled_dot_product_attention(query, key, value, mask=mask, need_weights=True)
    assert len(recorder.storages(B * H * length * length * 4)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_a_buffer_are_the_same_weights(kind: str) -> None:
    query, key, value = qkv(6, 6)
    mask, is_causal = make_mask(kind, 6, 6)
    buffer = torch.full((B, H, 6, 6), torch.nan)  # what was in it before does not matter
    for tokens in (query, query.flip(0)):  # used twice
        options = {"mask": mask, "is_causal": is_causal, "need_weights": True}
        expected = scaled_dot_product_attention(tokens, key, value, **options)  # type: ignore[arg-type]
        output, weights = scaled_dot_product_attention(
            tokens,
            key,
            value,
            **options,  # type: ignore[arg-type]
            buffer=buffer,
        )
        assert weights is not None and weights.data_ptr() == buffer.data_ptr()
        torch.testing.assert_close(output, expected[0])
        torch.testing.assert_close(weights, expected[1])


def test_a_buffer_leaves_nothing_large_to_allocate() -> None:
    length = 64
    attention = MultiHeadAttention(D, H)
    x = torch.randn(B, length, D)
    buffer = torch.empty(B, H, length, length)
    with torch.no_grad(), Recorder() as recorder:
        _, weights = attention(x, need_weights=True, buffer=buffer)
    assert weights.data_ptr() == buffer.data_ptr()
    assert recorder.storages(buffer.nbytes) == {buffer.data_ptr()}


def test_a_buffer_is_refused_while_gradients_are_recorded() -> None:
    query, key, _ = qkv()
    buffer = torch.empty(B, H, N, M)
    for recorded in (query, key):
        recorded.requires_grad_()
        with pytest.raises(ValueError, match="gradients are recorded"):
            attention_weights(query, key, buffer=buffer)
        with torch.no_grad():
            assert attention_weights(query, key, buffer=buffer).data_ptr() == buffer.data_ptr()
        recorded.requires_grad_(False)


@pytest.mark.parametrize(
    "buffer",
    [
        torch.empty(B, H, M, N),
        torch.empty(H, N, M),
        torch.empty(B, H, N, 2 * M)[..., ::2],
        torch.empty(B, H, M, N).mT,
    ],
)
def test_a_buffer_of_another_form_is_refused(buffer: Tensor) -> None:
    query, key, _ = qkv()
    with pytest.raises(ValueError, match=r"expected a contiguous tensor of shape \(2, 3, 5, 7\)"):
        attention_weights(query, key, buffer=buffer)


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


@pytest.mark.parametrize("need_weights", [False, True, (0, -1)])
@pytest.mark.parametrize(
    "kind", ["none", "boolean", "additive with -inf", "causal", "some queries see nothing"]
)
@pytest.mark.parametrize("m", [3, 4])
def test_gradcheck(kind: str, m: int, need_weights: bool | tuple[int, ...]) -> None:
    """Of output and weights, self-attention's square maps and cross-attention's others."""
    inputs = [
        torch.randn(1, 1, length, 2, dtype=torch.float64, requires_grad=True)
        for length in (3, m, m)
    ]
    mask, is_causal = make_mask(kind, 3, m, torch.float64)
    if mask is not None:
        mask = mask[:1, :1]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        found = scaled_dot_product_attention(
            *tensors, mask=mask, is_causal=is_causal, need_weights=need_weights
        )
        return tuple(tensor for tensor in found if tensor is not None)

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("need_weights", [False, True, (0, -1)])
def test_gradcheck_of_a_learned_additive_mask(need_weights: bool | tuple[int, ...]) -> None:
    """A relative position bias is one; it learns also where Q and K are frozen."""
    query, key, value = (torch.randn(1, 1, 3, 2, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def function(bias: Tensor) -> tuple[Tensor, ...]:
        found = scaled_dot_product_attention(
            query, key, value, mask=bias, need_weights=need_weights
        )
        return tuple(tensor for tensor in found if tensor is not None)

    assert torch.autograd.gradcheck(function, [bias])


def test_gradcheck_of_the_whole_layer() -> None:
    attention = MultiHeadAttention(4, 2).double()
    query = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    for need_weights in (True, [0]):
        assert torch.autograd.gradcheck(
            lambda q, m, need=need_weights: attention(q, m, need_weights=need), [query, memory]
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
    for need_weights in (False, True, [0, -1]):
        options = {"mask": mask, "need_weights": need_weights}
        before = scaled_dot_product_attention(query, key, value, **options)  # type: ignore[arg-type]
        after = scaled_dot_product_attention(query, key2, value2, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(after[0][untouched], before[0][untouched], atol=1e-6, rtol=0)
        if need_weights is not False:
            rows = untouched if need_weights is True else untouched[..., [0, -1]]
            torch.testing.assert_close(after[1][rows], before[1][rows], atol=1e-6, rtol=0)  # type: ignore[index]


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
