"""Attention rows as maps over the picture."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from minivit.vit import VisionTransformer


def query_attention(
    attention: Tensor,
    model: VisionTransformer,
    *,
    query: int = 0,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """What one query token gives to each patch, head by head.

    The values are the weights as softmax gave them. What went to the prefix tokens is left out, so
    a map sums to 1 minus that part.

    Args:
        attention: (B, H, rows given, N) weights of one block: all of them or chosen rows.
        model: The model they came from; it knows how many prefix tokens there are.
        query: Which of the rows given.
        grid_size: (rows, cols) of patches when the pictures were not of the config's image size.

    Returns:
        (B, H, rows, cols).

    Raises:
        ValueError: The tokens do not make up the grid.
    """
    rows, cols = grid_size or model.grid_size
    patches = attention[:, :, query, model.num_prefix_tokens :]  # (B, H, rows·cols)
    if patches.shape[-1] != rows * cols:
        raise ValueError(
            f"{patches.shape[-1]} patches are not a grid of {rows} rows x {cols} cols: give "
            "grid_size=model.patch_embed.grid_for(height, width) of the pictures"
        )
    return rearrange(patches, "b h (rows cols) -> b h rows cols", rows=rows)


def class_attention(
    attentions: Sequence[Tensor],
    model: VisionTransformer,
    *,
    block: int = -1,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """What the class token looks at: the mean over heads of its row (DINO, arXiv:2104.14294).

    Args:
        attentions: One (B, H, N or chosen rows, N) a block, as the model returns them; the class
            token must be the first row.
        model: The model they came from.
        block: Which entry of `attentions`.
        grid_size: As in `query_attention`.

    Returns:
        (B, rows, cols). What went to prefix tokens is left out.

    Raises:
        ValueError: The model has no class token, or the tokens do not make up the grid.
    """
    if not model.config.class_token:
        raise ValueError("the model has no class token: use query_attention with a patch instead")
    return query_attention(attentions[block], model, grid_size=grid_size).mean(dim=1)
