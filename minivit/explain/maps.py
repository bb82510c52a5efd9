"""Attention rows as maps over the picture.

A row of attention weights is what one token gives to all tokens; without the prefix tokens it is
rows × cols numbers, one a patch, and lies on the picture as a map.

Here the path of the Vision Transformer ends. The captioner's starts at `minivit/resnet.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from minivit.fields import renamed_arguments
from minivit.vit import VisionTransformer


@renamed_arguments(query="row")
def query_attention(
    attention: Tensor,
    model: VisionTransformer,
    *,
    row: int = 0,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """What one token gives to each patch, head by head.

    The values are the weights as softmax gave them. What went to the prefix tokens is left out, so
    a map sums to 1 minus that part.

    Args:
        attention: (B, H, rows given, N) weights of one block: all of them or chosen rows.
        model: The model they came from; it knows how many prefix tokens there are.
        row: Number of the row among those given; where all are given, that of the token.
        grid_size: (rows, cols) of patches when the pictures were not of the config's image size.

    Returns:
        (B, H, rows, cols).

    Raises:
        ValueError: The tokens do not make up the grid.
    """
    rows, cols = grid_size or model.grid_size
    patches = attention[:, :, row, model.num_prefix_tokens :]  # (B, H, rows·cols)
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
        block: Number of the entry of `attentions`.
        grid_size: As in `query_attention`.

    Returns:
        (B, rows, cols). What went to prefix tokens is left out.

    Raises:
        ValueError: The model has no class token, or the tokens do not make up the grid.
    """
    if not model.config.class_token:
        raise ValueError("the model has no class token: use query_attention with a patch instead")
    return query_attention(attentions[block], model, grid_size=grid_size).mean(dim=1)
