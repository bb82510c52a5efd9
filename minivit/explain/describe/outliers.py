"""Patch tokens that are far longer than the others.

Darcet et al. 2023, "Vision Transformers Need Registers" (arXiv:2309.16588): in large models that
were trained long, a few patch tokens, mostly of plain background, become many times as long as the
others. They hold what is known of the whole picture instead of what their patch shows, and draw
much attention: maps have bright dots where there is nothing to see. The paper cuts at a length of
150, which it reads off a histogram of DINOv2-g; here the cut is a multiple of the picture's median.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.explain.conditions import fixed
from minivit.explain.describe.walk import tokens_by_block
from minivit.fields import is_number
from minivit.precision import widen
from minivit.vit import VisionTransformer


class OutlierTokens(NamedTuple):
    """Lengths of patch tokens after a block, and which are outliers.

    Attributes:
        norms: (B, rows, cols) Euclidean lengths.
        outliers: (B, rows, cols) boolean.
    """

    norms: Tensor
    outliers: Tensor


def outlier_tokens(
    model: VisionTransformer, images: Tensor, *, block: int = -1, times: float = 3.0
) -> OutlierTokens:
    """The patch tokens that are far longer than the picture's others.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        block: Number of the block after which lengths are measured, before the final norm, which
            makes all alike; negative ones count from the last.
        times: Multiple of the median length of the picture's patches above which one is an outlier.

    Raises:
        IndexError: No such block.
        ValueError: `times` is not a number from 1.
    """
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise IndexError(f"block {block}: choose from {-depth} to {depth - 1}")
    if not is_number(times, 1):
        raise ValueError(f"times is {times!r}, expected a number, at least 1")
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    with fixed(model):
        after = block % depth + 1  # the first tokens are those before any block
        tokens = next(islice(tokens_by_block(model, images), after, None))
        lengths = torch.linalg.vector_norm(widen(tokens[:, model.num_prefix_tokens :]), dim=-1)
    median = lengths.quantile(0.5, dim=1)[:, None, None]  # (B,) -> (B, 1, 1)
    norms = lengths.view(-1, rows, cols)  # (B, rows·cols) -> (B, rows, cols)
    return OutlierTokens(norms=norms, outliers=norms > times * median)
