"""Do two maps rank the patches alike? Spearman's correlation of ranks.

    ρ = correlation of rank(a) and rank(b),   equal values share the mean of their ranks

Ranks do not depend on the scale of a map, so that maps of different methods can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's correlation of each map with another one.

    Args:
        maps: (…, rows, cols).
        others: Maps of the same shape.

    Returns:
        (…) float64 from -1 to 1; 0 where a map has the same value everywhere and so ranks nothing.

    Raises:
        ValueError: The shapes differ.
    """
    if maps.shape != others.shape:
        raise ValueError(
            f"the maps are {tuple(maps.shape)} and {tuple(others.shape)}, expected equal shapes"
        )
    first, second = (_ranks(each) for each in (maps, others))
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    products = (first * second).sum(dim=-1)
    return torch.where(lengths > 0, products / lengths.clamp(min=1e-300), 0.0)


def _ranks(maps: Tensor) -> Tensor:
    """Ranks around their mean: (…, rows, cols) -> (…, M) float64."""
    values = maps.detach().cpu().double().flatten(-2).contiguous()  # (…, rows, cols) -> (…, M)
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above - values.shape[-1]).double() / 2
