"""Where a model's answer is read, and numbers of tokens as maps: what several methods share.

A method that follows the answer back ends with a row over all tokens, one number each. The row is
that of the token which the head reads: the class token, or every patch alike where the head reads
their mean. Without the prefix tokens it is a map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor

from minivit.attention import MultiHeadAttention
from minivit.blocks import EncoderBlock
from minivit.explain.conditions import Target, class_numbers
from minivit.explain.free_memory import require_memory
from minivit.precision import is_plain
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


def require_room(model: VisionTransformer, images: Tensor, *, copies: float, what: str) -> None:
    """Raises a ValueError unless the weights of a block, so many times, fit into the free memory.

    Args:
        model: Model that would be asked.
        images: (B, C, height, width).
        copies: Number of tensors (B, H, N, N) that are in memory together.
        what: What takes them, with which the message begins.
    """
    require_memory(
        int(copies * bytes_of_weights(model, images)),
        images.device,
        what=what,
        advice="give fewer or smaller pictures at once",
    )


def bytes_of_weights(model: VisionTransformer, images: Tensor) -> int:
    """Bytes of the weights (B, H, N, N) of a block, which are float32 at least."""
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    length = model.num_prefix_tokens + rows * cols
    return len(images) * model.config.num_heads * length**2 * max(4, images.element_size())


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


def classify_outputs(model: VisionTransformer, outputs: Iterable[Tensor]) -> Tensor:
    """Logits (B, classes) from what the last blocks gave.

    Args:
        model: Model with the head.
        outputs: Outputs (B, N, D) of the last `head_blocks` blocks, the last block's last.
    """
    *earlier, last = outputs
    class_tokens = [model.norm(tokens[:, 0]) for tokens in earlier]  # (B, N, D) -> (B, D)
    return model.classify(model.norm(last), class_tokens)


def logits_of_states(model: VisionTransformer, states: Sequence[Tensor]) -> Tensor:
    """Logits (B, classes) from the first states of a forward pass: what is left of it is computed.

    Args:
        model: Model in eval mode; without a head it gives the pooled features (B, D).
        states: The tokens (B, N, D) as they enter the first block, and after each block that has
            run, first block first.
    """
    read = deque(states, maxlen=model.config.head_blocks)  # of the others nothing is kept
    for number in range(len(states) - 1, len(model.blocks)):
        tokens, _ = run_block(model, number, read[-1])
        read.append(tokens)
    return classify_outputs(model, read)


def run_block(
    model: VisionTransformer, number: int, tokens: Tensor, *, need_weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """A block, on the way to the logits: the last one only for the tokens that the head reads.

    Where these are the class token and the distillation token, the last block asks the others for
    keys and values alone, which saves nearly a block, in a backward pass too. Hooks may look at
    the tokens that would be missing: a block that has some runs as it is.

    Args:
        model: Model in eval mode.
        number: Number of the block, from 0.
        tokens: (B, N, D) as they enter the block.
        need_weights: Whether its weights are wanted.

    Returns:
        The first n tokens, (B, n, D), n being all or as many as the head reads; and their weights
        (B, H, n, N), or None.
    """
    block = cast(EncoderBlock, model.blocks[number])
    is_last = number == len(model.blocks) - 1
    if not is_last or model.config.pooling != "cls" or not is_plain_block(block):
        output, weights = block(tokens, need_weights=need_weights)
        return output, weights
    count = 1 + model.config.distillation_token
    normed = block.before(block.norm1, tokens)
    attended, weights = block.attn(normed[:, :count], normed, need_weights=need_weights)
    h = block.after(block.norm1, tokens[:, :count] + block.ls1(attended))  # (B, N, D) -> (B, n, D)
    return block.after(block.norm2, h + block.ls2(block.mlp(block.before(block.norm2, h)))), weights


def is_plain_block(block: EncoderBlock) -> bool:
    """Whether a block computes what its weights say, and nobody looks on."""
    if type(block) is not EncoderBlock or type(block.attn) is not MultiHeadAttention:
        return False
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    hooks = (getattr(module, f"_{kind}_hooks") for module in block.modules() for kind in kinds)
    return is_plain(block.attn.qkv) and not any(hooks)


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
