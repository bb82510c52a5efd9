"""The pointing game: does a map point at the thing that it is about?

Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop" (arXiv:1608.00507): a map hits
when its strongest pixel lies on the object, and its score is the fraction of hits. Here a map has
cells instead of pixels: it hits when its strongest cell shows some of the object.

A large object is easy to hit, and much of any map lies on it. So hits are to be compared with
`chance`, and mass with `area`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Pointing(NamedTuple):
    """Figures of each map; every tensor has the shape of the maps without their rows and columns.

    Attributes:
        hits: Whether the strongest cell shows some of the object, boolean; of several equal cells
            the first counts.
        chance: Fraction of cells that show some of it: what a cell drawn at random hits.
        mass: Weight of the map on the object, each cell counted by the fraction of it that the
            object covers. It can reach the sum of the map: 1 for cross-attention, less where
            prefix tokens were left out.
        area: Fraction of the picture that the object covers: the mass of a uniform map of sum 1.
    """

    hits: Tensor
    chance: Tensor
    mass: Tensor
    area: Tensor


def covered(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """The fraction of each cell that an object covers.

    Args:
        masks: (n, height, width), True or 1 where the object is.
        grid: (rows, cols).

    Returns:
        (n, rows, cols) float, from 0 to 1.
    """
    return F.adaptive_avg_pool2d(masks.float(), grid)  # (n, height, width) -> (n, rows, cols)


def pointing_game(maps: Tensor, cells: Tensor) -> Pointing:
    """Plays the game with each map and its object.

    Args:
        maps: (…, rows, cols).
        cells: (…, rows, cols), the fraction of each cell that the object covers, or a boolean mask;
            leading dimensions are those of the maps, or 1 where maps share an object.

    Raises:
        ValueError: Maps and cells are of different grids.
    """
    if maps.shape[-2:] != cells.shape[-2:]:
        raise ValueError(
            f"the maps have {maps.shape[-2]} x {maps.shape[-1]} cells and the objects "
            f"{cells.shape[-2]} x {cells.shape[-1]}: bring the masks to the grid with `covered`"
        )
    shown = (cells > 0).expand_as(maps).flatten(-2)  # (…, rows, cols) -> (…, M)
    share = cells.to(maps.dtype).expand_as(maps).flatten(-2)  # (…, rows, cols) -> (…, M)
    weights = maps.flatten(-2)  # (…, rows, cols) -> (…, M)
    strongest = weights.argmax(dim=-1, keepdim=True)  # (…, M) -> (…, 1)
    return Pointing(
        hits=shown.gather(-1, strongest).squeeze(-1),  # (…, 1) -> (…)
        chance=shown.to(maps.dtype).mean(dim=-1),
        mass=(weights * share).sum(dim=-1),
        area=share.mean(dim=-1),
    )
