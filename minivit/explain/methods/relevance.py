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
* "inputs": a plain forward pass keeps the inputs of the blocks, and each block is computed again
  when the gradient arrives: about 1.4 times the work, one block's weights in memory.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from minivit.explain.conditions import Target, fixed
from minivit.explain.free_memory import free_memory
from minivit.explain.methods.readout import (
    block_inputs,
    class_score,
    classify_outputs,
    logits_of_states,
    read_row,
    run_block,
    to_maps,
)
from minivit.precision import no_autocast
from minivit.vit import VisionTransformer

Keep = Literal["auto", "maps", "inputs"]


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
        ValueError: The model has no head; no such class; called under `torch.inference_mode`; or an
            unknown `keep`.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep is {keep!r}: choose from {', '.join(get_args(Keep))}")
    if keep == "auto":
        free = free_memory(images.device)
        fits = free is not None and 2 * bytes_of_maps(model, images) < free
        keep = "maps" if fits else "inputs"
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


def _row_of_kept_maps(model: VisionTransformer, images: Tensor, target: Target) -> Tensor:
    """(B, N) by one backward pass, which meets the blocks in the order of the folding."""
    (embedded,) = block_inputs(model, images, count=1)
    states, attentions = [embedded.requires_grad_()], []
    for number in range(len(model.blocks)):
        tokens, attention = run_block(model, number, states[-1], need_weights=True)
        states.append(tokens)
        attentions.append(attention)
    score = class_score(model, target, logits_of_states(model, states))
    row = torch.empty(0)

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
    torch.autograd.grad(score, attentions[0])
    return row


def _row_of_kept_inputs(model: VisionTransformer, images: Tensor, target: Target) -> Tensor:
    """(B, N) block by block, each but the last computed again from its input."""
    last = len(model.blocks) - 1
    inputs = block_inputs(model, images, count=last + 1)
    others = model.config.head_blocks - 1  # blocks whose outputs, later inputs, the head reads too
    read = [tokens.requires_grad_() for tokens in inputs[-max(1, others) :]]
    output, attention = run_block(model, last, read[-1], need_weights=True)
    logits = classify_outputs(model, [*read[len(read) - others :], output])
    score = class_score(model, target, logits)
    of_attention, *of_read = torch.autograd.grad(score, [attention, *read])
    row = row_of_last(model, attention.detach(), of_attention)
    gradient = of_read.pop()
    del inputs[-1], read, output
    for block in reversed(model.blocks[:-1]):
        tokens = inputs.pop().detach().requires_grad_()
        output, attention = block(tokens, need_weights=True)
        wanted = [attention, tokens] if inputs else [attention]
        of_attention, *of_tokens = torch.autograd.grad(output, wanted, gradient)
        row = fold_back(row, attention.detach(), of_attention)
        if of_tokens:
            gradient = of_tokens[0]
        if of_read:
            gradient = gradient + of_read.pop()
    return row


def row_of_last(model: VisionTransformer, attention: Tensor, gradient: Tensor) -> Tensor:
    """r(L) (B, N), what the head reads and the last block's part in it.

    Args:
        model: Model with the head.
        attention: (B, H, N, N), weights of the last block; or its first rows alone, as `run_block`
            gives them where the head reads token 0.
        gradient: The score's gradient by them.
    """
    row = read_row(model, attention)
    if attention.shape[2] == attention.shape[3]:
        return fold_back(row, attention, gradient)
    return row + (attention[:, :, 0] * gradient[:, :, 0]).clamp(min=0).mean(dim=1)  # -> (B, N)


@torch.no_grad()
def fold_back(row: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
    """r + r Ā, the row a block earlier.

    Args:
        row: (B, N).
        attention: (B, H, N, N), weights of the block.
        gradient: (B, H, N, N), the score's gradient by them.
    """
    with no_autocast(row.device):
        carried = torch.zeros_like(row)
        for weights, by_weights in zip(attention.unbind(1), gradient.unbind(1), strict=True):
            raising = (weights * by_weights).clamp_(min=0)  # (B, N, N), a head at a time
            carried += (row[:, None] @ raising)[:, 0]  # (B, N) -> (B, 1, N) -> (B, N)
        return row + carried / attention.shape[1]
