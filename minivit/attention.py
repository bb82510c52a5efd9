"""Attention: every token asks, every token answers.

Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762), equation 1::

    Attention(Q, K, V) = softmax(Q Kᵀ / √d) V

`scaled_dot_product_attention` is that equation, and the only place where it stands. It has three
ways to the same output, chosen by the caller, call by call:

* weights not wanted: torch's fused kernel, which never writes the (N, M) weights to memory (but
  in bfloat16 on a CPU the equation, entry by entry of the batch, where that is faster);
* all weights wanted: the equation, line by line;
* some rows wanted: the fused kernel for the output, and the softmax once more for those rows alone.

Shapes: B batch, N query tokens, M key tokens, H heads, d head width, D = H·d.
Boolean masks: True = may attend. Weights are `[query, key]`: the row looks at the column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.cpu import Linear, linear


@dataclass(frozen=True)
class AttentionRows:
    """Which rows of which attention maps to return beside the fused kernel.

    Attributes:
        blocks: Block numbers; negative ones count from the last block.
        queries: Query tokens (0 is the class token where there is one); negative ones count from
            the last token.
    """

    blocks: Sequence[int]
    queries: Sequence[int]


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, *, buffer: Tensor | None = None
) -> Tensor:
    """The weights softmax(Q Kᵀ / √d): what each query gives to each key.

    Without gradients on a CPU one piece of memory holds the scores and then the weights, because
    asking the system for fresh pages costs more than the arithmetic.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        mask: Broadcastable to (B, H, N, M). Boolean, True = may attend; or floating, added to the
            scores. A query that may attend to nothing gets weights of zero.
        buffer: (B, H, N, M), contiguous. Receives the weights, so that a caller that needs the
            weights only for a moment can use the same memory for every call. Only without
            gradients.

    Returns:
        (B, H, N, M), each row summing to 1 (to 0 where every key is masked).

    Raises:
        ValueError: A buffer was given while gradients are recorded, or of another shape.
    """
    shape = (*query.shape[:-1], key.shape[-2])
    mask = _fit_mask(mask, query)
    learned = (query, key) if mask is None else (query, key, mask)
    recording = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned)
    if buffer is not None and recording:
        raise ValueError("attention weights cannot go into a buffer while gradients are recorded")
    if buffer is not None and (buffer.shape != shape or not buffer.is_contiguous()):
        raise ValueError(
            f"the buffer for attention weights is {tuple(buffer.shape)}, expected a contiguous "
            f"tensor of shape {shape}"
        )
    hidden = None
    if mask is not None:
        hidden = mask.logical_not() if mask.dtype == torch.bool else mask.isneginf()
    query = query / math.sqrt(query.shape[-1])

    converts = torch.is_autocast_enabled(query.device.type) and query.dtype == torch.float32
    if recording or query.device.type != "cpu" or converts:
        scores = query @ key.transpose(-2, -1)  # (B, H, N, d) x (B, H, d, M) -> (B, H, N, M)
        if mask is not None and mask.dtype != torch.bool:
            scores = scores + mask
        if hidden is None:
            weights = scores.softmax(dim=-1)
        else:  # the lowest finite number instead of -inf: a row of nothing but -inf would be NaN
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
            weights = scores.softmax(dim=-1).masked_fill(hidden, 0.0)
        return weights if buffer is None else buffer.copy_(weights)

    weights = query.new_empty(shape) if buffer is None else buffer
    torch.matmul(query, key.transpose(-2, -1), out=weights)
    if mask is not None and mask.dtype != torch.bool:
        weights += mask
    if hidden is not None:
        weights.masked_fill_(hidden, torch.finfo(weights.dtype).min)
    torch.softmax(weights, dim=-1, out=weights)
    return weights if hidden is None else weights.masked_fill_(hidden, 0.0)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool | Sequence[int] = False,
    buffer: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q Kᵀ / √d) V (arXiv:1706.03762, equation 1), with the weights if they are wanted.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d).
        mask: As in `attention_weights`.
        is_causal: The last query is aligned with the last key, and no query sees a later key.
        dropout: Probability that a weight is dropped on its way to the values. The weights that
            are returned are those before dropout.
        need_weights: False: none, the fused kernel. True: all of them, the explicit equation.
            A sequence of query numbers: these rows, beside the fused kernel.
        buffer: Memory for all the weights, as in `attention_weights`.

    Returns:
        The output (B, H, N, d), and None, the weights (B, H, N, M) or the rows
        (B, H, len(need_weights), M).

    Raises:
        IndexError: A query number beyond the N queries.
    """
    is_causal = is_causal and query.shape[-2] > 1  # one query, the last, sees every key: no mask
    if is_causal and (mask is not None or query.shape[-2] != key.shape[-2]):
        mask = merge_masks(mask, causal_mask(query.shape[-2], key.shape[-2], query.device))
        is_causal = False
    if need_weights is True:
        if is_causal:
            mask = causal_mask(query.shape[-2], key.shape[-2], query.device)
        weights = attention_weights(query, key, mask, buffer=buffer)
        return F.dropout(weights, dropout, training=dropout > 0) @ value, weights

    mask = _fit_mask(mask, query)
    if mask is None and not is_causal and dropout == 0 and _faster_by_entry(query, key, value):
        output = _by_entry(query, key, value)
    else:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
        )
    if need_weights is False:
        return output, None
    rows = _row_numbers(need_weights, query.shape[-2])
    if is_causal:  # the asked rows of the causal mask, without making the others
        places = torch.arange(key.shape[-2], device=query.device)
        mask = places <= places[rows, None]
    elif mask is not None and mask.shape[-2] > 1:  # one row serves all queries otherwise
        mask = mask[..., rows, :]
    return output, attention_weights(query[..., rows, :], key, mask)


def _faster_by_entry(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `_by_entry` takes less time than the fused kernel, and not much memory.

    Measured with AVX-512 for bfloat16, which the matrix products use and the fused kernel does not:
    1.2 to 1.6 times as fast from 200 to 4,000 tokens, slower below 100.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return False
    if torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value)):
        return False
    batch_size, num_heads, num_queries, _ = query.shape
    num_keys = key.shape[2]
    weights = num_heads * num_queries * num_keys  # of one entry
    return batch_size > 0 and min(num_queries, num_keys) >= 128 and weights <= 2**24  # 32 MiB


def _by_entry(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The output; one piece of memory holds the weights of one entry of the batch after the other.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d).
    """
    buffer = query.new_empty(*query.shape[1:3], key.shape[2])  # (H, N, M)
    entries = zip(query, key, value, strict=True)
    return torch.stack([attention_weights(q, k, buffer=buffer) @ v for q, k, v in entries])


def _fit_mask(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """As the fused kernel wants it: at least (1, M); an additive one of the query's precision."""
    if mask is None:
        return None
    mask = mask[None] if mask.dim() < 2 else mask
    return mask if mask.dtype == torch.bool else mask.to(query.dtype)


def _row_numbers(queries: Sequence[int], num_queries: int) -> list[int]:
    for query in queries:
        if not -num_queries <= query < num_queries:
            raise IndexError(
                f"attention row {query} was asked for, but there are {num_queries} query tokens: "
                f"choose from {-num_queries} to {num_queries - 1}"
            )
    return [query % num_queries for query in queries]


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """(N, M) boolean mask in which the last query sees every key, the one before it all but one."""
    offset = num_keys - num_queries
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(offset)


def merge_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The mask that applies both: a key is seen only where both masks let it be seen.

    Args:
        first: None, boolean (True = may attend) or floating (added to the scores).
        second: Likewise; the shapes broadcast to each other.
    """
    if first is None or second is None:
        return first if second is None else second
    if first.dtype == torch.bool and second.dtype == torch.bool:
        return first & second
    dtype = second.dtype if first.dtype == torch.bool else first.dtype
    return _additive(first, dtype) + _additive(second, dtype)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, float("-inf"))


class KeyValueCache:
    """Keys and values of the tokens seen so far, for decoding one token at a time.

    It belongs to the decoding call, not to the layer: two sentences are two caches. Memory is
    taken once, for `max_length` tokens.

    Attributes:
        length: Number of tokens held.
    """

    def __init__(
        self,
        batch_size: int,
        num_heads: int,
        max_length: int,
        head_dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        shape = (batch_size, num_heads, max_length, head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def keys(self) -> Tensor:
        """(B, H, length, d), a view."""
        return self._keys[:, :, : self.length]

    @property
    def values(self) -> Tensor:
        """(B, H, length, d), a view."""
        return self._values[:, :, : self.length]

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the keys and values of new tokens and returns all of them.

        Args:
            key: (B, H, new, d).
            value: (B, H, new, d).

        Returns:
            `keys` and `values`, (B, H, length, d).

        Raises:
            ValueError: More tokens than `max_length`.
        """
        end = self.length + key.shape[2]
        if end > self._keys.shape[2]:
            raise ValueError(
                f"the key/value cache holds {self._keys.shape[2]} tokens and was given {end}: "
                "make it with a larger max_length"
            )
        self._keys[:, :, self.length : end] = key
        self._values[:, :, self.length : end] = value
        self.length = end
        return self.keys, self.values

    def reorder(self, beam_index: Tensor) -> None:
        """Lets entry i of the batch go on from what entry `beam_index[i]` held.

        Args:
            beam_index: (B,) whole numbers.
        """
        self.keys.copy_(self.keys.index_select(0, beam_index))
        self.values.copy_(self.values.index_select(0, beam_index))


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on its own d of the D channels (arXiv:1706.03762, 3.2.2).

    ::

        head_i = Attention(x W_iQ, y W_iK, z W_iV)        output = concat(head_1 … head_H) W_O

    All of W_Q, W_K, W_V lie in one matrix, `qkv`, one below the other, the layout of the public
    ViT checkpoints; self-attention then is one matrix product instead of three.

    Args:
        dim: D, the width of the tokens.
        num_heads: H; must divide D.
        qkv_bias: Whether the projections to Q, K and V have a bias.
        dropout: Probability of dropping an attention weight in training.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    def __init__(
        self, dim: int, num_heads: int, *, qkv_bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(
                f"num_heads is {num_heads} and the width is {dim}: the heads must share the "
                "width evenly"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
        need_weights: bool | Sequence[int] = False,
        buffer: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of `query` to `key` and `value`; to itself when these are left out.

        Args:
            query: (B, N, D).
            key: (B, M, D); None for self-attention: the same as `query`.
            value: (B, M, D); None: the same as `key`. DETR and CATR add positions to queries and
                keys only.
            mask: Broadcastable to (B, H, N, M); boolean (True = may attend) or added to the scores.
            key_mask: (B, M) boolean, True = a real token that may be attended to.
            is_causal: No query sees a key that comes after it.
            cache: Self-attention: the new keys and values are added and all of the cache is
                attended to. Cross-attention: keys and values are computed at the first call and
                read at the later ones.
            need_weights: As in `scaled_dot_product_attention`.
            buffer: Memory for the weights, as in `attention_weights`.

        Returns:
            The output (B, N, D), and the weights (B, H, N, M), or the asked rows of them, or None.
        """
        q, k, v = self._project(query, key, value, cache)
        if key_mask is not None:
            mask = merge_masks(mask, key_mask[:, None, None, :])  # (B, M) -> (B, 1, 1, M)
        output, weights = scaled_dot_product_attention(
            q,
            k,
            v,
            mask=mask,
            is_causal=is_causal,
            dropout=self.dropout if self.training else 0.0,
            need_weights=need_weights,
            buffer=buffer,
        )
        output = output.transpose(1, 2).flatten(2)  # (B, H, N, d) -> (B, N, D)
        return self.proj(output), weights

    def _project(
        self, query: Tensor, key: Tensor | None, value: Tensor | None, cache: KeyValueCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Q (B, H, N, d), K and V (B, H, M, d), the cache taken into account."""
        if key is None and value is None:
            q, k, v = self._heads(self.qkv(query))
        elif key is None:
            q, k = self._heads(self._part(query, 0, 2))  # of the same tokens: one product
            (v,) = self._heads(self._part(cast(Tensor, value), 2, 3))
        else:
            (q,) = self._heads(self._part(query, 0, 1))
            if cache is not None and cache.length:
                return q, cache.keys, cache.values
            if value is None:
                k, v = self._heads(self._part(key, 1, 3))
            else:
                (k,) = self._heads(self._part(key, 1, 2))
                (v,) = self._heads(self._part(value, 2, 3))
        if cache is not None:
            k, v = cache.append(k, v)
        return q, k, v

    def _part(self, tokens: Tensor, first: int, end: int) -> Tensor:
        """Of Q (0), K (1) and V (2) those from `first` to before `end`, side by side."""
        dim = self.proj.in_features
        part = slice(first * dim, end * dim)
        bias = None if self.qkv.bias is None else self.qkv.bias[part]
        return linear(tokens, self.qkv.weight[part], bias)  # (B, N, D) -> (B, N, (end - first)·D)

    def _heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """(B, N, n·D), n projections side by side, to n of (B, H, N, d)."""
        # Plain views: six calls of einops a block took 4 % of the time of a captioner's word.
        batch, length, width = projected.shape
        dim = self.proj.in_features
        parts = (width // dim, self.num_heads, dim // self.num_heads)
        heads = projected.reshape(batch, length, *parts)  # (B, N, n·D) -> (B, N, n, H, d)
        return heads.permute(2, 0, 3, 1, 4).unbind()  # (B, N, n, H, d) -> n of (B, H, N, d)
