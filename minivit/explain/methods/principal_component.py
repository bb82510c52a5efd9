"""The direction in which the patches of a picture differ most, and where each patch lies along it.

As in the figures of DINOv2 (arXiv:2304.07193, figure 1), but for each picture alone, with the
tokens y after the last block and norm::

    c_j = y_j - mean over patches of y        u = first eigenvector of Σ_j c_j c_jᵀ
    map_j = c_j · u

u and -u are equally good. The sign is chosen without truth: **the side that the model attends to
more is positive**, so that Σ_j a_j map_j ≥ 0 for the weights a_j that patch j gets in the last
block, mean over heads, from the class token, or without one from all patches alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.attention import AttentionRows
from minivit.explain.conditions import Target, fixed
from minivit.explain.methods.readout import to_maps
from minivit.precision import no_autocast, widen
from minivit.vit import VisionTransformer


def principal_component(
    model: VisionTransformer, images: Tensor, target: Target = None, *, component: int = 0
) -> Tensor:
    """Place of each patch along a principal component of the patch outputs: arXiv:2304.07193.

    It often parts things from background, with values of both signs and mean 0. It says what the
    tokens differ in, not what the class depends on, and the sign is a guess that can be wrong.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        target: Not looked at.
        component: Number of the component, the one of most variance first.

    Returns:
        (B, rows, cols) of mean 0, in units of the tokens.

    Raises:
        ValueError: No such component. M patches lie along M - 1 at most.
    """
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    most = max(0, min(rows * cols - 1, model.config.dim) - 1)
    if not 0 <= component <= most:
        raise ValueError(f"component {component}: choose from 0 to {most}")
    wanted = AttentionRows([-1], [0]) if model.config.class_token else [-1]
    with fixed(model):
        tokens, (attention,) = model.encode(images, return_attention=wanted)
    attended = to_maps(model, images, attention.mean(dim=(1, 2)))  # (B, H, r, N) -> (B, rows, cols)
    patches = widen(tokens[:, model.num_prefix_tokens :])  # (B, N, D) -> (B, M, D)
    with no_autocast(images.device), torch.no_grad():
        centred = patches - patches.mean(dim=1, keepdim=True)
        left, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
        along = left[:, :, component] * lengths[:, [component]]  # (B, M)
    maps = along.view(-1, rows, cols)  # (B, M) -> (B, rows, cols)
    side = (attended * maps).sum(dim=(1, 2), keepdim=True)
    return torch.where(side < 0, -maps, maps)
