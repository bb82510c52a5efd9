"""Attention rows as maps over the picture.

A row of attention weights is what one token gives to all tokens; without the prefix tokens it is
rows × cols numbers, one a patch, and lies on the picture as a map. What a model returns knows its
grid (`minivit/inspected.py`). Plain tensors do not: with them a model is given, and the pictures
are taken to be of its config's image size unless `grid_size` says otherwise.

Here the path of the Vision Transformer ends. The captioner's starts at `minivit/resnet.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from minivit.fields import renamed_arguments
from minivit.inspected import Attentions
from minivit.vit import VisionTransformer


def patch_map(
    weights: Tensor,
    attentions: Tensor | Sequence[Tensor],
    model: VisionTransformer | None = None,
    *,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """A number for each token, such as a row of `rollout`, as a map of the patches.

    Args:
        weights: (…, N).
        attentions: The attention weights that they were made of, as the model returned them.
        model: As in `query_attention`.
        grid_size: As in `query_attention`.

    Returns:
        (…, rows, cols), without the prefix tokens.

    Raises:
        ValueError: The tokens do not make up the grid, or plain tensors without a model.
    """
    place = _place(attentions, model, grid_size)
    rows, cols = place.grid_size
    patches = weights[..., place.num_prefix_tokens :]  # (…, N) -> (…, rows·cols)
    if patches.shape[-1] != rows * cols:
        raise ValueError(
            f"{patches.shape[-1]} patches are not a grid of {rows} rows x {cols} cols: give the "
            "list that the model returned, or grid_size=model.patch_embed.grid_for(height, width) "
            "of the pictures"
        )
    return rearrange(patches, "... (rows cols) -> ... rows cols", rows=rows)


@renamed_arguments(query="row", attention="attentions")
def query_attention(
    attentions: Tensor | Sequence[Tensor],
    model: VisionTransformer | None = None,
    *,
    row: int | None = None,
    token: int | None = None,
    patch: tuple[int, int] | None = None,
    block: int = -1,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """What one token gives to each patch, head by head.

    The values are the weights as softmax gave them. What went to the prefix tokens is left out, so
    a map sums to 1 minus that part. The token is named by `token` or `patch`, which find its row,
    or by `row`; by none of them it is the first row.

    Args:
        attentions: The weights as the model returned them, or (B, H, rows given, N) of one block.
        model: The model they came from; needed for plain tensors only.
        row: Number of the row among those given.
        token: Number of the token; negative ones count from the last.
        patch: (row, col) of the patch in the grid.
        block: Number of the entry of `attentions`: that of the block where all blocks were asked
            for, but 0 for block 3 of `return_attention=[3, -1]`.
        grid_size: (rows, cols) of patches, for plain tensors of pictures that were not of the
            config's image size.

    Returns:
        (B, H, rows, cols).

    Raises:
        ValueError: No such token or patch, or its row was not asked for; the tokens do not make up
            the grid; or plain tensors without a model.
    """
    if sum(name is not None for name in (row, token, patch)) > 1:
        raise ValueError("row, token and patch are three names of one row: give one of them")
    weights = attentions if isinstance(attentions, Tensor) else attentions[block]
    place = _place(attentions, model, grid_size)
    if patch is not None:
        token = _token_of(patch, place)
    if token is not None:
        row = _row_of(token, weights, place)
    return patch_map(weights[:, :, row or 0], place)  # (B, H, N) -> (B, H, rows, cols)


def class_attention(
    attentions: Sequence[Tensor],
    model: VisionTransformer | None = None,
    *,
    block: int = -1,
    grid_size: tuple[int, int] | None = None,
) -> Tensor:
    """What the class token looks at: the mean over heads of its row (DINO, arXiv:2104.14294).

    Args:
        attentions: The weights as the model returned them, or plain tensors (B, H, N or chosen
            rows, N), one a block: in these the class token must be the first row.
        model: As in `query_attention`.
        block: As in `query_attention`.
        grid_size: As in `query_attention`.

    Returns:
        (B, rows, cols). What went to prefix tokens is left out.

    Raises:
        ValueError: The model has no class token, its row was not asked for, or as in
            `query_attention`.
    """
    place = _place(attentions, model, grid_size)
    if not place.class_token:
        raise ValueError("the model has no class token: use query_attention with a patch instead")
    weights = attentions[block]
    row = 0 if place.queries is None else _row_of(0, weights, place)
    return patch_map(weights[:, :, row], place).mean(dim=1)  # (B, H, N) -> (B, rows, cols)


def _place(
    attentions: Tensor | Sequence[Tensor],
    model: VisionTransformer | None,
    grid_size: tuple[int, int] | None,
) -> Attentions:
    """What the attention weights carry, or else what the model says."""
    if isinstance(attentions, Attentions) and attentions.grid_size != (0, 0):
        if grid_size is not None and tuple(grid_size) != attentions.grid_size:
            raise ValueError(
                f"grid_size is {tuple(grid_size)}, but the pictures had {attentions.grid_size} "
                "(rows, cols) of patches: leave it out"
            )
        return attentions
    if model is None:
        raise ValueError(
            "plain tensors do not know the grid of their picture: give the list that the model "
            "returned, others by its `with_tensors`, or the model"
        )
    return Attentions(
        grid_size=grid_size or model.grid_size,
        num_prefix_tokens=model.num_prefix_tokens,
        class_token=model.config.class_token,
    )


def _token_of(patch: tuple[int, int], place: Attentions) -> int:
    """Number of the token of a patch."""
    (row, col), (rows, cols) = patch, place.grid_size
    if not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(
            f"patch ({row}, {col}): the patches are a grid of {rows} rows x {cols} cols; choose "
            f"from (0, 0) to ({rows - 1}, {cols - 1})"
        )
    return place.num_prefix_tokens + row * cols + col


def _row_of(token: int, weights: Tensor, place: Attentions) -> int:
    """Number of a token's row among those given."""
    num_rows, length = weights.shape[-2:]
    if not -length <= token < length:
        raise ValueError(f"token {token}: choose from {-length} to {length - 1}")
    token = token + length if token < 0 else token
    if place.queries is None:
        if num_rows != length:
            raise ValueError(
                f"{num_rows} rows of {length} tokens, and whose they are is not known: give row="
            )
        return token
    if token not in place.queries:
        shown = ", ".join(map(str, place.queries[:8])) + ", …" * (len(place.queries) > 8)
        raise ValueError(
            f"the row of token {token} was not asked for, only those of tokens {shown}: add it to "
            "the queries of AttentionRows"
        )
    return place.queries.index(token)
