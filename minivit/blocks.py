"""Transformer blocks: attention, then an MLP, each beside a residual connection.

Vaswani et al. 2017 (arXiv:1706.03762) normalise after each residual sum (post-norm); Dosovitskiy et
al. 2021 (arXiv:2010.11929), equations 2 and 3, before each branch (pre-norm)::

    pre-norm    x = x + MSA(LN(x))      x = x + MLP(LN(x))
    post-norm   x = LN(x + MSA(x))      x = LN(x + MLP(x))

With `norm_first` a block is the former, without it the latter. LayerScale (Touvron et al. 2021,
arXiv:2103.17239) and stochastic depth (Huang et al. 2016, arXiv:1603.09382) sit on the branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivit.attention import KeyValueCache, MultiHeadAttention
from minivit.config import Activation
from minivit.cpu import Linear


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (arXiv:1606.08415, section 2), Flax's default."""
    return F.gelu(x, approximate="tanh")


def swiglu(x: Tensor) -> Tensor:
    """silu(first half) · second half, so half as wide as its input (arXiv:2002.05202)."""
    gate, value = x.chunk(2, dim=-1)  # (B, N, 2·hidden) -> twice (B, N, hidden)
    return F.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "swiglu": swiglu,
}


class MLP(nn.Module):
    """Two linear layers with an activation between: the same little network for every token.

    Args:
        dim: D, width of the tokens.
        hidden_dim: Width between the two layers.
        activation: "gelu" (exact, by erf), "gelu_tanh", "quick_gelu", "relu" or "swiglu", for which
            the first layer gives twice the hidden width.
        dropout: Probability of dropping a hidden unit in training.

    Raises:
        ValueError: An unknown activation.
    """

    def __init__(
        self, dim: int, hidden_dim: int, *, activation: Activation, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {activation!r}: choose from {', '.join(ACTIVATIONS)}"
            )
        self.activation = activation
        self.fc1 = Linear(dim, 2 * hidden_dim if activation == "swiglu" else hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        hidden = ACTIVATIONS[self.activation](self.fc1(x))  # (B, N, D) -> (B, N, hidden)
        return self.fc2(self.dropout(hidden))  # (B, N, hidden) -> (B, N, D)


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor that starts small (arXiv:2103.17239)."""

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_value))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a sample's whole branch (arXiv:1603.09382).

    What is kept is divided by the probability of keeping it, so that the expected value stays.

    Args:
        probability: Of dropping, in [0, 1).

    Raises:
        ValueError: A probability outside [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"drop path probability is {probability}, expected 0 <= p < 1")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) to the same shape."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        kept = torch.empty((x.shape[0],) + (1,) * (x.dim() - 1), dtype=x.dtype, device=x.device)
        return x * kept.bernoulli_(keep) / keep


class EncoderBlock(nn.Module):
    """Self-attention, then MLP.

    Args:
        dim: D, width of the tokens.
        num_heads: Heads of the attention.
        hidden_dim: Width inside the MLP.
        activation: As in `MLP`.
        layer_norm_eps: Epsilon of the LayerNorms.
        norm_first: True: pre-norm; False: post-norm.
        qkv_bias: Whether Q, K and V have a bias.
        layer_scale: Start value of LayerScale; None: no LayerScale.
        dropout: After the attention, inside the MLP and after it.
        attention_dropout: On the attention weights.
        drop_path: Stochastic depth, on both branches.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        hidden_dim: int,
        activation: Activation,
        layer_norm_eps: float,
        norm_first: bool = True,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = MultiHeadAttention(dim, num_heads, qkv_bias=qkv_bias, dropout=attention_dropout)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = MLP(dim, hidden_dim, activation=activation, dropout=dropout)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        *,
        position: Tensor | None = None,
        mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool | Sequence[int] = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The tokens after the block, and its attention weights if they are wanted.

        Args:
            x: (B, N, D).
            position: (B or 1, N, D), added to queries and keys, not to values (DETR); None: the
                tokens know where they are.
            mask: As in `MultiHeadAttention`.
            key_mask: (B, N) boolean, True = a real token.
            is_causal: No token sees a later one.
            need_weights: False, True (all) or the numbers of the wanted query rows.

        Returns:
            (B, N, D), and the weights (B, H, N, N), or the asked rows of them, or None.
        """
        normed = self.norm1(x) if self.norm_first else x
        attended, weights = self.attn(
            normed if position is None else normed + position,
            value=None if position is None else normed,
            mask=mask,
            key_mask=key_mask,
            is_causal=is_causal,
            need_weights=need_weights,
        )
        x = x + self._end(self.ls1(attended))
        if not self.norm_first:
            x = self.norm1(x)
        x = x + self._end(self.ls2(self.mlp(self.norm2(x) if self.norm_first else x)))
        return x if self.norm_first else self.norm2(x), weights

    def _end(self, branch: Tensor) -> Tensor:
        return self.drop_path(self.dropout(branch))


class DecoderCache(NamedTuple):
    """What one decoder block remembers between two steps."""

    self_attention: KeyValueCache
    cross_attention: KeyValueCache

    def reorder(self, beam_index: Tensor) -> None:
        """Lets beam i go on from beam `beam_index[i]`; all beams of a batch look at one memory."""
        self.self_attention.reorder(beam_index)


class DecoderWeights(NamedTuple):
    """Attention weights of one decoder block; None where they were not asked for."""

    self_attention: Tensor | None
    cross_attention: Tensor | None


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to a memory, then MLP.

    Args:
        dim: D, width of the tokens and of the memory.
        num_heads: Heads of both attentions.
        hidden_dim: Width inside the MLP.
        activation: As in `MLP`.
        layer_norm_eps: Epsilon of the LayerNorms.
        norm_first: True: pre-norm; False: post-norm.
        dropout: After both attentions, inside the MLP and after it.
        attention_dropout: On the attention weights.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        hidden_dim: int,
        activation: Activation,
        layer_norm_eps: float,
        norm_first: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = MultiHeadAttention(dim, num_heads, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.cross_attn = MultiHeadAttention(dim, num_heads, dropout=attention_dropout)
        self.norm3 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = MLP(dim, hidden_dim, activation=activation, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

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
        need_weights: bool | Sequence[int] = False,
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
            need_weights: False, True (all) or the numbers of the wanted query rows.

        Returns:
            (B, T, D), and the weights (B, H, T, T so far) and (B, H, T, M).
        """
        normed = self.norm1(x) if self.norm_first else x
        attended, self_weights = self.attn(
            normed if position is None else normed + position,
            value=None if position is None else normed,
            key_mask=key_mask,
            is_causal=True,
            cache=None if cache is None else cache.self_attention,
            need_weights=need_weights,
        )
        x = x + self.dropout(attended)
        if not self.norm_first:
            x = self.norm1(x)
        normed = self.norm2(x) if self.norm_first else x
        attended, cross_weights = self._look(
            normed if position is None else normed + position,
            memory,
            memory_position,
            memory_mask,
            None if cache is None else cache.cross_attention,
            need_weights,
        )
        x = x + self.dropout(attended)
        if not self.norm_first:
            x = self.norm2(x)
        x = x + self.dropout(self.mlp(self.norm3(x) if self.norm_first else x))
        x = x if self.norm_first else self.norm3(x)
        return x, DecoderWeights(self_weights, cross_weights)

    def _look(
        self,
        query: Tensor,
        memory: Tensor,
        position: Tensor | None,
        mask: Tensor | None,
        cache: KeyValueCache | None,
        need_weights: bool | Sequence[int],
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-attention; the beams of one picture ask as more words of one sentence would."""
        beams, words = query.shape[0] // memory.shape[0], query.shape[1]
        cached = cache is not None and cache.length  # then keys are not made again
        key = memory if position is None or cached else memory + position
        if beams == 1:
            return self.cross_attn(
                query, key, memory, key_mask=mask, cache=cache, need_weights=need_weights
            )
        folded = rearrange(query, "(b k) t d -> b (k t) d", k=beams)  # (B·K, T, D) -> (B, K·T, D)
        if not isinstance(need_weights, bool):
            raise ValueError("chosen rows of the attention of several beams: ask for all rows")
        attended, weights = self.cross_attn(
            folded, key, memory, key_mask=mask, cache=cache, need_weights=need_weights
        )
        attended = rearrange(attended, "b (k t) d -> (b k) t d", k=beams)  # (B·K, T, D)
        if weights is not None:
            weights = rearrange(weights, "b h (k t) m -> (b k) h t m", t=words)  # (B·K, H, T, M)
        return attended, weights
