"""Blocks of the encoder: attention, then a small network for every token, each added to its input.

Dosovitskiy et al. 2021 (arXiv:2010.11929), equations 2 and 3, normalise before each branch
(pre-norm); Vaswani et al. 2017 (arXiv:1706.03762) after each sum (post-norm)::

    pre-norm    h = x + MSA(LN(x))      out = h + MLP(LN(h))
    post-norm   h = LN(x + MSA(x))      out = LN(h + MLP(h))

With `norm_first` a block is the former, without it the latter. LayerScale (Touvron et al. 2021,
arXiv:2103.17239) and stochastic depth (Huang et al. 2016, arXiv:1603.09382) sit at the end of a
branch. The blocks of a decoder are in `decoder.py`.

Next: `minivit/vit.py`, the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.attention import MultiHeadAttention
from minivit.config import Activation, BlockConfig
from minivit.cpu import Linear
from minivit.fields import renamed_arguments


class ResidualBlock(nn.Module):
    """What the blocks of encoder and decoder share: where the norm of a branch stands.

    Args:
        norm_first: True: before the branch; False: after the sum.
    """

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Input of a branch, (B, N, D)."""
        return norm(x) if self.norm_first else x

    def after(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Sum of input and branch, (B, N, D)."""
        return x if self.norm_first else norm(x)


class EncoderBlock(ResidualBlock):
    """Self-attention, then MLP.

    Args:
        config: What to build.
        drop_path: Probability of dropping a branch in training (stochastic depth).
    """

    def __init__(self, config: BlockConfig, *, drop_path: float = 0.0) -> None:
        super().__init__(config.norm_first)
        dim, scale = config.dim, config.layer_scale
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attn = MultiHeadAttention(
            dim, config.num_heads, qkv_bias=config.qkv_bias, dropout=config.attention_dropout
        )
        self.ls1 = nn.Identity() if scale is None else LayerScale(dim, scale)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = MLP(dim, config.hidden_dim, activation=config.activation, dropout=config.dropout)
        self.ls2 = nn.Identity() if scale is None else LayerScale(dim, scale)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    @renamed_arguments(key_padding_mask="key_mask")
    def forward(
        self,
        x: Tensor,
        *,
        position: Tensor | None = None,
        mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
        rows: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The tokens after the block, and its attention weights if they are wanted.

        Args:
            x: (B, N, D).
            position: (B or 1, N, D), added to queries and keys, not to values (DETR); None: the
                tokens know where they are.
            mask: As in `MultiHeadAttention`.
            key_mask: (B, N) boolean, True = a real token.
            is_causal: No token sees a later one.
            need_weights: Whether all weights are wanted.
            rows: Numbers of the tokens whose weights alone are wanted.

        Returns:
            (B, N, D); and the weights (B, H, N, N), those rows of them or None.
        """
        normed = self.before(self.norm1, x)
        attended, weights = self.attn(
            normed if position is None else normed + position,
            value=None if position is None else normed,
            mask=mask,
            key_mask=key_mask,
            is_causal=is_causal,
            need_weights=need_weights,
            rows=rows,
        )
        h = self.after(self.norm1, x + self._drop(self.ls1(attended)))
        out = self.after(self.norm2, h + self._drop(self.ls2(self.mlp(self.before(self.norm2, h)))))
        return out, weights

    def _drop(self, branch: Tensor) -> Tensor:
        return self.drop_path(self.dropout(branch))


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
