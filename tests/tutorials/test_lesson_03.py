"""Lesson 3: its checks tell answers apart, and its answers to questions hold in the library."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import minivit
from minivit.attention import causal_mask, plain_attention
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks.lesson_03 import (
    check_attention,
    check_blockwise_attention,
    check_divisor,
    check_masked_weights,
    check_multi_head,
)

# ---- 3.1 -----------------------------------------------------------------------------------------


def scores_of(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def with_einsum(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """By name of the dimensions, and softmax by its definition."""
    scores = torch.einsum("bhnd,bhmd->bhnm", q * q.shape[-1] ** -0.5, k)
    terms = (scores - scores.amax(dim=3, keepdim=True)).exp()
    weights = terms / terms.sum(dim=3, keepdim=True)
    return [torch.einsum("bhnm,bhmd->bhnd", weights, v), weights]


def softmax_along(axis: int):
    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights = scores_of(q, k).softmax(dim=axis)
        return weights @ v, weights

    return attend


def scaled_by(factor):
    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        weights = (q @ k.transpose(-2, -1) * factor(q, k)).softmax(dim=-1)
        return weights @ v, weights

    return attend


def detached(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    output, weights = plain_attention(q, k, v)
    return output.detach(), weights


def only_values_learn(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    weights = plain_attention(q, k, v)[1].detach()
    return weights @ v, weights


def test_the_equation() -> None:
    right = solution("03", "3.1")["dot_attention"]
    assert_told_apart(
        check_attention,
        right=[right, with_einsum, plain_attention],
        wrong={
            "over the queries: softmax ran over the wrong axis": softmax_along(-2),
            "over the heads": softmax_along(1),
            "over the pictures of a batch": softmax_along(0),
            "the scale is missing": scaled_by(lambda q, k: 1.0),
            "divided by d, not by its square root": scaled_by(lambda q, k: 1 / q.shape[-1]),
            "multiplied by √d": scaled_by(lambda q, k: math.sqrt(q.shape[-1])),
            "√M": scaled_by(lambda q, k: k.shape[-2] ** -0.5),
            "√N": scaled_by(lambda q, k: q.shape[-2] ** -0.5),
            "√(H·d)": scaled_by(lambda q, k: (q.shape[1] * q.shape[-1]) ** -0.5),
            "√d came after softmax": lambda q, k, v: _pair(
                (q @ k.transpose(-2, -1)).softmax(-1) / math.sqrt(q.shape[-1]), v
            ),
            "some weights are negative": lambda q, k, v: _pair(scores_of(q, k), v),
            "instead of 1: nothing may be": lambda q, k, v: _pair(scores_of(q, k).sigmoid(), v),
            "is a mean of the values": lambda q, k, v: plain_attention(q, k, k),
            "two tensors are expected": lambda q, k, v: plain_attention(q, k, v)[0],
            "the order is output, weights": lambda q, k, v: plain_attention(q, k, v)[::-1],
            "with scores in the hundreds the weights are not finite": exponentials,
            "not of all rows": one_maximum,
            "rows must be queries": lambda q, k, v: (
                plain_attention(q, k, v)[0],
                plain_attention(q, k, v)[1].transpose(-2, -1),
            ),
            "nothing comes back": lambda q, k, v: None,
            "your lines end in RuntimeError": lambda q, k, v: q @ k,
            "changed it; make a new tensor": changed_in_place(right),
            "no gradient reaches the queries": detached,
        },
    )
    message = check_attention.message(only_values_learn)
    assert message is not None and "no gradient reaches the queries" in message


def exponentials(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    terms = scores_of(q, k).exp()
    return _pair(terms / terms.sum(dim=-1, keepdim=True), v)


def one_maximum(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """One largest score for all rows: the terms of other rows may all be 0."""
    scores = scores_of(q, k)
    terms = (scores - scores.max()).exp()
    return _pair(terms / terms.sum(dim=-1, keepdim=True).clamp_min(1e-30), v)


def _pair(weights: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return weights @ v, weights


# ---- 3.2 -----------------------------------------------------------------------------------------


def test_the_divisor() -> None:
    measured = solution("03", "3.2")["divisor_for_8_keys"]
    assert_told_apart(
        check_divisor,
        right=[measured, torch.tensor(round(measured, 1))],
        wrong={
            "16 is √d": 16,
            "too sharp: divide by more": 1,
            "too flat: divide by less": 256,
            "must be multiplied by": 1 / measured,
            "what must divide q·k/√d": measured / 16,
            "divides nothing": -3,
            "leave out the quotation marks": "6",
            "this is list": [6.0],
        },
    )
    assert check_divisor.message(...) == (
        "nothing is written yet: put your own lines in the place of `...`"
    )


def test_entropy_in_bits_is_told() -> None:
    """Half of log 64 as 2.08, but reached by an entropy to base 2."""
    torch.manual_seed(2)
    dots = (torch.randn(1000, 64, 256) @ torch.randn(1000, 256, 1))[:, :, 0]
    low, high = 1.0, 16.0
    for _ in range(30):
        middle = (low + high) / 2
        bits = torch.special.entr((dots / middle).softmax(-1)).sum(-1).mean() / math.log(2)
        low, high = (middle, high) if bits < math.log(64) / 2 else (low, middle)
    message = check_divisor.message(middle)
    assert message is not None and "in bits" in message


# ---- 3.3 -----------------------------------------------------------------------------------------


def by_hand_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Terms of visible keys, divided by their sum, or by 1 where there is none."""
    lowest = torch.finfo(scores.dtype).min
    top = scores.masked_fill(~mask, lowest).amax(dim=-1, keepdim=True).detach()
    terms = torch.where(mask, scores - top, -torch.inf).exp()
    total = terms.sum(dim=-1, keepdim=True)
    return terms / torch.where(total > 0, total, torch.ones_like(total))


def with_minus_infinity(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


def nan_replaced(scores: Tensor, mask: Tensor) -> Tensor:
    """With `masked_fill` no gradient flows through hidden scores, so that no NaN comes back."""
    return with_minus_infinity(scores, mask).nan_to_num(0.0)


def over_the_queries(scores: Tensor, mask: Tensor) -> Tensor:
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-2)
    return weights.masked_fill(~mask, 0.0)


def needs_full_masks(scores: Tensor, mask: Tensor) -> Tensor:
    hidden = ~mask
    if mask.shape[-2] != scores.shape[-2]:
        hidden = torch.zeros_like(hidden)
    return solution("03", "3.3")["masked_weights"](scores, ~hidden)


def test_a_masked_softmax() -> None:
    right = solution("03", "3.3")["masked_weights"]
    assert_told_apart(
        check_masked_weights,
        right=[right, by_hand_softmax, nan_replaced],
        wrong={
            "the mask is turned over": lambda scores, mask: right(scores, ~mask),
            "the mask comes after softmax": lambda scores, mask: scores.softmax(-1) * mask,
            "e^0 = 1 is not nothing": lambda scores, mask: (scores * mask).softmax(-1),
            "the mask is not used": lambda scores, mask: scores.softmax(-1),
            "what is added to a hidden score": lambda scores, mask: (scores + mask).softmax(-1),
            "softmax ran over the wrong axis": over_the_queries,
            "softmax is missing": lambda scores, mask: scores.masked_fill(~mask, -math.inf),
            "is NaN, 0/0": with_minus_infinity,
            "gets 1/M everywhere": lambda scores, mask: scores.masked_fill(~mask, -1e9).softmax(-1),
            "the gradient is NaN": lambda scores, mask: (
                (scores + torch.where(mask, 0.0, -math.inf)).softmax(-1).nan_to_num(0.0)
            ),
            "with visible scores of 200": lambda scores, mask: (
                (scores.exp() * mask) / (scores.exp() * mask).sum(-1, True).clamp_min(1e-30)
            ),
            "with visible scores of -200": largest_is_never_below_0,
            "with a hidden score of 200": renormalised,
            "one row for all queries": needs_full_masks,
            "changed it; make a new tensor": _hides_in_place,
            "no gradient reaches the scores": lambda scores, mask: right(scores.detach(), mask),
            "nothing comes back": lambda scores, mask: None,
        },
    )


def renormalised(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over all keys, then the mask, then a division by what is left."""
    weights = scores.softmax(dim=-1) * mask
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-30)


def largest_is_never_below_0(scores: Tensor, mask: Tensor) -> Tensor:
    """Hidden scores become 0 where the largest one is looked for."""
    top = (scores * mask).amax(dim=-1, keepdim=True)
    terms = (scores - top).masked_fill(~mask, -math.inf).exp()
    return terms / terms.sum(dim=-1, keepdim=True).clamp_min(1e-30)


def where_the_sum_is_not_zero(scores: Tensor, mask: Tensor) -> Tensor:
    """`torch.where` computes 0/0 too, and its gradient is NaN."""
    terms = (scores - scores.amax(dim=-1, keepdim=True)).exp() * mask
    total = terms.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, terms / total, 0.0)


def test_the_gradient_of_a_branch_that_is_not_taken() -> None:
    message = check_masked_weights.message(where_the_sum_is_not_zero)
    assert message is not None and "instead of 0/0? It computes both" in message


def _hides_in_place(scores: Tensor, mask: Tensor) -> Tensor:
    scores.data.masked_fill_(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


# ---- 3.4 -----------------------------------------------------------------------------------------


def one_head_after_the_other(
    x: Tensor,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    num_heads: int,
) -> Tensor:
    """A loop over the heads, each with torch's kernel."""
    width = x.shape[-1]
    d = width // num_heads
    outputs = []
    for head in range(num_heads):
        q, k, v = (
            F.linear(x, qkv_weight[start : start + d], qkv_bias[start : start + d])
            for start in (part * width + head * d for part in range(3))
        )
        outputs.append(F.scaled_dot_product_attention(q, k, v))
    return F.linear(torch.cat(outputs, dim=-1), proj_weight, proj_bias)


def faulty(
    cut: str = "b n (three h d) -> three b h n d",
    join: str = "b h n d -> b n (h d)",
    scale: float = 1.0,
    flat_cut: bool = False,
    flat_join: bool = False,
    turned: bool = False,
    axis: int = -1,
    last: bool = True,
):
    def attend(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
        projected = F.linear(x, qkv_weight, qkv_bias)
        q, k, v = rearrange(projected, cut, three=3, h=num_heads)
        if flat_cut:
            q, k, v = (part.reshape(q.shape) for part in projected.chunk(3, dim=-1))
        weights = (scale * scores_of(q, k)).softmax(dim=axis)
        heads = weights @ v
        together = heads.reshape(x.shape) if flat_join else rearrange(heads, join)
        if not last:
            return together
        matrix = proj_weight.T if turned else proj_weight
        return F.linear(together, matrix, proj_bias)

    return attend


def test_many_heads() -> None:
    right = solution("03", "3.4")["multi_head"]
    assert_told_apart(
        check_multi_head,
        right=[right, one_head_after_the_other, faulty()],
        wrong={
            "tokens are cut, not channels": faulty(flat_cut=True),
            "put together without the transpose": faulty(flat_join=True),
            "both need a transpose": faulty(flat_cut=True, flat_join=True),
            "channels are dealt out in turns": faulty(cut="b n (three d h) -> three b h n d"),
            "put together in turns": faulty(join="b h n d -> b n (d h)"),
            "taken in turns from the 3·D": faulty(cut="b n (h d three) -> three b h n d"),
            "head after head, (h three d)": faulty(cut="b n (h three d) -> three b h n d"),
            "Is a transpose forgotten": lambda *given: given[0] @ given[1] + given[2],
            "the scale is √D": faulty(scale=3**-0.5),
            "the scale is missing": faulty(scale=5**0.5),
            "softmax ran over the wrong axis": faulty(axis=-2),
            "the projection is missing": faulty(last=False),
            "without its transpose": faulty(turned=True),
            "one head only": lambda *given: right(*given[:5], 1),
            "the bias of the projection is missing": lambda *given: right(*given) - given[4],
            "the bias of q, k and v is missing": lambda *given: right(
                *given[:2], 0 * given[2], *given[3:]
            ),
            "the residual connection is the block's": lambda *given: right(*given) + given[0],
            "(B, N, D) = (2, 7, 15) is expected": lambda *given: right(*given).flatten(1),
            "no gradient reaches the tokens": lambda *given: right(*given).detach(),
            "nothing comes back": lambda *given: None,
            "changed it; make a new tensor": changed_in_place(right),
        },
    )


# ---- 3.5 -----------------------------------------------------------------------------------------


def merged_at_the_end(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """The same by logarithms of sums: each block has a softmax, and blocks have one too."""
    outputs, totals = [], []
    for start in range(0, k.shape[-2], size):
        scores = scores_of(q, k[..., start : start + size, :])
        outputs.append(scores.softmax(dim=-1) @ v[..., start : start + size, :])
        totals.append(scores.logsumexp(dim=-1))
    shares = torch.stack(totals).softmax(dim=0)[..., None]
    return (shares * torch.stack(outputs)).sum(dim=0)


def streamed(
    begin: float = -math.inf,
    rescale_mix: bool = True,
    rescale_total: bool = True,
    subtract: bool = True,
    divide: bool = True,
    scale: bool = True,
    whole_blocks: bool = False,
    upside_down: bool = False,
    over: tuple[int, ...] = (-1,),
):
    def attend(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
        largest = torch.full_like(q[..., :1], begin)
        total, mix = torch.zeros_like(largest), torch.zeros_like(q)
        for keys, values in zip(k.split(size, dim=-2), v.split(size, dim=-2), strict=True):
            if whole_blocks and keys.shape[-2] < size:
                break
            scores = q @ keys.transpose(-2, -1) / (math.sqrt(q.shape[-1]) if scale else 1)
            new = torch.maximum(largest, scores.amax(dim=over, keepdim=True))
            new = new if subtract else torch.zeros_like(new)
            factor = (largest - new).exp() if subtract else torch.ones_like(new)
            factor = 1 / factor if upside_down else factor
            terms = (scores - new).exp()
            total = total * (factor if rescale_total else 1) + terms.sum(dim=-1, keepdim=True)
            mix = mix * (factor if rescale_mix else 1) + terms @ values
            largest = new
        return mix / total if divide else mix

    return attend


def mean_of_softmaxes(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    pairs = zip(k.split(size, dim=-2), v.split(size, dim=-2), strict=True)
    return torch.stack([plain_attention(q, keys, values)[0] for keys, values in pairs]).mean(0)


def sum_of_softmaxes(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    pairs = zip(k.split(size, dim=-2), v.split(size, dim=-2), strict=True)
    return torch.stack([plain_attention(q, keys, values)[0] for keys, values in pairs]).sum(0)


def last_block(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    return plain_attention(q, k.split(size, dim=-2)[-1], v.split(size, dim=-2)[-1])[0]


def rows_of_queries(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """A full softmax for some queries at a time."""
    return torch.cat([plain_attention(part, k, v)[0] for part in q.split(size, dim=-2)], dim=-2)


def in_chunks(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """`chunk(size)` makes `size` blocks, not blocks of `size`."""
    most = k.chunk(size, dim=-2)[0].shape[-2]
    return merged_at_the_end(q, k, v, most)


def upside_down_from_the_first_block(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    scores = scores_of(q, k[..., :size, :])
    largest = scores.amax(dim=-1, keepdim=True)
    terms = (scores - largest).exp()
    total, mix = terms.sum(dim=-1, keepdim=True), terms @ v[..., :size, :]
    for start in range(size, k.shape[-2], size):
        scores = scores_of(q, k[..., start : start + size, :])
        new = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        factor, terms = (new - largest).exp(), (scores - new).exp()
        total = factor * total + terms.sum(dim=-1, keepdim=True)
        mix = factor * mix + terms @ v[..., start : start + size, :]
        largest = new
    return mix / total


def by_einsum(q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
    """The weights of some queries without `@`."""
    outputs = []
    for part in q.split(size, dim=-2):
        weights = torch.einsum("bhnd,bhmd->bhnm", part / math.sqrt(q.shape[-1]), k).softmax(-1)
        outputs.append(torch.einsum("bhnm,bhmd->bhnd", weights, v))
    return torch.cat(outputs, dim=-2)


def test_attention_by_query_is_told_whatever_makes_the_product() -> None:
    message = check_blockwise_attention.message(by_einsum)
    assert message is not None and "not the queries" in message


def test_attention_in_blocks_of_keys() -> None:
    right = solution("03", "3.5")["blockwise_attention"]
    assert_told_apart(
        check_blockwise_attention,
        right=[right, merged_at_the_end, streamed()],
        wrong={
            "and their outputs are averaged": mean_of_softmaxes,
            "and their outputs are added": sum_of_softmaxes,
            "only the last block arrives": last_block,
            "which is shorter, is left out": streamed(whole_blocks=True),
            "the scale is missing": streamed(scale=False),
            "not divided by the sum": streamed(divide=False),
            "multiply both sums": streamed(rescale_mix=False, rescale_total=False),
            "made smaller and the sum is not": streamed(rescale_total=False),
            "made smaller and the mix is not": streamed(rescale_mix=False),
            "all N × M scores were there at once": lambda q, k, v, size: plain_attention(q, k, v)[
                0
            ],
            "because torch's kernel made them": lambda q, k, v, size: (
                F.scaled_dot_product_attention(q, k, v)
            ),
            "cut the keys and values into blocks": rows_of_queries,
            "`chunk(size)` makes": in_chunks,
            "the output is NaN": streamed(upside_down=True),
            "the factor is upside down: what was kept": upside_down_from_the_first_block,
            "the factor is upside down, and": streamed(upside_down=True, begin=0.0),
            "one largest score subtracted from all queries": streamed(over=(-2, -1)),
            "number; subtract the largest score so far": streamed(subtract=False),
            "must start at -inf, not at 0": streamed(begin=0.0),
            "nothing comes back": lambda q, k, v, size: None,
            "changed it; make a new tensor": changed_in_place(right),
        },
    )


# ---- what the lesson says ------------------------------------------------------------------------


@pytest.fixture
def layer() -> minivit.MultiHeadAttention:
    torch.manual_seed(0)
    layer = minivit.MultiHeadAttention(24, 4)
    torch.nn.init.normal_(layer.qkv.bias)
    return layer.eval()


def test_the_bias_of_the_keys_does_nothing_and_that_of_the_queries_does(
    layer: minivit.MultiHeadAttention,
) -> None:
    """Question 1."""
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        before = layer(x)[0]
        layer.qkv.bias[24:48] = 0  # the keys'
        assert torch.allclose(layer(x)[0], before, atol=1e-6)
        layer.qkv.bias[:24] = 0  # the queries'
        assert not torch.allclose(layer(x)[0], before, atol=1e-3)


@pytest.mark.parametrize(("axis", "leaks"), [(-1, False), (-2, True)])
def test_softmax_over_the_queries_lets_the_future_through_a_causal_mask(
    axis: int, leaks: bool
) -> None:
    """Question 2."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 6, 8) for _ in range(3))

    def earlier_outputs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = scores_of(q, k).masked_fill(~causal_mask(6, 6), -math.inf)
        return (scores.softmax(dim=axis) @ v)[:, :, :5]

    before = earlier_outputs(q, k, v)
    for part in (q, k, v):
        part[:, :, 5] += 1
    assert torch.allclose(earlier_outputs(q, k, v), before, atol=1e-6) is not leaks


def test_tokens_in_another_order_give_outputs_in_that_order(
    layer: minivit.MultiHeadAttention,
) -> None:
    """Question 3."""
    x, order = torch.randn(2, 7, 24), torch.randperm(7)
    with torch.no_grad():
        assert torch.allclose(layer(x[:, order])[0], layer(x)[0][:, order], atol=1e-6)
