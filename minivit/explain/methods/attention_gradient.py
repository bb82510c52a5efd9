"""Attention times gradient of one block: what the class's logit owes to each weight (first order).

With y the logit of the class, A the weights of the block and the row of the token that the head
reads::

    map = mean over heads of (A ⊙ ∂y/∂A)⁺

This is one factor of the relevance of arXiv:2103.15679 (equation 5) and, for the last block, its
map but for a constant on the token itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.conditions import Target, fixed
from minivit.explain.free_memory import require_room
from minivit.explain.methods.readout import (
    block_inputs,
    block_number,
    class_score,
    read_row,
    to_maps,
)
from minivit.explain.states import logits_of_states, run_block
from minivit.precision import no_autocast
from minivit.vit import VisionTransformer


def attention_gradient(
    model: VisionTransformer, images: Tensor, target: Target = None, *, block: int = -1
) -> Tensor:
    """Positive part of attention times gradient in one block: arXiv:2103.15679, equation 5.

    It says which looks of the token raise the logit, to first order and through all later blocks.
    It does not say where the tokens looked at have what they hold from; deep blocks mix them.

    Args:
        model: Vision Transformer with a head. Where the head reads the mean of the patches, the map
            is the mean of their rows instead of the class token's row.
        images: (B, C, height, width).
        target: The class to explain.
        block: Number of the block; negative ones count from the last.

    Returns:
        (B, rows, cols), not negative, in units of the logit.

    Raises:
        ValueError: The model has no head; no such class; or called under `torch.inference_mode`.
        IndexError: No such block.
    """
    number = block_number(model, block)
    require_room(model, images, copies=4, what="the attention of a block and its gradient")
    with fixed(model, gradients=True):
        states = block_inputs(model, images, count=number + 1)
        tokens = states[-1].requires_grad_()  # the graph begins here: no block before is asked
        output, attention = run_block(model, number, tokens, need_weights=True)
        assert attention is not None
        logits = logits_of_states(model, [*states, output])
        (gradient,) = torch.autograd.grad(class_score(model, target, logits), attention)
        raising = (attention.detach() * gradient).clamp_(min=0).mean(dim=1)  # -> (B, n, N)
        with no_autocast(images.device):
            looking = read_row(model, raising)[:, None, : raising.shape[1]]  # (B, N) -> (B, 1, n)
            row = (looking @ raising)[:, 0]  # (B, 1, N) -> (B, N)
    return to_maps(model, images, row)
