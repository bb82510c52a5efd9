"""A map held against a mask of the object: pointing, mass, average precision.

Pointing and mass are those of `minivit/explain/pointing.py`, by the rule "half". Average precision
takes the map as a ranking of pixels, those on the object to be ranked first::

    AP = Σ (Rᵢ - Rᵢ₋₁) Pᵢ        over the different values of the map, from the largest on,

where P and R are precision and recall of the pixels whose value is at least the i-th. A pixel has
the value of its cell, so that a cell that the object covers in part is right in part. Pixels of
which the mask says nothing are left out of all three, and a cell with no other pixels cannot be
pointed at.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivit.data.photos.masks import Cells
from minivit.explain.pointing import pointing_game


class Truth(NamedTuple):
    """Figures of maps, each (B,) float64.

    Attributes:
        pointing: 1 where the strongest known cell is at least half object, else 0.
        mass: Part of the map on the object.
        precision: Average precision; 0 where the picture shows no object.
    """

    pointing: Tensor
    mass: Tensor
    precision: Tensor


class Chance(NamedTuple):
    """What maps get that know nothing, each (B,) float64.

    Attributes:
        pointing: Part of the known cells that is at least half object: a cell drawn at random.
        mass: Part of the known area that is object: a map of one value.
        precision: The same, as the average precision of such a map.
    """

    pointing: Tensor
    mass: Tensor
    precision: Tensor


def against_truth(maps: Tensor, cells: Cells) -> Truth:
    """Scores maps.

    Args:
        maps: (B, rows, cols). For the mass, values below 0 count as 0, and a map without a value
            above 0 on known ground as one of the same value everywhere.
        cells: Share of object and of known area of each cell, both (B, rows, cols), as
            `minivit.data.photos.masks.cell_shares` gives them.
    """
    maps = maps.detach().cpu().double()
    share, known = cells.share.double(), cells.known.double()
    seen = maps.masked_fill(known == 0, -torch.inf)
    weights = maps.clamp(min=0) * known
    total = weights.sum(dim=(1, 2), keepdim=True)
    weights = torch.where(total > 0, weights, known)
    return Truth(
        pointing_game(seen, share, rule="half").hits.double(),
        (weights * share).sum(dim=(1, 2)) / weights.sum(dim=(1, 2)),
        average_precision(maps, on=share * known, off=(1 - share) * known),
    )


def chance(cells: Cells) -> Chance:
    """What a cell drawn at random, and a map of one value, get; `cells` as in `against_truth`."""
    share, known = cells.share.double(), cells.known.double()
    seen = known > 0
    drawn = (share >= 0.5).sum(dim=(1, 2)) / seen.sum(dim=(1, 2))
    area = (share * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2))
    return Chance(drawn.double(), area, area)


def average_precision(maps: Tensor, *, on: Tensor, off: Tensor) -> Tensor:
    """Average precision of maps as rankings; cells of equal value are ranked together.

    Args:
        maps: (B, rows, cols).
        on: Area of each cell that is object, (B, rows, cols).
        off: Area of each cell that is not.

    Returns:
        (B,); 0 where there is no object.
    """
    results = []
    for values, right, wrong in zip(maps, on, off, strict=True):
        levels, place = values.flatten().unique(return_inverse=True)  # levels ascend
        areas = values.new_zeros(2, len(levels))
        areas.index_add_(1, place, torch.stack([right.flatten(), wrong.flatten()]))
        right_until, wrong_until = areas.flip(1).cumsum(dim=1)  # from the largest value on
        precision = right_until / (right_until + wrong_until).clamp(min=1e-12)
        gained = right_until.diff(prepend=right_until.new_zeros(1))
        results.append((gained * precision).sum() / right_until[-1].clamp(min=1e-12))
    return torch.stack(results)
