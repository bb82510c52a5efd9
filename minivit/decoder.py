"""Blocks of the decoder: words look at the words so far, then at the picture.

Vaswani et al. 2017 (arXiv:1706.03762), section 3.1, with the norm before each branch or after each
sum as in `blocks.py`; pre-norm::

    h   = x + MSA(LN(x))               causal: no word sees a later one
    h   = h + CrossAttention(LN(h), memory)
    out = h + MLP(LN(h))

As in DETR (arXiv:2005.12872) and CATR, positions are added to queries and keys of both attentions,
not to values. Sentences that describe one picture (beams) share its memory.

Next: `minivit/captioner.py`, the whole captioner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn

from minivit.attention import KeyValueCache, MultiHeadAttention, split_rows
from minivit.blocks import MLP, ResidualBlock
from minivit.config import BlockConfig
from minivit.fields import renamed_arguments


class DecoderCache(NamedTuple):
    """Keys and values that one decoder block keeps from step to step.

    Attributes:
        self_attention: Those of the words so far.
        cross_attention: Those of the memory.
    """

    self_attention: KeyValueCache
    cross_attention: KeyValueCache

    def reorder(self, beam_index: Tensor) -> None:
        """Lets beam i go on from beam `beam_index[i]`; all beams of a batch look at one memory."""
        self.self_attention.reorder(beam_index)


class DecoderWeights(NamedTuple):
    """Attention weights of one decoder block; None where they were not asked for."""

    self_attention: Tensor | None
    cross_attention: Tensor | None


class DecoderBlock(ResidualBlock):
    """Causal self-attention, cross-attention to a memory, then MLP.

    Args:
        config: What to build; the memory is as wide as the tokens.

    Raises:
        ValueError: The config asks for LayerScale, which a decoder does not have.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config.norm_first)
        if config.layer_scale is not None:
            raise ValueError(
                f"layer_scale is {config.layer_scale}, but a decoder block has no LayerScale: "
                "expected None"
            )
        dim = config.dim
        bias, dropout = config.qkv_bias, config.attention_dropout
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attn = MultiHeadAttention(dim, config.num_heads, qkv_bias=bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.cross_attn = MultiHeadAttention(dim, config.num_heads, qkv_bias=bias, dropout=dropout)
        self.norm3 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = MLP(dim, config.hidden_dim, activation=config.activation, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    @renamed_arguments(key_padding_mask="key_mask", memory_padding_mask="memory_mask")
    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        *,
        position: Tensor | None = None,
        memory_position: Tensor | None = None,
        key_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        need_weights: bool = False,
        rows: Sequence[int] | None = None,
    ) -> tuple[Tensor, DecoderWeights]:
        """The tokens after the block, and both attentions' weights if they are wanted.

        Args:
            x: (B, T, D); with a cache, only the new tokens.
            memory: (B, M, D), or (B / K, M, D): then each entry serves K rows of `x` that follow
                each other, the beams of one picture, without being copied for them.
            position: (1, T, D), added to queries and keys of both attentions, not to values.
            memory_position: (B or 1, M, D), added to the keys of the memory, not to its values.
            key_mask: (B, T) boolean, True = a real token.
            memory_mask: (B, M) boolean, True = a real token; as `memory` for beams.
            cache: Keys and values of earlier steps, extended in place.
            need_weights: Whether all weights are wanted.
            rows: Numbers of the words whose weights alone are wanted; not for several beams.

        Returns:
            (B, T, D), and the weights (B, H, T, T so far) and (B, H, T, M).

        Raises:
            ValueError: Rows of several beams were asked for.
        """
        need_weights, rows = split_rows(need_weights, rows)
        normed = self.before(self.norm1, x)
        attended, self_weights = self.attn(
            normed if position is None else normed + position,
            value=None if position is None else normed,
            key_mask=key_mask,
            is_causal=True,
            cache=None if cache is None else cache.self_attention,
            need_weights=need_weights,
            rows=rows,
        )
        h = self.after(self.norm1, x + self.dropout(attended))
        normed = self.before(self.norm2, h)
        attended, cross_weights = self._cross_attention(
            normed if position is None else normed + position,
            memory,
            memory_position,
            memory_mask,
            None if cache is None else cache.cross_attention,
            need_weights,
            rows,
        )
        h = self.after(self.norm2, h + self.dropout(attended))
        out = self.after(self.norm3, h + self.dropout(self.mlp(self.before(self.norm3, h))))
        return out, DecoderWeights(self_weights, cross_weights)

    def _cross_attention(
        self,
        query: Tensor,
        memory: Tensor,
        position: Tensor | None,
        mask: Tensor | None,
        cache: KeyValueCache | None,
        need_weights: bool,
        rows: Sequence[int] | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention to the memory; the beams of a picture are as more words of one sentence."""
        num_beams, num_words = query.shape[0] // memory.shape[0], query.shape[1]
        cached = cache is not None and cache.length  # then keys are not made again
        key = memory if position is None or cached else memory + position
        if num_beams == 1:
            return self.cross_attn(
                query, key, memory, key_mask=mask, cache=cache, need_weights=need_weights, rows=rows
            )
        if rows is not None:
            raise ValueError("chosen rows of the attention of several beams: ask for all rows")
        query = rearrange(query, "(b k) t d -> b (k t) d", k=num_beams)  # -> (B, K·T, D)
        attended, weights = self.cross_attn(
            query, key, memory, key_mask=mask, cache=cache, need_weights=need_weights
        )
        attended = rearrange(attended, "b (k t) d -> (b k) t d", k=num_beams)  # -> (B·K, T, D)
        if weights is not None:
            weights = rearrange(
                weights, "b h (k t) m -> (b k) h t m", t=num_words
            )  # (B, H, K·T, M) -> (B·K, H, T, M)
        return attended, weights
