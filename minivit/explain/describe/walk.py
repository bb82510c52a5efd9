"""Blocks one after the other, so that the weights of one are in memory at a time.

What describes a model is made of the attention of all blocks and of few numbers of each: with
`return_attention=True` all of it would be kept until the last block is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from minivit.blocks import EncoderBlock
from minivit.explain.conditions import fixed
from minivit.explain.free_memory import require_room
from minivit.vit import VisionTransformer


def measure_attention(
    model: VisionTransformer,
    images: Tensor,
    measure: Callable[[Tensor], Tensor],
    *,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """What a function makes of the attention weights of each block.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        measure: Function of the weights (B, H, N, N), or (B, H, rows, N), of one block; it gives
            (B, …).
        rows: Numbers of the tokens that look; None: all.

    Returns:
        (B, blocks, …), first block first.
    """
    require_room(model, images, copies=2, what="the attention of a block")
    measures = []
    with fixed(model):
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        for block in model.blocks:
            tokens, weights = cast(EncoderBlock, block)(tokens, need_weights=True, rows=rows)
            assert weights is not None
            measures.append(measure(weights))
            del weights  # before the next block's are made
    return torch.stack(measures, dim=1)


def tokens_by_block(model: VisionTransformer, images: Tensor) -> Iterator[Tensor]:
    """The tokens (B, N, D) as they enter the first block, and after each block.

    Args:
        model: Model, within `fixed`.
        images: (B, C, height, width).
    """
    tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
    yield tokens
    for block in model.blocks:
        tokens, _ = cast(EncoderBlock, block)(tokens)
        yield tokens
