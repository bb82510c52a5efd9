"""The pointing game: does a map point at the thing that it is about?

Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop" (arXiv:1608.00507): a map hits
when its strongest pixel lies on the object, and its score is the fraction of hits. Here a map has
cells instead of pixels, and when a cell lies on the object is the caller's choice: when it shows
some of the object, or when half of it is object. The second is the stricter rule.

A large object is easy to hit, and much of any map lies on it. So hits are to be compared with
`chance`, and mass with `area`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch.nn.functional as F
from torch import Tensor

Rule = Literal["some", "half"]
"""When a cell lies on the object: it shows some of it, or the object is at least half of it."""


class Pointing(NamedTuple):
    """Figures of each map; every tensor has the shape of the maps without their rows and columns.

    Attributes:
        hits: Whether the strongest cell lies on the object by the rule, boolean; of several equal
            cells the first counts.
        chance: Fraction of cells that lie on it: what a cell drawn at random hits.
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


def pointing_game(maps: Tensor, cells: Tensor, *, rule: Rule = "some") -> Pointing:
    """Plays the game with each map and its object.

    Args:
        maps: (…, rows, cols).
        cells: (…, rows, cols), the fraction of each cell that the object covers, or a boolean mask;
            leading dimensions are those of the maps, or 1 where maps share an object.
        rule: What makes a cell one of the object: "some" of the object in it, or "half" of it or
            more.

    Raises:
        ValueError: Maps and cells are of different grids, or an unknown rule.
    """
    if maps.shape[-2:] != cells.shape[-2:]:
        raise ValueError(
            f"the maps have {maps.shape[-2]} x {maps.shape[-1]} cells and the objects "
            f"{cells.shape[-2]} x {cells.shape[-1]}: bring the masks to the grid with `covered`"
        )
    if rule not in get_args(Rule):
        raise ValueError(f"rule is {rule!r}: choose from {', '.join(get_args(Rule))}")
    on_object = cells > 0 if rule == "some" else cells >= 0.5
    shown = on_object.expand_as(maps).flatten(-2)  # (…, rows, cols) -> (…, M)
    share = cells.to(maps.dtype).expand_as(maps).flatten(-2)  # (…, rows, cols) -> (…, M)
    weights = maps.flatten(-2)  # (…, rows, cols) -> (…, M)
    strongest = weights.argmax(dim=-1, keepdim=True)  # (…, M) -> (…, 1)
    return Pointing(
        hits=shown.gather(-1, strongest).squeeze(-1),  # (…, 1) -> (…)
        chance=shown.to(maps.dtype).mean(dim=-1),
        mass=(weights * share).sum(dim=-1),
        area=share.mean(dim=-1),
    )
