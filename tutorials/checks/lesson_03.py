"""Checks of lesson 3: attention by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_gradient,
    expect_shape,
)

__all__ = [
    "check_attention",
    "check_blockwise_attention",
    "check_divisor",
    "check_masked_weights",
    "check_multi_head",
]


# ---- 3.1 the equation ----------------------------------------------------------------------------


@exercise("3.1", "Attention: scores, scale, softmax, mix")
def check_attention(answer: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Output and weights of (B, H, N, d), (B, H, M, d), (B, H, M, d); no two sizes are equal."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(2, 3, length, 6, generator=generator, requires_grad=True)
        for length in (4, 5, 5)
    )
    pair = ask(answer, q, k, v)
    if isinstance(pair, Tensor) or not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise NotSolved(
            "two tensors are expected, `return output, weights`, and something else comes back"
        )
    output, weights = pair
    shown = weights.detach() if isinstance(weights, Tensor) else weights
    if isinstance(weights, Tensor) and weights.shape == (2, 3, 5, 4):
        raise NotSolved(
            "the weights are (B, H, M, N): rows must be queries; multiply Q with the transpose of "
            "K, not K with that of Q"
        )
    expect_shape(weights, (2, 3, 4, 5), "the weights' (B, H, N, M)")
    _expect_rows_of_weights(shown)

    scores = q @ k.transpose(-2, -1)
    scaled = [
        ("the scale is missing: divide the scores by √d before softmax", 1.0),
        ("the scores are divided by d, not by its square root", 6.0),
        ("the scores are multiplied by √d where they should be divided", 1 / math.sqrt(6)),
        ("the scale is √M, of the number of keys: d is the last dimension of q", math.sqrt(5)),
        ("the scale is √N, of the number of queries: d is the last dimension of q", 2.0),
        ("the scale is √H, of the number of heads: d is the last dimension of q", math.sqrt(3)),
        ("the scale is √(H·d), of the whole width: each head has d channels", math.sqrt(18)),
    ]
    right = (scores / math.sqrt(6)).softmax(dim=-1)
    expect_close(
        weights,
        right,
        {words: (scores / divisor).softmax(dim=-1) for words, divisor in scaled},
        "rows sum to 1, but the numbers are not softmax(Q Kᵀ / √d)",
    )
    expect_shape(output, (2, 3, 4, 6), "the output's (B, H, N, d)")
    expect_close(
        output,
        right @ v,
        {
            "the weights mix the keys: the output is a mean of the values": right @ k,
            "the scores mix the values: use the weights, after softmax": scores @ v,
        },
        "the weights are right, and the output is not the weights times the values",
    )
    for source, name in ((q, "the queries"), (k, "the keys"), (v, "the values")):
        expect_gradient(output.square(), source, name)
    with torch.no_grad():
        _, weights = ask(answer, 60 * q, 60 * k, v)  # scores in the hundreds, as trained ones
    if not weights.isfinite().all():
        raise NotSolved(
            "with scores in the hundreds the weights are not finite: e^score is too large for a "
            "number; subtract the row's largest score first, or call `softmax`, which does"
        )


def _expect_rows_of_weights(weights: Tensor) -> None:
    """Not negative, and (B, H, N, M) sums to 1 over M; names the axis over which it does."""
    axes = {
        -2: "the queries: softmax ran over the wrong axis. Each query shares its weight among the "
        "keys, the last dimension",
        1: "the heads: softmax ran over the wrong axis. Say `dim=-1`, the keys",
        0: "the pictures of a batch: softmax ran over the wrong axis. Say `dim=-1`, the keys",
    }
    if _sums_to_one(weights, -1) and float(weights.min()) >= 0:
        return
    for axis, words in axes.items():
        if _sums_to_one(weights, axis):
            raise NotSolved(f"your weights sum to 1 over {words}")
    if float(weights.min()) < 0:
        raise NotSolved(
            "some weights are negative: these are scores; softmax is missing, or does not come last"
        )
    if _sums_to_one(weights * math.sqrt(6), -1) or _sums_to_one(weights / math.sqrt(6), -1):
        raise NotSolved(
            "√d came after softmax: rows no longer sum to 1; it must divide the scores, before"
        )
    sums = weights.sum(dim=-1)
    raise NotSolved(
        f"rows of the weights sum to {float(sums.min()):.2f} to {float(sums.max()):.2f} instead of "
        "1: nothing may be multiplied or left out after softmax"
    )


def _sums_to_one(weights: Tensor, axis: int) -> bool:
    sums = weights.sum(dim=axis)
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-4)


# ---- 3.2 a number that is measured ---------------------------------------------------------------

_WIDTH, _KEYS = 256, 64


@exercise("3.2", "The divisor with which a query looks at 8 keys of 64")
def check_divisor(answer: float) -> None:
    """The mean entropy of rows with this divisor, measured on rows of the check's own."""
    try:
        divisor = float(answer)
    except (TypeError, ValueError):
        raise NotSolved(f"a number is expected, and this is {type(answer).__name__}") from None
    if not 0 < divisor < math.inf:
        raise NotSolved(f"{divisor:g} divides nothing: a positive number is expected")
    generator = torch.Generator().manual_seed(4)
    q = torch.randn(1000, _WIDTH, 1, generator=generator)
    k = torch.randn(1000, _KEYS, _WIDTH, generator=generator)
    dots = (k @ q)[:, :, 0]  # (1000, M, d) x (1000, d, 1) -> (1000, M)
    measured, target = _mean_entropy(dots / divisor), math.log(_KEYS) / 2
    if abs(measured - target) < 0.05:
        return
    if abs(_mean_entropy(dots * divisor) - target) < 0.05:
        raise NotSolved("this is what q·k must be multiplied by: the divisor is 1 over it")
    if abs(_mean_entropy(dots / math.sqrt(_WIDTH) / divisor) - target) < 0.05:
        raise NotSolved(
            "this is what must divide q·k/√d: the question is by what q·k itself is divided"
        )
    if abs(measured / math.log(2) - target) < 0.05:
        raise NotSolved(
            "your entropy counts in bits, by the logarithm to base 2, and half of log 64 is in "
            "nats: use one logarithm for both"
        )
    keys = f"a row has {measured:.2f} nats, as {math.exp(measured):.1f} equal keys have, and not "
    keys += f"{target:.2f}"
    if abs(divisor - math.sqrt(_WIDTH)) < 0.01:
        raise NotSolved(f"16 is √d, with which {keys}: a smaller divisor makes rows sharper")
    side = "sharp: divide by more" if measured < target else "flat: divide by less"
    raise NotSolved(f"divided by {divisor:g}, {keys}: too {side}")


def _mean_entropy(scores: Tensor) -> float:
    """Mean over rows (…, M), in nats."""
    return float(torch.special.entr(scores.softmax(dim=-1)).sum(dim=-1).mean())


# ---- 3.3 masks -----------------------------------------------------------------------------------


@exercise("3.3", "A softmax with a mask")
def check_masked_weights(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Weights of visible keys; of nobody's; with gradients; with masks that broadcast."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    mask = torch.rand(2, 1, 4, 5, generator=generator) < 0.6
    mask[..., 1], mask[..., 3] = True, False  # every query sees a key, and one is hidden from all
    weights = ask(answer, scores, mask)
    expect_shape(weights, (2, 3, 4, 5), "(B, H, N, M)")
    right = _masked(scores, mask)
    plain = scores.softmax(dim=-1)
    expect_close(
        weights,
        right,
        {
            "hidden keys get all the weight: the mask is turned over; True means *may attend*": (
                _masked(scores, ~mask)
            ),
            "the mask comes after softmax: rows no longer sum to 1; hide the scores before it": (
                plain * mask
            ),
            "a hidden score became 0, and e^0 = 1 is not nothing: it must become -inf or the "
            "lowest number": (scores * mask).softmax(dim=-1),
            "the mask is not used: hidden keys get their weight as before": plain,
            "1 was subtracted from hidden scores, or a mask of 0 and 1 added to all: what is added "
            "to a hidden score must be -inf or the lowest number": (scores + mask).softmax(dim=-1),
            "softmax ran over the wrong axis: rows must sum to 1 over the last, the keys": (
                _masked(scores.transpose(-2, -1), mask.transpose(-2, -1)).transpose(-2, -1)
            ),
            "these are scores with hidden ones filled in: softmax is missing": (
                scores.masked_fill(~mask, -math.inf)
            ),
        },
        "the weights are not those of a softmax over the visible keys",
    )
    expect_gradient(weights.square(), scores, "the scores")

    with torch.no_grad():
        row = ask(answer, scores.detach(), mask[:, :, :1])  # (2, 1, 1, 5): one for all queries
    expect_shape(row, (2, 3, 4, 5), "(B, H, N, M) for a mask (B, 1, 1, M)")
    expect_close(
        row,
        _masked(scores, mask[:, :, :1]),
        {},
        "with a mask (B, 1, 1, M), one row for all queries, the weights are wrong",
    )

    blind = mask.clone()
    blind[:, :, 2] = False
    weights = ask(answer, scores, blind)
    expect_shape(weights, (2, 3, 4, 5), "(B, H, N, M)")
    if weights[:, :, 2].isnan().any():
        raise NotSolved(
            "a row without a visible key is NaN, 0/0: give it weights of 0 (the lowest finite "
            "number instead of -inf has no NaN; then set hidden weights to 0)"
        )
    expect_close(
        weights[:, :, 2],
        torch.zeros(2, 3, 5),
        {
            "a row without a visible key gets 1/M everywhere, since all its scores are equally "
            "low: set hidden weights to 0 after softmax too": torch.full((2, 3, 5), 0.2)
        },
        "a row without a visible key should have weights of 0, and has others",
    )
    expect_close(weights, _masked(scores, blind), {}, "a row without a visible key changes others")
    _expect_large_scores_to_do_no_harm(answer)
    (gradient,) = torch.autograd.grad(weights.square().sum(), scores)
    if not gradient.isfinite().all():
        raise NotSolved(
            "the weights are right, and the gradient is NaN: -inf was added to the scores, a NaN "
            "made and overwritten, and the way back leads through it; use `masked_fill`, or the "
            "lowest finite number"
        )


def _expect_large_scores_to_do_no_harm(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Scores in the hundreds, as trained ones: visible in row 0, a hidden one in row 1."""
    scores = torch.tensor([[200.0, 199.0, 0.0], [200.0, 0.0, -5.0]])
    mask = torch.tensor([[True, True, True], [False, True, True]])
    with torch.no_grad():
        weights = ask(answer, scores, mask)
    if not weights[0].isfinite().all():
        raise NotSolved(
            "with scores of 200 the weights are not finite: e^200 is too large for a number; "
            "subtract the largest score first, or call `softmax`, which does"
        )
    expect_close(
        weights,
        _masked(scores, mask),
        {},
        "a hidden key with a score of 200 takes all weight before it is hidden, and nothing is "
        "left to divide: hide the scores, then take softmax",
    )


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    weights = scores.detach().masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)


# ---- 3.4 heads -----------------------------------------------------------------------------------


@exercise("3.4", "Self-attention with heads")
def check_multi_head(answer: Callable[..., Tensor]) -> None:
    """Against one head after the other; B = 2, N = 7, H = 3, d = 5."""
    generator = torch.Generator().manual_seed(6)
    batch, length, count, width = 2, 7, 3, 15
    x = torch.randn(batch, length, width, generator=generator, requires_grad=True)
    qkv_weight = torch.randn(3 * width, width, generator=generator) / 2
    qkv_bias = torch.randn(3 * width, generator=generator)
    proj_weight = torch.randn(width, width, generator=generator) / 4
    proj_bias = torch.randn(width, generator=generator)
    given = (x, qkv_weight, qkv_bias, proj_weight, proj_bias, count)
    output = ask(answer, *given)
    expect_shape(output, (batch, length, width), "(B, N, D)")

    def attend(
        *,
        cut: str = "b n (h d) -> b h n d",
        join: str = "b h n d -> b n (h d)",
        parts: str = "b n (three c) -> three b n c",
        order: tuple[int, int, int] = (0, 1, 2),
        divisor: float = math.sqrt(5),
        axis: int = -1,
        heads: int = count,
        bias: Tensor = qkv_bias,
        project: Callable[[Tensor], Tensor] = lambda y: y @ proj_weight.T + proj_bias,
    ) -> Tensor:
        """The right answer, or one with a single fault."""
        three = rearrange(x.detach() @ qkv_weight.T + bias, parts, three=3)
        q, k, v = (
            three[part].reshape(batch, heads, length, -1)
            if cut == "view"
            else rearrange(three[part], cut, h=heads)
            for part in order
        )
        together = (q @ k.transpose(-2, -1) / divisor).softmax(dim=axis) @ v
        if join == "view":
            return project(together.reshape(batch, length, width))
        return project(rearrange(together, join))

    expect_close(
        output,
        attend(),
        {
            "there is one head only: cut q, k and v into `num_heads` groups of channels": attend(
                heads=1, divisor=math.sqrt(15)
            ),
            "tokens are cut, not channels: `view(B, H, N, d)` keeps the order in memory; view as "
            "(B, N, H, d), then transpose": attend(cut="view"),
            "heads are put together without the transpose: flattening (B, H, N, d) mixes tokens; "
            "make it (B, N, H, d) first": attend(join="view"),
            "tokens are cut, and put together the same way: both need a transpose between "
            "(B, N, H, d) and (B, H, N, d)": attend(cut="view", join="view"),
            "channels are dealt out in turns, (d h) instead of (h d): the first d channels are "
            "those of head 0": attend(cut="b n (d h) -> b h n d"),
            "channels of the heads are put together in turns, (d h) instead of (h d)": attend(
                join="b h n d -> b n (d h)"
            ),
            "q, k and v are taken in turns from the 3·D channels: they lie below each other, the "
            "first D channels are q": attend(parts="b n (c three) -> three b n c"),
            "q and k have changed places: the order is q, k, v": attend(order=(1, 0, 2)),
            "q, k and v are in another order: it is q, k, v": attend(order=(2, 1, 0)),
            "the scale is √D, of the whole width: each head has d = D/H channels": attend(
                divisor=math.sqrt(15)
            ),
            "the scale is missing: divide the scores by √d": attend(divisor=1.0),
            "softmax ran over the wrong axis: each query shares its weight among the keys, the "
            "last dimension": attend(axis=-2),
            "the bias of q, k and v is missing": attend(bias=torch.zeros_like(qkv_bias)),
            "the projection is missing: the heads' outputs are mixed by `proj` at the end": attend(
                project=lambda y: y
            ),
            "the bias of the projection is missing": attend(project=lambda y: y @ proj_weight.T),
            "the projection's matrix is used without its transpose: a linear layer is x Wᵀ + b": (
                attend(project=lambda y: y @ proj_weight + proj_bias)
            ),
            "the input is added: the residual connection is the block's, not the layer's": (
                attend() + x.detach()
            ),
        },
        "the shape is right and the numbers are not, by no mistake that this check knows: compare "
        "with a loop over the heads",
        tolerance=1e-4,
    )
    expect_gradient(output.square(), x, "the tokens")


# ---- 3.5 blocks of keys --------------------------------------------------------------------------


class _Shapes(TorchFunctionMode):
    """Remembers the last two sides of all tensors that are made, and calls of torch's kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: set[tuple[int, int]] = set()
        self.kernel = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kernel |= func is torch.nn.functional.scaled_dot_product_attention
        if isinstance(result, Tensor) and result.dim() > 1:
            self.sides.add((result.shape[-2], result.shape[-1]))
        return result


@exercise("3.5", "Attention from a few keys at a time")
def check_blockwise_attention(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """50 keys of which 4 are seen at a time; scores near 0, then in the hundreds."""
    generator = torch.Generator().manual_seed(7)
    queries, keys, size, d = 20, 50, 4, 3
    q, k, v = (
        torch.randn(2, 1, length, d, generator=generator, dtype=torch.float64)
        for length in (queries, keys, keys)
    )
    made = _Shapes()
    with torch.no_grad(), made:
        output = ask(answer, q, k, v, size)
    expect_shape(output, (2, 1, queries, d), "(B, H, N, d)")
    scores = q @ k.transpose(-2, -1) / math.sqrt(d)
    right = scores.softmax(dim=-1) @ v
    mean_of_blocks, sum_of_blocks = _of_blocks(scores, v, size)
    whole = keys - keys % size
    expect_close(
        output,
        right,
        {
            "each block has a softmax of its own, and their outputs are averaged: blocks with "
            "large scores must count more": mean_of_blocks,
            "each block has a softmax of its own, and their outputs are added: one sum must divide "
            "them all, at the end": sum_of_blocks,
            "only the last block arrives: what earlier blocks gave must be kept": (
                scores[..., whole:].softmax(dim=-1) @ v[..., whole:, :]
            ),
            "the last block, which is shorter, is left out": (
                scores[..., :whole].softmax(dim=-1) @ v[..., :whole, :]
            ),
            "the scale is missing: divide by √d": (scores * math.sqrt(d)).softmax(dim=-1) @ v,
            "the mix is not divided by the sum at the end": _undivided(scores, v),
            "when the largest score grows, what was kept is not made smaller: multiply both sums "
            "by e^(old - new)": _not_rescaled(scores, v, size, mix=True, total=True),
            "when the largest score grows, the mix is made smaller and the sum is not": (
                _not_rescaled(scores, v, size, mix=False, total=True)
            ),
            "when the largest score grows, the sum is made smaller and the mix is not": (
                _not_rescaled(scores, v, size, mix=True, total=False)
            ),
        },
        "the numbers are not those of a softmax over all keys",
    )
    if made.kernel:
        raise NotSolved(
            "the numbers are right, and torch's kernel made them: here you write what it does "
            "inside"
        )
    widths = {wide for rows, wide in made.sides if rows == queries and wide != d}
    if keys in widths:
        raise NotSolved(
            "the numbers are right, but all N × M scores were there at once: make those of one "
            "block of keys, and forget them before the next"
        )
    if any(wide == keys and rows not in (d, queries) for rows, wide in made.sides):
        raise NotSolved(
            "the numbers are right, but the blocks are of queries: each has the scores of all M "
            "keys at once; take a few keys at a time, for all queries"
        )
    if max(widths, default=0) > size:
        raise NotSolved(
            f"the numbers are right, but {max(widths)} keys were seen at once, and `size` is "
            f"{size}: `split(size)` cuts pieces of that length, `chunk(size)` that many pieces"
        )
    hundreds = ask(answer, 40 * q, 40 * k, v, size)
    if not (isinstance(hundreds, Tensor) and hundreds.isfinite().all()):
        raise NotSolved(
            "with scores in the hundreds the output is not finite: e^score is too large for a "
            "number, or all terms of a query became 0; subtract the query's own largest score so "
            "far, and begin with m = -inf"
        )
    expect_close(
        hundreds,
        (1600 * scores).softmax(dim=-1) @ v,
        {},
        "with scores in the hundreds the numbers are wrong: does the largest score start at 0 "
        "instead of -inf, or is a number of the first block used for all?",
    )
    low = ask(answer, q, k - 2000 * q[..., :1, :], v, size)  # all scores of query 0 far below 0
    if not (isinstance(low, Tensor) and low.isfinite().all()):
        raise NotSolved(
            "where all scores of a query are far below 0, the output is not finite: the largest "
            "score so far must start at -inf, not at 0"
        )


def _of_blocks(scores: Tensor, v: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and sum of the outputs of blocks that have a softmax each."""
    pairs = zip(scores.split(size, dim=-1), v.split(size, dim=-2), strict=True)
    outputs = torch.stack([block.softmax(dim=-1) @ values for block, values in pairs])
    return outputs.mean(dim=0), outputs.sum(dim=0)


def _undivided(scores: Tensor, v: Tensor) -> Tensor:
    return (scores - scores.amax(dim=-1, keepdim=True)).exp() @ v


def _not_rescaled(scores: Tensor, v: Tensor, size: int, *, mix: bool, total: bool) -> Tensor:
    """What comes out where the mix, the sum or both are kept as they are."""
    largest = scores.new_full((*scores.shape[:-1], 1), -math.inf)
    summed, mixed = torch.zeros_like(largest), torch.zeros_like(scores[..., :1] * v[..., :1, :])
    for block, values in zip(scores.split(size, dim=-1), v.split(size, dim=-2), strict=True):
        new = torch.maximum(largest, block.amax(dim=-1, keepdim=True))
        terms, factor = (block - new).exp(), (largest - new).exp()
        summed = (summed if total else factor * summed) + terms.sum(dim=-1, keepdim=True)
        mixed = (mixed if mix else factor * mixed) + terms @ values
        largest = new
    return mixed / summed
