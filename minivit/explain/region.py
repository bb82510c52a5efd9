"""Which head looks at a region of the picture: the share of each head inside a box or a mask.

Of what a token gives to the patches, each head gives a share to those of the region; a patch that
lies in it partly counts by that part. A large region gets a large share of any map, so a share is
to be compared with the region's part of the picture: their ratio is 1 for a head that looks
everywhere alike. What goes to the class token or to registers is no share of anything in the
picture; `on_patches` says how much is left of a head's attention without it.

Three lines answer "which head looks at the dog's face?"::

    rows = AttentionRows(blocks=range(model.config.depth), queries=[0])
    _, attentions = model(images[:1], return_attention=rows)
    cells = box_cells(
        (300, 40, 420, 180), attentions.grid_size, within=model.preprocess.crop_box(*photo.size)
    )
    for head in heads_inside(attentions, cells): ...  # best first: head.block, .head, .ratio

`crop_box` is the part of the photo that the model saw. For a mask,
`minivit.data.photos.masks.cell_shares` gives the cells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivit.explain.maps import query_attention
from minivit.inspected import Attentions

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of a photo, upright, counted at the pixels' edges."""


class HeadShare(NamedTuple):
    """What one head gives to a region.

    Attributes:
        block: Number of the block, from 0.
        head: Number of the head in it, from 0.
        share: Part inside the region of what the head gives to all patches.
        area: Part of the picture that the region covers.
        ratio: share / area; 1: as a head that looks everywhere alike.
        on_patches: Part of the head's attention that goes to patches at all.
    """

    block: int
    head: int
    share: float
    area: float
    ratio: float
    on_patches: float


def box_cells(box: Box, grid_size: tuple[int, int], *, within: Box) -> Tensor:
    """The part of each patch that lies inside a box.

    Args:
        box: Box in pixels of the photo.
        grid_size: (rows, cols) of patches.
        within: Region of the photo that the grid covers, `Preprocess.crop_box`.

    Returns:
        (rows, cols) from 0 to 1.

    Raises:
        ValueError: A box without area, or one that does not touch the region.
    """
    (left, top, right, bottom), (rows, cols) = box, grid_size
    if not (left < right and top < bottom):
        raise ValueError(
            f"box {box}: expected (left, top, right, bottom) with left < right and top < bottom"
        )
    covered_rows = _covered(top, bottom, within[1], within[3], rows)
    covered_cols = _covered(left, right, within[0], within[2], cols)
    cells = covered_rows[:, None] * covered_cols  # (rows,) and (cols,) -> (rows, cols)
    if not cells.any():
        raise ValueError(f"box {box}: lies outside of what the model saw, which is {within}")
    return cells


def heads_inside(
    attentions: Attentions, cells: Tensor, *, patch: tuple[int, int] | None = None
) -> list[HeadShare]:
    """The share of each head inside a region, the head with the largest one first.

    Args:
        attentions: Weights of one picture as the model returned them, of the blocks that are to be
            compared; the row of the token that looks must be among them.
        cells: Part of each patch inside the region, (rows, cols), from `box_cells`.
        patch: Patch (row, col) that looks; None: the class token.

    Raises:
        ValueError: Several pictures, cells of another grid or none of them inside, no class token,
            or as `query_attention`.
    """
    if cells.shape != attentions.grid_size or not cells.any():
        rows, cols = attentions.grid_size
        raise ValueError(
            f"cells of shape {tuple(cells.shape)}, {int((cells > 0).sum())} of them inside; "
            f"expected one of {rows} rows x {cols} cols at least"
        )
    if patch is None and not attentions.class_token:
        raise ValueError("the model has no class token: give the patch that looks")
    area = float(cells.double().mean())
    heads = []
    for entry, block in enumerate(attentions.blocks):
        token = 0 if patch is None else None
        maps = query_attention(attentions, token=token, patch=patch, block=entry)
        if len(maps) != 1:
            raise ValueError(f"{len(maps)} pictures: a region belongs to one, give one at a time")
        weights = maps[0].detach().double().cpu()  # (H, rows, cols)
        on_patches = weights.sum(dim=(1, 2))  # -> (H,)
        inside = (weights * cells.double().cpu()).sum(dim=(1, 2))  # (H, rows, cols) -> (H,)
        shares = inside / on_patches.clamp_min(torch.finfo(torch.float64).tiny)
        for head, (share, whole) in enumerate(zip(shares, on_patches, strict=True)):
            part = float(share)
            heads.append(HeadShare(block, head, part, area, part / area, float(whole)))
    return sorted(heads, key=lambda head: -head.share)


def _covered(first: float, last: float, low: float, high: float, count: int) -> Tensor:
    """(count,): the covered part of each of the equal parts of low..high, by first..last."""
    edges = torch.linspace(low, high, count + 1, dtype=torch.float64)
    lengths = edges[1:].clamp(max=last) - edges[:-1].clamp(min=first)
    return lengths.clamp(min=0) / ((high - low) / count)
