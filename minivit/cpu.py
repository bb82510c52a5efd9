"""What makes a CPU faster: the numbers of the plain code, computed in another way.

What is computed is said by `attention.py`, `blocks.py` and `captioner.py`, which call this where it
is faster. Three things cost a CPU more than arithmetic:

* A word that is being written is one token, or one a beam: each matrix is read from memory for a
  few products with it, and torch gives such a product to a single core, which cannot read as fast
  as all of them. `linear` cuts W into parts of as many rows and makes the parts a batch of
  products, which the cores share. On two cores a captioner's word takes 6 ms instead of 12.
* Fresh memory is handed out by the system page by page. `attention_in_place` lets one piece of it
  hold the scores and then the weights.
* torch's fused kernel does not use the instructions for bfloat16 that its matrix products use.
  `attention_by_entry` makes the products, one entry of the batch after the other, in one piece of
  memory: 1.2 to 1.6 times as fast from 200 to 4,000 tokens with AVX-512, slower below 100.
"""

from __future__ import annotations

import functools
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_TOKENS = 32
LARGE_MATRIX = 2**16  # weights; for fewer, waiting for the other cores takes longer than reading
MOST_PARTS = 24  # enough for any cores, and a divisor, or nearly, of the usual widths


# ---- products with few tokens ------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as `F.linear`; for a few tokens on a CPU, without gradients, by all cores.

    Args:
        x: (…, C).
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        (…, D), equal to that of `F.linear` to float precision.
    """
    num_tokens = math.prod(x.shape[:-1])
    few = 0 < num_tokens <= FEW_TOKENS and weight.numel() >= LARGE_MATRIX
    if not few or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    rows, channels = weight.shape
    parts = math.gcd(rows, MOST_PARTS)
    matrices = weight.view(parts, -1, channels)  # (D, C) -> (P, D/P, C)
    columns = x.reshape(num_tokens, channels).t().expand(parts, -1, -1)  # (…, C) -> (P, C, N)
    if bias is None:
        products = matrices @ columns  # (P, D/P, N)
    else:
        products = torch.baddbmm(bias.view(parts, -1, 1), matrices, columns)  # (P, D/P, N)
    # Copied, or what follows would read tokens with gaps and take twice as long for a beam of 4.
    output = products.view(rows, num_tokens).t().contiguous()  # (P, D/P, N) -> (N, D)
    return output.view(*x.shape[:-1], rows)  # (N, D) -> (…, D)


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, C) to (…, D)."""
        return linear(input, self.weight, self.bias)


# ---- softmax(QKᵀ/√d)V --------------------------------------------------------------------------


def may_write_in_place(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Whether the next may stand for the plain equation: on a CPU, without gradients.

    It is called outside autocast, which does not look at what writes into given memory.
    """
    if query.device.type != "cpu":
        return False
    learned = (query, key) if mask is None else (query, key, mask)
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned))


def attention_in_place(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`minivit.attention.plain_attention` with one piece of memory for scores and weights."""
    memory = query.new_empty(*query.shape[:-1], key.shape[-2])  # (B, H, N, M)
    weights = write_weights(memory, query, key, mask)
    return F.dropout(weights, dropout, training=dropout > 0).to(value.dtype) @ value, weights


def write_weights(memory: Tensor, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """The weights of `query` and `key`, in the memory given.

    Args:
        memory: (B, H, N, M), written and returned.
        query: (B, H, N, d).
        key: (B, H, M, d).
        mask: Broadcastable to (B, H, N, M), as in `minivit.attention.plain_attention`.
    """
    torch.matmul(query / math.sqrt(query.shape[-1]), key.transpose(-2, -1), out=memory)
    if mask is None:
        return torch.softmax(memory, dim=-1, out=memory)
    if mask.dtype != torch.bool:
        memory += mask
    hidden = mask.logical_not() if mask.dtype == torch.bool else mask.isneginf()
    memory.masked_fill_(hidden, torch.finfo(memory.dtype).min)
    return torch.softmax(memory, dim=-1, out=memory).masked_fill_(hidden, 0.0)


@functools.cache
def bf16_slowdown() -> float:
    """Time of a matrix product in bfloat16 divided by the time of the same one in float32.

    0.3 to 0.5 where the processor has instructions for bfloat16 (AVX-512 BF16, AMX), 2 to 40 where
    it emulates them. Measured once a process, in 0.05 s, or 0.4 s where it is slow: the fastest of
    ten products each, in turns, so that other programs disturb both alike.
    """
    half, single = (torch.ones(256, 256, dtype=kind) for kind in (torch.bfloat16, torch.float32))
    times = {half: math.inf, single: math.inf}
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        for _ in range(10):
            for matrix in times:
                start = time.perf_counter()
                torch.matmul(matrix, matrix)
                times[matrix] = min(times[matrix], time.perf_counter() - start)
    return times[half] / times[single]


def is_faster_by_entry(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attention_by_entry` beats the fused kernel, without taking much memory.

    With AVX-512 for bfloat16 it does, by 1.2 to 1.6 from 200 to 4,000 tokens; with AVX2 alone it
    takes twice as long.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value)):
        return False
    batch_size, num_heads, num_queries, _ = query.shape
    num_keys = key.shape[2]
    weights = num_heads * num_queries * num_keys  # of one entry
    fits = batch_size > 0 and min(num_queries, num_keys) >= 128 and weights <= 2**24  # 32 MiB
    return fits and bf16_slowdown() < 1


def attention_by_entry(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The output alone; one piece of memory holds the weights of one entry after the other.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d).

    Returns:
        (B, H, N, d).
    """
    memory = query.new_empty(*query.shape[1:3], key.shape[2])  # (H, N, M)
    entries = zip(query, key, value, strict=True)
    return torch.stack([write_weights(memory, q, k, None) @ v for q, k, v in entries])
