"""Do position embeddings know where they are? (arXiv:2010.11929, figure 7, centre)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from minivit.embeddings import sine_position_embedding
from minivit.vit import VisionTransformer


@torch.no_grad()
def position_similarity(model: VisionTransformer) -> Tensor:
    """Cosine similarity between the position embeddings of all pairs of patches.

    Args:
        model: Model whose position embeddings, learned or sine, are compared.

    Returns:
        (rows, cols, rows, cols): entry [r, c] is the map of how similar each place is to (r, c).
    """
    rows, cols = model.grid_size
    if model.pos_embed is None:
        position = sine_position_embedding(rows, cols, model.config.dim)
    else:
        position = model.pos_embed[0, -rows * cols :].float()  # the prefix tokens' come first
    unit = F.normalize(position, dim=-1)  # (N, D)
    return rearrange(
        unit @ unit.T, "(r1 c1) (r2 c2) -> r1 c1 r2 c2", r1=rows, r2=rows
    )  # (N, N) -> (rows, cols, rows, cols)
