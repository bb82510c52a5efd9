"""How far each head looks.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv:2010.11929), figure 11: the distance
in pixels between a patch and the patches it attends to, averaged with the attention weights, and
over patches and pictures. Heads of the first blocks that look near do what a convolution does;
heads that look everywhere do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.describe.walk import measure_attention
from minivit.vit import VisionTransformer


def attention_distance(model: VisionTransformer, images: Tensor) -> Tensor:
    """Mean distance in pixels at which each head of each block looks.

    Prefix tokens have no place. Their rows are left out, and so is what a patch gives to them: the
    rest of its row is divided by its sum. `mass_by_kind` says how much that was.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width); a few dozen pictures give stable figures.

    Returns:
        (B, blocks, H), from 0, a head that looks at its own patch only. A head that looks at all
        patches alike has the value of `uniform_distance`.
    """
    num_prefix = model.num_prefix_tokens
    distances = patch_distances(model, images.shape[-2:])
    patches = range(num_prefix, num_prefix + len(distances))

    def measure(weights: Tensor) -> Tensor:
        return _mean_distance(weights[..., num_prefix:], distances.to(weights))

    return measure_attention(model, images, measure, rows=patches)


def uniform_distance(model: VisionTransformer, images: Tensor) -> float:
    """Mean distance in pixels between two patches drawn at random, maybe the same one twice."""
    return float(patch_distances(model, images.shape[-2:]).mean())


def patch_distances(model: VisionTransformer, image_size: tuple[int, int] | torch.Size) -> Tensor:
    """Distance in pixels between the middles of all pairs of patches.

    Args:
        model: Model that cuts the patches.
        image_size: (height, width) of the pictures in pixels.

    Returns:
        (rows·cols, rows·cols) float32.
    """
    high, wide = model.patch_embed.patch_size
    rows, cols = model.patch_embed.grid_for(*image_size)
    y, x = torch.meshgrid(torch.arange(rows) * high, torch.arange(cols) * wide, indexing="ij")
    places = torch.stack([y, x], dim=-1).flatten(0, 1).float()  # (rows, cols, 2) -> (N, 2)
    return torch.linalg.vector_norm(places[:, None] - places, dim=-1)  # (N, N, 2) -> (N, N)


def _mean_distance(weights: Tensor, distances: Tensor) -> Tensor:
    """Mean over rows of the distances weighted by each row, (B, H, N, N) to (B, H)."""
    smallest = torch.finfo(weights.dtype).tiny  # for a row whose weight went to prefix tokens
    along_rows = (weights * distances).sum(dim=-1) / weights.sum(dim=-1).clamp(min=smallest)
    return along_rows.mean(dim=-1)
