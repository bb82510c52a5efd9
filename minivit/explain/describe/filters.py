"""What the patch embedding looks for.

Dosovitskiy et al. 2021 (arXiv:2010.11929), figure 7, left: the first principal components of the
filters, each a patch of colours. In the paper's model they resemble a basis for the fine structure
of a patch; those of DINOv2 ViT-S/14 are grey waves and rings, and those of a model that has not
learned are noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from minivit.fields import is_whole
from minivit.precision import widen
from minivit.vit import VisionTransformer


class FilterComponents(NamedTuple):
    """Principal components of the D filters of a patch embedding, strongest first.

    Attributes:
        components: (K, C, height, width) of length 1, at right angles to each other; the value
            farthest from 0 is positive, as a component has no sign of its own.
        shares: (K,) part of the filters' variance that lies along each; 0 where there is none.
    """

    components: Tensor
    shares: Tensor


@torch.no_grad()
def filter_components(model: VisionTransformer, *, count: int = 28) -> FilterComponents:
    """The first principal components of the patch embedding's filters (about their mean).

    Args:
        model: Vision Transformer.
        count: Number of components; the paper shows 28.

    Raises:
        ValueError: More components than filters, or than a patch has values; or less than one.
    """
    weight = widen(model.patch_embed.proj.weight)  # (D, C, height, width)
    filters = weight.flatten(1)  # (D, C, height, width) -> (D, C·height·width)
    most = min(filters.shape)
    if not is_whole(count, 1) or count > most:
        raise ValueError(f"count is {count!r}, expected a whole number from 1 to {most}")
    _, lengths, components = torch.linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    farthest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))  # (most, 1)
    components = components * farthest.sign()
    variances = lengths.square()
    return FilterComponents(
        components=components[:count].reshape(count, *weight.shape[1:]),
        shares=variances[:count] / variances.sum().clamp(min=torch.finfo(variances.dtype).tiny),
    )
