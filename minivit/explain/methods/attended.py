"""The plainest method: what the class token, or a patch, attends to in one block.

With A the weights of the block and t the token that looks::

    map_j = mean over heads of A_tj        A = softmax(Q Kᵀ / √d)

Exact and as dear as a plain forward pass, since the row is computed beside the fused kernel.
"""

from __future__ import annotations

from torch import Tensor

from minivit.attention import AttentionRows
from minivit.explain.conditions import Target, fixed
from minivit.explain.maps import query_attention
from minivit.explain.methods.readout import looking_token
from minivit.explain.rollout import Fusion, fuse
from minivit.vit import VisionTransformer


def attention(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    block: int = -1,
    head: int | None = None,
    patch: tuple[int, int] | None = None,
    fusion: Fusion = "mean",
) -> Tensor:
    """Attention of one token, mean over heads of a block: arXiv:2104.14294, figure 1.

    It says where values come from, not what they are nor whether the class depends on them; it is
    the same for every class.

    Args:
        model: Vision Transformer; without a class token a `patch` has to be given.
        images: (B, C, height, width).
        target: Not looked at.
        block: Number of the block; negative ones count from the last.
        head: Number of the head alone; None: all, fused.
        patch: (row, col) of the patch that looks; None: the class token.
        fusion: What becomes of the heads: their mean, or the largest or smallest weight.

    Returns:
        (B, rows, cols) weights, which sum to 1 minus what prefix tokens get (mean over heads).

    Raises:
        ValueError: No class token and no patch; no such patch, head or fusion.
        IndexError: No such block.
    """
    token = looking_token(model, images, patch)
    with fixed(model):
        _, attentions = model.encode(images, return_attention=AttentionRows([block], [token]))
    heads = query_attention(attentions, patch=patch)  # (B, H, rows, cols)
    if head is None:
        return fuse(heads, fusion)
    if not 0 <= head < heads.shape[1]:
        raise ValueError(f"head {head}: choose from 0 to {heads.shape[1] - 1}")
    return heads[:, head]
