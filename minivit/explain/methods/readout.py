"""Where a model's answer is read, and numbers of tokens as maps: what several methods share.

A method that follows the answer back ends with a row over all tokens, one number each. The row is
that of the token which the head reads: the class token, or every patch alike where the head reads
their mean. Without the prefix tokens it is a map.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers
from minivit.vit import VisionTransformer


def looking_token(
    model: VisionTransformer, images: Tensor, patch: tuple[int, int] | None = None
) -> int:
    """Number of the token that looks.

    Args:
        model: Model whose token it is.
        images: (B, C, height, width).
        patch: (row, col) of the patch that looks; None: the class token.

    Raises:
        ValueError: No class token and no patch, or no such patch.
    """
    if patch is None:
        if not model.config.class_token:
            raise ValueError(
                "the model has no class token: give the patch that looks, as (row, col)"
            )
        return 0
    (row, col), (rows, cols) = patch, model.patch_embed.grid_for(*images.shape[-2:])
    if not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(
            f"patch ({row}, {col}): the patches are a grid of {rows} rows x {cols} cols; choose "
            f"from (0, 0) to ({rows - 1}, {cols - 1})"
        )
    return model.num_prefix_tokens + row * cols + col


def block_number(model: VisionTransformer, block: int) -> int:
    """Number of a block from the first one.

    Raises:
        IndexError: No such block.
    """
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise IndexError(f"block {block}: choose from {-depth} to {depth - 1}")
    return block % depth


def read_row(model: VisionTransformer, like: Tensor) -> Tensor:
    """(B, N), how much of each token the head reads: 1 in all.

    It is the class token alone, or every patch alike where the pooling is "mean". A distillation
    token, and the patches that some heads read beside the class token, are left out.

    Args:
        model: Model with the head.
        like: Tensor (B, …, N) of the same batch, length, precision and device.
    """
    row = like.new_zeros(like.shape[0], like.shape[-1])
    if model.config.pooling == "mean":
        patches = row[:, model.num_prefix_tokens :]
        patches += 1 / patches.shape[1]
    else:
        row[:, 0] = 1
    return row


def class_score(model: VisionTransformer, target: Target, logits: Tensor) -> Tensor:
    """The sum over pictures of each one's logit of its class: pictures do not see each other.

    Args:
        model: Model with a head.
        target: As in `Target`.
        logits: (B, classes).

    Raises:
        ValueError: As in `class_numbers`.
    """
    numbers = class_numbers(model, target, logits)
    return logits.gather(1, numbers[:, None]).sum()


def to_maps(model: VisionTransformer, images: Tensor, row: Tensor) -> Tensor:
    """A number for each token, (B, N), as maps (B, rows, cols) of the patches.

    Args:
        model: Model that knows its prefix tokens.
        images: (B, C, height, width) that the tokens are of.
        row: (B, N).
    """
    rows, _ = model.patch_embed.grid_for(*images.shape[-2:])
    patches = row[:, model.num_prefix_tokens :]  # (B, N) -> (B, rows·cols)
    return rearrange(patches, "b (rows cols) -> b rows cols", rows=rows)


def block_inputs(model: VisionTransformer, images: Tensor, *, count: int) -> list[Tensor]:
    """What the first blocks are given, each (B, N, D), from a plain pass without gradients.

    Args:
        model: Model in eval mode.
        images: (B, C, height, width).
        count: Number of inputs; one more than there are blocks adds the last block's output.
    """
    with torch.no_grad():
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        inputs = [tokens]
        for block in model.blocks[: count - 1]:
            tokens, _ = block(tokens)
            inputs.append(tokens)
    return inputs
