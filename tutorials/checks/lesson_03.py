"""Checks of lesson 3: attention by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
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
    if [getattr(value, "shape", None) for value in pair] == [(2, 3, 4, 5), (2, 3, 4, 6)]:
        raise NotSolved("the two have changed places: the order is output, weights")
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

    hundreds = ask(answer, *(50 * part.detach() for part in (q, k)), v.detach())[1]
    if not hundreds.isfinite().all():
        raise NotSolved(
            "with scores in the hundreds the weights are not finite: e^score is too large for a "
            "float32; subtract the largest score of each row first, or call `softmax`, which does"
        )
    expect_close(
        hundreds,
        (2500 * scores / math.sqrt(6)).softmax(dim=-1),
        {},
        "with scores in the hundreds the weights are wrong: subtract the largest score of each "
        "row, not of all rows, before e^score",
        tolerance=1e-3,
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
    if isinstance(answer, str):
        raise NotSolved("a number is expected, and this is text: leave out the quotation marks")
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
    (gradient,) = torch.autograd.grad(weights.square().sum(), scores)
    if not gradient.isfinite().all():
        raise NotSolved(
            "the weights are right, and the gradient is NaN: a NaN was made and overwritten, and "
            "the way back leads through it. Was -inf added to the scores? Use `masked_fill`, or "
            "the lowest finite number. Does `torch.where` choose 0 instead of 0/0? It computes "
            "both; make the divisor 1 before you divide"
        )
    _expect_large_scores(answer)


def _expect_large_scores(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Scores of 200 and -200, of visible keys and of hidden ones."""
    rows = {
        "visible scores of 200": [200.0, 198.0, 0.0],
        "visible scores of -200": [-200.0, -202.0, -201.0],
        "a hidden score of 200": [0.0, -5.0, 200.0],
    }
    reasons = {
        "visible scores of 200": "e^200 is too large for a float32",
        "visible scores of -200": "e^-200 is 0 in float32, and so is the sum",
        "a hidden score of 200": "beside e^200 nothing is left of the visible keys' weights, and "
        "no division brings them back; softmax, or the maximum that you subtract, must see "
        "visible keys only: hide first",
    }
    mask = torch.tensor([True, True, False]).expand(1, 1, 1, 3)
    for name, numbers in rows.items():
        scores = torch.tensor(numbers).view(1, 1, 1, 3)
        weights = ask(answer, scores, mask)
        cure = "" if "hidden" in name else "; subtract the largest visible score, as softmax does"
        expect_close(
            weights,
            _masked(scores, mask),
            {},
            f"with {name} the weights are wrong or NaN: {reasons[name]}{cure}",
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
    try:
        output = ask(answer, *given)
    except NotSolved as wrong:
        if "cannot be multiplied" in str(wrong):
            raise NotSolved(
                f"{wrong}. Is a transpose forgotten? A linear layer is x @ weight.T + bias"
            ) from None
        raise
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
        sizes = {"three": 3, "h": count} if "(h " in parts else {"three": 3}
        three = rearrange(x.detach() @ qkv_weight.T + bias, parts, **sizes)
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
            "your lines take q, k and v head after head, (h three d): all of q comes first, then "
            "k, then v, and in each of them head after head, (three h d)": attend(
                parts="b n (h three d) -> three b n (h d)"
            ),
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


_PRODUCTS = {"matmul", "__matmul__", "einsum", "bmm", "mm", "tensordot", "linear"}


class _Watch(TorchFunctionMode):
    """Notes how an answer got its numbers.

    Args:
        keys: Number M of all keys.
        width: Number d of channels; a tensor with that side is no tensor of scores.
    """

    def __init__(self, keys: int, width: int) -> None:
        super().__init__()
        self._keys, self._width = keys, width
        self.kernel = False  # whether torch's fused kernel was called
        self.largest = 0  # number of elements of the largest tensor that was made
        self.whole_rows = False  # whether some query had its scores of all keys at once
        self.scores = 0  # number of scores that one product made at most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.kernel |= func is F.scaled_dot_product_attention
        if isinstance(result, Tensor) and result.numel() > 0:
            self.largest = max(self.largest, result.numel())
            if self._width not in result.shape:
                self.whole_rows |= self._keys in result.shape
                if getattr(func, "__name__", "") in _PRODUCTS:
                    self.scores = max(self.scores, result.numel())
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
    watch = _Watch(keys, d)
    with torch.no_grad(), watch:
        output = ask(answer, q, k, v, size)
    expect_shape(output, (2, 1, queries, d), "(B, H, N, d)")
    if output.isnan().any():
        raise NotSolved(
            "the output is NaN: what was kept is multiplied by e^(old - new), which is 0 where old "
            "is -inf. The other way round, e^(new - old), it is infinite, and infinity times 0 is "
            "NaN; so is -inf minus -inf"
        )
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
            "by e^(old - new)": _streamed(scores, v, size, mix=0, total=0),
            "the factor is upside down: what was kept must become smaller when the largest score "
            "grows; multiply it by e^(old - new), not by e^(new - old)": _streamed(
                scores, v, size, mix=-1, total=-1
            ),
            "the factor is upside down, and the largest score starts at 0 instead of -inf: what "
            "was kept is multiplied by e^(old - new)": _streamed(
                scores, v, size, mix=-1, total=-1, begin=0.0
            ),
            "when the largest score grows, the mix is made smaller and the sum is not": (
                _streamed(scores, v, size, mix=1, total=0)
            ),
            "when the largest score grows, the sum is made smaller and the mix is not": (
                _streamed(scores, v, size, mix=0, total=1)
            ),
        },
        "the numbers are not those of a softmax over all keys",
    )
    if watch.kernel:
        raise NotSolved(
            "the numbers are right, because torch's kernel made them: write the blocks yourself"
        )
    if watch.largest >= q.numel() // d * keys:
        raise NotSolved(
            "the numbers are right, but all N × M scores were there at once: make those of one "
            "block of keys, and forget them before the next"
        )
    if watch.whole_rows:
        raise NotSolved(
            "the numbers are right, but a query had the scores of all keys at once: cut the keys "
            "and values into blocks, not the queries"
        )
    if watch.scores > q.numel() // d * size:
        raise NotSolved(
            f"the numbers are right, but a block has more than `size` keys, {watch.scores} scores "
            f"instead of {q.numel() // d * size}: `split(size)` makes blocks of `size` keys, "
            "`chunk(size)` makes `size` blocks"
        )
    single, these, values = q[:1, :, :1], k[:1], v[:1]  # one query: N = 1
    if not _finite(ask(answer, 40 * single, 40 * these, values, size)):
        raise NotSolved(
            "with scores in the hundreds the output is not finite: e^score is too large for a "
            "number; subtract the largest score so far"
        )
    if not _finite(ask(answer, single, these - 2000 * single, values, size)):
        raise NotSolved(
            "where all scores of a query are far below 0, the output is not finite: the largest "
            "score so far must start at -inf, not at 0"
        )
    hundreds = ask(answer, 40 * q, 40 * k, v, size)
    if not _finite(hundreds):
        raise NotSolved(
            "with scores in the hundreds one query alone is right, and several are not finite: is "
            "one largest score subtracted from all queries? Where it is far above a query's own, "
            "e^(score - largest) is 0 for all keys; take `amax(dim=-1, keepdim=True)`"
        )
    expect_close(
        hundreds,
        (1600 * scores).softmax(dim=-1) @ v,
        {},
        "with scores in the hundreds the numbers are wrong: does the largest score start at 0 "
        "instead of -inf, or is a number of the first block used for all?",
    )


def _finite(value: Any) -> bool:
    return isinstance(value, Tensor) and bool(value.isfinite().all())


def _of_blocks(scores: Tensor, v: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean and sum of the outputs of blocks that have a softmax each."""
    pairs = zip(scores.split(size, dim=-1), v.split(size, dim=-2), strict=True)
    outputs = torch.stack([block.softmax(dim=-1) @ values for block, values in pairs])
    return outputs.mean(dim=0), outputs.sum(dim=0)


def _undivided(scores: Tensor, v: Tensor) -> Tensor:
    return (scores - scores.amax(dim=-1, keepdim=True)).exp() @ v


def _streamed(
    scores: Tensor, v: Tensor, size: int, *, mix: int, total: int, begin: float | None = None
) -> Tensor:
    """What comes out where mix and sum are multiplied by e^(old - new) to these powers, 1 is right.

    `begin` is the first largest score; None stands for that of the first block.
    """
    largest = scores[..., :size].amax(dim=-1, keepdim=True)
    largest = largest if begin is None else torch.full_like(largest, begin)
    summed, mixed = torch.zeros_like(largest), torch.zeros_like(scores[..., :1] * v[..., :1, :])
    for block, values in zip(scores.split(size, dim=-1), v.split(size, dim=-2), strict=True):
        new = torch.maximum(largest, block.amax(dim=-1, keepdim=True))
        terms, factor = (block - new).exp(), (largest - new).exp()
        summed = factor**total * summed + terms.sum(dim=-1, keepdim=True)
        mixed = factor**mix * mixed + terms @ values
        largest = new
    return mixed / summed
