"""Attention: each token becomes a weighted mean of what all tokens have to give.

Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762), equation 1::

    Attention(Q, K, V) = softmax(Q Kᵀ / √d) V

`plain_attention` is that equation, line by line. `scaled_dot_product_attention` comes to the same
numbers in three ways, chosen by the caller, call by call:

* weights not wanted: torch's fused kernel, which never writes the (N, M) weights to memory;
* all weights wanted: the equation;
* some rows wanted: the fused kernel for the output, and the equation once more for those rows.

`MultiHeadAttention` puts H attentions side by side. Beside this file stand `masks.py`, `cpu.py`
(what makes a CPU faster) and `precision.py` (what keeps weights exact in half precision).

Shapes: B batch, N query tokens, M key tokens, H heads, d head width, D = H·d.
Boolean masks: True = may attend. Weights are `[query, key]`: the row looks at the column.

Next: `minivit/blocks.py`, attention and a small network for every token, each added to its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.cpu import (
    Linear,
    attention_by_entry,
    attention_in_place,
    is_faster_by_entry,
    linear,
    may_write_in_place,
)
from minivit.fields import renamed_arguments, warn_renamed
from minivit.masks import causal_mask as causal_mask
from minivit.masks import fit_mask, mask_of_rows
from minivit.masks import merge_masks as merge_masks
from minivit.precision import exact_linear, is_plain, is_rounded, no_autocast, widen


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """softmax(Q Kᵀ / √d) V, and the weights: what each query gives to each key.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d); may be less precise than the others, then the output is so too.
        mask: Broadcastable to (B, H, N, M). Boolean, True = may attend; or floating, added to the
            scores. A query that may attend to nothing gets weights of zero.
        dropout: Probability that a weight is dropped on its way to the values.

    Returns:
        The output (B, H, N, d), and the weights (B, H, N, M) before dropout, each row summing to 1
        (to 0 where every key is masked).
    """
    query = query / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(-2, -1)  # (B, H, N, d) x (B, H, d, M) -> (B, H, N, M)
    scores = _mask_scores(scores, mask)
    weights = _mask_weights(scores.softmax(dim=-1), mask)
    output = F.dropout(weights, dropout, training=dropout > 0).to(value.dtype) @ value
    return output, weights


def _mask_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Adds a floating mask; where a query may not look, the lowest number.

    Not -inf: the softmax of a row of nothing but -inf, and its gradient, would be NaN.
    """
    if mask is None:
        return scores
    if mask.dtype != torch.bool:
        scores = scores + mask
    return scores.masked_fill(_hidden(mask), torch.finfo(scores.dtype).min)


def _mask_weights(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros where a query may not look, also for one that may look nowhere."""
    return weights if mask is None else weights.masked_fill(_hidden(mask), 0.0)


def _hidden(mask: Tensor) -> Tensor:
    return mask.logical_not() if mask.dtype == torch.bool else mask.isneginf()


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`plain_attention` with weights in float32 at least, in one piece of memory where that may be.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d).
        mask: As in `plain_attention`.
        dropout: As in `plain_attention`.

    Returns:
        The output (B, H, N, d), as precise as the values; and the weights (B, H, N, M).
    """
    query, key = widen(query), widen(key)
    mask = fit_mask(mask, query)
    equation = attention_in_place if may_write_in_place(query, key, mask) else plain_attention
    with no_autocast(query.device):
        return equation(query, key, value, mask, dropout=dropout)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights alone, softmax(Q Kᵀ / √d), in float32 at least.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        mask: As in `plain_attention`.

    Returns:
        (B, H, N, M).
    """
    no_value = key[..., :0]  # (B, H, M, 0): nothing is computed for an output that nobody wants
    return explicit_attention(query, key, no_value, mask)[1]


@dataclass(frozen=True)
class AttentionRows:
    """Which rows of which attention maps to return beside the fused kernel.

    Where gradients are recorded, a row passes them on to queries and keys, and has the gradient of
    the logits too, as if the logits were made of it (`through_rows`); a row that is asked for twice
    has it at its first place. Only while attention weights are dropped in training does it have
    none: what the fused kernel dropped is not known.

    In half precision rows are exact for the tokens that the block was given, and these are not:
    `precision.py` says what that costs.

    Attributes:
        blocks: Block numbers; negative ones count from the last block.
        queries: Query tokens (0 is the class token where there is one); negative ones count from
            the last token.
    """

    blocks: Sequence[int]
    queries: Sequence[int]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool = False,
    rows: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q Kᵀ / √d) V, with the weights, or some rows of them, if they are wanted.

    Args:
        query: (B, H, N, d).
        key: (B, H, M, d).
        value: (B, H, M, d).
        mask: As in `plain_attention`.
        is_causal: The last query is aligned with the last key, and no query sees a later key.
        dropout: Probability that a weight is dropped on its way to the values. The weights that
            are returned are those before dropout.
        need_weights: Whether all weights are wanted: then the output is made of them.
        rows: Numbers of the queries whose weights are wanted, negative ones from the last, beside
            the fused kernel; they alone, whatever `need_weights` says.

    Returns:
        The output (B, H, N, d); and the weights (B, H, N, M), the rows (B, H, len(rows), M) or
        None. Weights are float32 where the tensors are of half precision. Gradients of the output
        reach the weights; of rows, see `AttentionRows`.

    Raises:
        IndexError: A row beyond the N queries.
    """
    need_weights, rows = split_rows(need_weights, rows)
    if rows is not None:
        output, _ = scaled_dot_product_attention(
            query, key, value, mask=mask, is_causal=is_causal, dropout=dropout
        )
        numbers = row_numbers(rows, query.shape[-2])
        mask = mask_of_rows(mask, is_causal, numbers, query.shape[-2], key)
        weights = attention_weights(query[..., numbers, :], key, mask)
        return (output if dropout else through_rows(output, weights, value, numbers)), weights

    is_causal = is_causal and query.shape[-2] > 1  # one query, the last, sees every key: no mask
    if is_causal and (mask is not None or query.shape[-2] != key.shape[-2]):
        mask = merge_masks(mask, causal_mask(query.shape[-2], key.shape[-2], query.device))
        is_causal = False
    if need_weights:
        if is_causal:
            mask = causal_mask(query.shape[-2], key.shape[-2], query.device)
        return explicit_attention(query, key, value, mask, dropout=dropout)

    plain = mask is None and not is_causal and dropout == 0
    if plain and is_faster_by_entry(query, key, value):
        return attention_by_entry(query, key, value), None
    mask = fit_mask(mask, query)
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=is_causal
    )
    return output, None


def through_rows(output: Tensor, weights: Tensor, value: Tensor, numbers: Sequence[int]) -> Tensor:
    """The fused kernel's output, whose gradients go through the chosen rows of the weights.

    ::

        output_n + (a_n V - a_n V)        for each chosen query n

    The bracket is 0, so that no number changes. Its first term passes gradients on and its second
    does not; nor does the output at these queries, which would count them twice.

    Args:
        output: (B, H, N, d), computed without dropout.
        weights: (B, H, len(numbers), M), the rows a_n.
        value: (B, H, M, d).
        numbers: Numbers of the queries, counted from 0.
    """
    if not (weights.requires_grad and numbers):
        return output
    first = [numbers.index(number) for number in dict.fromkeys(numbers)]  # each query once
    queries = torch.tensor([numbers[place] for place in first], device=output.device)
    with no_autocast(output.device):
        product = weights[:, :, first].to(value.dtype) @ value  # (B, H, r, M) -> (B, H, r, d)
    same = output.index_select(2, queries).detach() + (product - product.detach())
    return output.index_copy(2, queries, same)


def split_rows(
    need_weights: bool | Sequence[int], rows: Sequence[int] | None
) -> tuple[bool, Sequence[int] | None]:
    """Whether all weights are wanted, and which rows instead.

    The rows may come as `need_weights` too, as they did before.
    """
    if isinstance(need_weights, bool):
        return need_weights and rows is None, rows
    warn_renamed("need_weights=[…]", "rows=[…]")
    return False, need_weights


def row_numbers(rows: Sequence[int], num_queries: int) -> list[int]:
    """The numbers of rows from the first one, also of those that are counted from the last.

    Raises:
        IndexError: A row beyond the queries.
    """
    for row in rows:
        if not -num_queries <= row < num_queries:
            raise IndexError(
                f"attention row {row} was asked for, but there are {num_queries} query tokens: "
                f"choose from {-num_queries} to {num_queries - 1}"
            )
    return [row % num_queries for row in rows]


class KeyValueCache:
    """Keys and values of the tokens seen so far, for decoding one token at a time.

    It belongs to the decoding call, not to the layer: two sentences are two caches. Memory is
    taken once, for `max_length` tokens, and written in place; where gradients are recorded each
    step copies it instead, since the backward pass needs every state as it was.

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
        self._keys = self._written(self._keys, key, end)
        self._values = self._written(self._values, value, end)
        self.length = end
        return self.keys, self.values

    def _written(self, held: Tensor, new: Tensor, end: int) -> Tensor:
        """The memory (B, H, max_length, d) with new tokens before number `end`."""
        if torch.is_grad_enabled() and (held.requires_grad or new.requires_grad):
            parts = held[:, :, : self.length], new.to(held.dtype), held[:, :, end:]
            return torch.cat(parts, dim=2)
        held[:, :, self.length : end] = new
        return held

    def reorder(self, beam_index: Tensor) -> None:
        """Lets entry i of the batch go on from what entry `beam_index[i]` held.

        Args:
            beam_index: (B,) whole numbers.
        """
        if torch.is_grad_enabled() and (self._keys.requires_grad or self._values.requires_grad):
            self._keys = self._keys.index_select(0, beam_index)
            self._values = self._values.index_select(0, beam_index)
            return
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

    @renamed_arguments(key_padding_mask="key_mask")
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
        need_weights: bool = False,
        rows: Sequence[int] | None = None,
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
            need_weights: Whether all weights are wanted.
            rows: Numbers of the queries whose weights alone are wanted, as in
                `scaled_dot_product_attention`.

        Returns:
            The output (B, N, D); and the weights (B, H, N, M), those rows of them or None. Weights
            of half precision are float32 and made of Q and K that are not rounded; those of a
            cache, or of a `qkv` that has hooks, are made of the rounded ones.
        """
        need_weights, rows = split_rows(need_weights, rows)
        if key_mask is not None:
            mask = merge_masks(mask, key_mask[:, None, None, :])  # (B, M) -> (B, 1, 1, M)
        wanted = need_weights or rows is not None
        exact = wanted and cache is None and is_rounded(self.qkv)  # a cache holds rounded keys
        dropout = self.dropout if self.training else 0.0
        if exact and rows is None:
            q, k, v = self._project_exactly(query, key, value)
        else:
            q, k, v = self._project(query, key, value, cache)
        output, weights = scaled_dot_product_attention(
            q,
            k,
            v,
            mask=mask,
            is_causal=is_causal,
            dropout=dropout,
            need_weights=need_weights,
            rows=None if exact else rows,
        )
        if exact and rows is not None:
            weights = self._exact_rows(query, query if key is None else key, rows, mask, is_causal)
            if not dropout:
                output = through_rows(output, weights, v, row_numbers(rows, query.shape[1]))
        output = output.transpose(1, 2).flatten(2)  # (B, H, N, d) -> (B, N, D)
        return self.proj(output), weights

    def queries_and_keys(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Q and K of self-attention, in float32 at least, whatever precision the model computes in.

        Args:
            tokens: (B, N, D).

        Returns:
            (B, H, N, d) each.
        """
        if is_rounded(self.qkv):
            q, k, _ = self._project_exactly(tokens, None, None)
        elif is_plain(self.qkv):
            q, k = self._heads(self._part(tokens, 0, 2))
        else:
            q, k, _ = self._project(tokens, None, None, None)
        return widen(q), widen(k)

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

    def _project_exactly(
        self, query: Tensor, key: Tensor | None, value: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Q and K in float32, V in the precision of the model."""
        key = query if key is None else key
        (v,) = self._heads(self._part(key if value is None else value, 2, 3))
        if key is query:
            q, k = self._heads(self._part(query, 0, 2, exact_linear))
        else:
            (q,) = self._heads(self._part(query, 0, 1, exact_linear))
            (k,) = self._heads(self._part(key, 1, 2, exact_linear))
        return q, k, v

    def _exact_rows(
        self,
        query: Tensor,
        key: Tensor,
        rows: Sequence[int],
        mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        """Rows (B, H, r, M) of the weights in float32, without computing K for them.

        ::

            q · (W y + b) = (Wᵀ q) · y + q · b

        The last term is the same for all keys, and softmax does not see it. So each head asks with
        Wᵀ q, and all of them look at the same keys, the tokens y, as rows of one head would.
        """
        dim, numbers = self.proj.in_features, row_numbers(rows, query.shape[1])
        mask = mask_of_rows(mask, is_causal, numbers, query.shape[1], key)
        (q,) = self._heads(self._part(query[:, numbers], 0, 1, exact_linear))  # (B, H, r, d)
        matrices = widen(self.qkv.weight[dim : 2 * dim])
        with no_autocast(query.device):
            q = q @ matrices.view(self.num_heads, -1, dim)  # (B, H, r, d) -> (B, H, r, D)
        q = q * math.sqrt(self.num_heads)  # for scores are divided by √D instead of √d
        shape = (*q.shape[:3], key.shape[1])
        if mask is not None:
            mask = mask.expand(shape).flatten(1, 2)[:, None]  # (B, H, r, M) -> (B, 1, H·r, M)
        q = q.flatten(1, 2)[:, None]  # (B, H, r, D) -> (B, 1, H·r, D)
        return attention_weights(q, key[:, None], mask).view(shape)  # (B, 1, H·r, M)

    def _part(
        self,
        tokens: Tensor,
        first: int,
        end: int,
        product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = linear,
    ) -> Tensor:
        """Q (0), K (1) and V (2) from number `first` to before number `end`, side by side."""
        dim = self.proj.in_features
        part = slice(first * dim, end * dim)
        bias = None if self.qkv.bias is None else self.qkv.bias[part]
        return product(tokens, self.qkv.weight[part], bias)  # (B, N, D) -> (B, N, (end - first)·D)

    def _heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """(B, N, n·D), n projections side by side, to n of (B, H, N, d)."""
        # Plain views: six calls of einops a block took 4 % of the time of a captioner's word.
        batch, length, width = projected.shape
        dim = self.proj.in_features
        parts = (width // dim, self.num_heads, dim // self.num_heads)
        heads = projected.reshape(batch, length, *parts)  # (B, N, n·D) -> (B, N, n, H, d)
        return heads.permute(2, 0, 3, 1, 4).unbind()  # (B, N, n, H, d) -> n of (B, H, N, d)
