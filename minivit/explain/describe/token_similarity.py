"""Do the patches of a picture become alike from block to block?

Gong et al. 2021, "Vision Transformers with Patch Diversification" (arXiv:2104.12753), equation 1::

    similarity = 1 / (n (n - 1)) Σ_{i≠j} |h_i · h_j| / (‖h_i‖ ‖h_j‖)         h_i: token of patch i

Near 1, all patches say the same, and no map of the last blocks can tell them apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.describe.walk import tokens_by_block
from minivit.precision import widen
from minivit.vit import VisionTransformer


def token_similarity(model: VisionTransformer, images: Tensor) -> Tensor:
    """Mean size of the cosine between different patch tokens, before and after each block.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width), of two patches at least.

    Returns:
        (B, 1 + blocks), from 0 to 1: as the tokens enter the first block, and after each block,
        before the final norm.

    Raises:
        ValueError: The pictures have one patch.
    """
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    count = rows * cols
    if count < 2:
        raise ValueError("the pictures have one patch, and similarity needs two")
    similarities = []
    with fixed(model):
        for tokens in tokens_by_block(model, images):
            unit = F.normalize(widen(tokens[:, model.num_prefix_tokens :]), dim=-1)  # (B, n, D)
            cosines = (unit @ unit.mT).abs()  # (B, n, n)
            others = cosines.sum(dim=(1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(dim=1)
            similarities.append(others / (count * (count - 1)))
    return torch.stack(similarities, dim=1)  # 1 + blocks of (B,) -> (B, 1 + blocks)
