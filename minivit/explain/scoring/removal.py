"""Deletion and insertion: does the class go with the patches that a map ranks first?

Petsiuk et al. 2018, "RISE" (arXiv:1806.07421), section 3.2, with patch tokens removed instead of
pixels painted over: nothing has to be put in their place.

* Deletion: the most important patches go first. A good map takes the class's probability down
  early, and the area under the curve is small.
* Insertion: from no patch at all, the most important come first; the area is large.

Patches are ranked by the values of the map, the largest first; of equal values the patch with the
lower number, row by row from the top left, comes first. What a curve shows is the model's use of
patches and not where the object is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.kept import logits_of_kept
from minivit.vit import VisionTransformer


class Removal(NamedTuple):
    """Probability of the class along both ways, and the areas under it.

    Attributes:
        deletion: (B, points + 1), from all patches kept to the fewest that the head needs.
        insertion: (B, points + 1), from the fewest to all.
        deletion_area: (B,) area under `deletion` over the part that was removed: a mean height.
        insertion_area: (B,) the same of `insertion`, over the part that was kept.
    """

    deletion: Tensor
    insertion: Tensor
    deletion_area: Tensor
    insertion_area: Tensor


def rank_patches(maps: Tensor) -> Tensor:
    """Numbers of the patches by importance, (B, rows, cols) -> (B, M); ties as stated above."""
    return maps.flatten(1).sort(dim=1, descending=True, stable=True).indices


def removal(
    model: VisionTransformer, images: Tensor, maps: Tensor, target: Tensor, *, points: int = 20
) -> Removal:
    """Removes the patches of pictures in the order of their maps, and in the reverse one.

    Args:
        model: Model with a head.
        images: (B, C, height, width).
        maps: (B, rows, cols).
        target: (B,) number of the class that is followed.
        points: Number of steps of a curve, evenly spaced and rounded to whole patches.

    Raises:
        ValueError: The model has no head, or fewer than one point.
    """
    if not model.config.num_classes:
        raise ValueError("the model has no head, so there is no class to lose")
    if points < 1:
        raise ValueError(f"points is {points}, expected 1 or more")
    order = rank_patches(maps)
    count = order.shape[1]
    fewest = 0 if model.config.pooling == "cls" else 1  # a mean of no patches is none
    numbers = torch.linspace(fewest, count, points + 1).round().long()
    target = target.cpu()[:, None]  # (B,) -> (B, 1)

    def probability(keep: Tensor) -> Tensor:
        logits = logits_of_kept(model, images, keep).cpu().double()
        return logits.softmax(dim=1).gather(1, target)[:, 0]  # (B, classes) -> (B,)

    with fixed(model):
        most_important = [probability(order[:, :number]) for number in numbers.tolist()]
        least_important = [probability(order[:, count - number :]) for number in numbers.tolist()]
    insertion = torch.stack(most_important, dim=1)
    deletion = torch.stack(least_important[::-1], dim=1)
    part_kept = numbers.double() / count
    return Removal(
        deletion,
        insertion,
        _area(deletion, 1 - part_kept.flip(0)),
        _area(insertion, part_kept),
    )


def _area(curves: Tensor, x: Tensor) -> Tensor:
    """Area under (B, points + 1) by trapezoids, divided by the width: the mean height."""
    return torch.trapezoid(curves, x, dim=1) / (x[-1] - x[0])
