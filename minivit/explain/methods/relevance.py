"""Gradient-weighted relevance: attention followed back through all blocks, for one class.

Chefer, Gur & Wolf 2021, "Generic Attention-model Explainability" (arXiv:2103.15679), equations 5
and 6, with y the logit of the class and R = I before the first block::

    Ā(l) = mean over heads of (∂y/∂A(l) ⊙ A(l))⁺        R ← R + Ā(l) R

Nothing is normalised before the sum: rows of Ā are small, those of I are 1, and code that brings
both to one scale computes another map. A row of R = (I + Ā(L)) … (I + Ā(1)) is a row vector that
goes through the blocks from the last to the first, the way of the gradients::

    r(L+1) = what the head reads        r(l) = r(l+1) + r(l+1) Ā(l)

so each block's weights and gradients are needed once, together, and then no more. Two ways come to
the same numbers:

* "maps": one forward pass keeps the weights of all blocks for one backward pass;
* "inputs": a plain forward pass keeps the inputs of the blocks, and all but the last quarter of
  them are computed again, one by one, when the gradient arrives: about 1.4 times the work, a
  quarter of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from minivit.explain.conditions import Target, fixed
from minivit.explain.free_memory import bytes_of_weights, free_memory, require_memory
from minivit.explain.methods.readout import block_inputs, class_score, read_row, to_maps
from minivit.explain.states import logits_of_states, run_block
from minivit.precision import no_autocast
from minivit.vit import VisionTransformer

Keep = Literal["auto", "maps", "inputs"]
KEPT_PART = 4  # with "inputs", one block of so many is kept: memory of 3 blocks of 12


def relevance(
    model: VisionTransformer, images: Tensor, target: Target = None, *, keep: Keep = "auto"
) -> Tensor:
    """Relevance of each patch for a class: arXiv:2103.15679, equations 5 and 6.

    It says through which tokens attention that raises the logit passes on its way to what the head
    reads. What lowers the logit is left out, as are MLPs and what values hold.

    Args:
        model: Vision Transformer with a head. Where the head reads the mean of the patches, the map
            is the mean of their rows instead of the class token's row.
        images: (B, C, height, width).
        target: The class to explain.
        keep: What of the forward pass stays in memory, "maps" or "inputs", see this module's
            docstring; "auto": maps where they take less than half of the free memory.

    Returns:
        (B, rows, cols), not negative, on no common scale: compare cells of one map.

    Raises:
        ValueError: The model has no head; no such class; called under `torch.inference_mode`; an
            unknown `keep`; or what is to stay in memory does not fit into what is free.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep is {keep!r}: choose from {', '.join(get_args(Keep))}")
    if keep == "auto":
        free = free_memory(images.device)
        fits = free is not None and 2 * bytes_of_maps(model, images) < free
        keep = "maps" if fits else "inputs"
    _require_room(model, images, keep)
    with fixed(model, gradients=True):
        way = _row_of_kept_maps if keep == "maps" else _row_of_kept_inputs
        return to_maps(model, images, way(model, images, target))


def bytes_of_maps(model: VisionTransformer, images: Tensor) -> int:
    """Bytes that the backward pass finds in memory when all maps were kept, about.

    A block keeps its weights, and of each token what its norms, projections and MLP were given.

    Args:
        model: Model that would be asked.
        images: (B, C, height, width).
    """
    config = model.config
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    length = model.num_prefix_tokens + rows * cols
    numbers = config.num_heads * length + 7 * config.dim + 2 * config.hidden_dim  # a token, a block
    return images.shape[0] * config.depth * length * numbers * max(4, images.element_size())


def _require_room(model: VisionTransformer, images: Tensor, keep: Keep) -> None:
    """Raises a ValueError unless what is kept, and what a block takes, fit into the free memory."""
    maps, others = bytes_of_maps(model, images), "fewer or smaller pictures at once"
    if keep == "inputs":
        maps = maps * _number_kept(model) // len(model.blocks)
    needed = maps + 3 * bytes_of_weights(model, images)  # weights, their gradient, their product
    advice = f"use keep='inputs', or {others}" if keep == "maps" else f"give {others}"
    what = f"relevance of {len(images)} pictures with keep={keep!r}"
    require_memory(needed, images.device, what=what, advice=advice)


def _number_kept(model: VisionTransformer) -> int:
    """Number of blocks that stay in memory with "inputs": all that the head reads, or more."""
    return max(model.config.head_blocks, len(model.blocks) // KEPT_PART)


def _row_of_kept_maps(model: VisionTransformer, images: Tensor, target: Target) -> Tensor:
    """(B, N) by one backward pass."""
    row, _ = _fold_kept(model, block_inputs(model, images, count=1), target)
    return row


def _row_of_kept_inputs(model: VisionTransformer, images: Tensor, target: Target) -> Tensor:
    """(B, N), all but the last blocks computed again from their inputs."""
    count = len(model.blocks) - _number_kept(model) + 1
    inputs = block_inputs(model, images, count=count)
    row, gradient = _fold_kept(model, inputs, target)
    del inputs[-1]
    for number in reversed(range(len(inputs))):
        tokens = inputs.pop().requires_grad_()
        output, attention = run_block(model, number, tokens, need_weights=True)
        assert attention is not None
        wanted = [attention, tokens] if number else [attention]
        of_attention, *of_tokens = torch.autograd.grad(output, wanted, gradient)
        row = fold_back(row, attention.detach(), of_attention)
        if of_tokens:
            (gradient,) = of_tokens
        del output, attention, of_attention, wanted  # before the next block's are made
    return row


def _fold_kept(
    model: VisionTransformer, inputs: Sequence[Tensor], target: Target
) -> tuple[Tensor, Tensor]:
    """r (B, N) through the last blocks, by one backward pass, which meets them in this order.

    Args:
        model: Model in eval mode, under autograd.
        inputs: (B, N, D) that the first blocks are given; the last of them is that of the first
            block that is folded here.
        target: The class to explain.

    Returns:
        The row; and the score's gradient (B, N, D) by the last input, or, where that is the
        embedding and nothing is left to be folded, by the weights (B, H, N, N) of block 0.
    """
    states = list(inputs)
    attentions: list[Any] = []  # tensors, whose hooks torch has not typed
    first = states[-1].requires_grad_()
    for number in range(len(inputs) - 1, len(model.blocks)):
        tokens, attention = run_block(model, number, states[-1], need_weights=True)
        states.append(tokens)
        attentions.append(attention)
    score = class_score(model, target, logits_of_states(model, states))
    row = first.new_empty(0)

    def begin(gradient: Tensor, *, attention: Tensor) -> None:
        nonlocal row
        row = row_of_last(model, attention, gradient)

    def fold(gradient: Tensor, *, attention: Tensor) -> None:
        nonlocal row
        row = fold_back(row, attention, gradient)

    *earlier, last = attentions
    last.register_hook(partial(begin, attention=last.detach()))
    for attention in earlier:  # hooks of these tensors alone, which go when this call ends
        attention.register_hook(partial(fold, attention=attention.detach()))
    (gradient,) = torch.autograd.grad(score, first if len(inputs) > 1 else attentions[0])
    return row, gradient


def row_of_last(model: VisionTransformer, attention: Tensor, gradient: Tensor) -> Tensor:
    """r(L) (B, N), what the head reads and the last block's part in it.

    Args:
        model: Model with the head.
        attention: (B, H, N, N), weights of the last block; or its first rows alone, as `run_block`
            gives them where the head reads token 0.
        gradient: The score's gradient by them.
    """
    return fold_back(read_row(model, attention), attention, gradient)


@torch.no_grad()
def fold_back(row: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
    """r + r Ā, the row a block earlier.

    Args:
        row: (B, N), 0 from token R on.
        attention: (B, H, R, N), weights of the block, of all tokens or of the first R.
        gradient: (B, H, R, N), the score's gradient by them.
    """
    with no_autocast(row.device):
        carried, read = torch.zeros_like(row), row[:, : attention.shape[2]]
        for weights, by_weights in zip(attention.unbind(1), gradient.unbind(1), strict=True):
            raising = (weights * by_weights).clamp_(min=0)  # (B, R, N), a head at a time
            carried += (read[:, None] @ raising)[:, 0]  # (B, R) -> (B, 1, R) -> (B, N)
        return row + carried / attention.shape[1]
