"""How many tokens each head looks at.

The entropy of a row of attention weights is 0 where one token gets all, and log N where all N get
the same; e to the entropy is the number of tokens that would give it if all got the same. Clark et
al. 2019, "What Does BERT Look At?" (arXiv:1906.04341), section 3.3, tell broad heads from focused
ones so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.describe.walk import measure_attention
from minivit.vit import VisionTransformer


def attention_entropy(model: VisionTransformer, images: Tensor) -> Tensor:
    """Entropy of attention, mean over all rows, of each head of each block.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).

    Returns:
        (B, blocks, H) in nats, from 0 to log N, N being all tokens, those before the patches too.
    """
    return measure_attention(model, images, _mean_entropy)


def _mean_entropy(weights: Tensor) -> Tensor:
    """Mean over rows, (B, H, N, N) to (B, H)."""
    return torch.special.entr(weights).sum(dim=-1).mean(dim=-1)
