"""LeGrad: how much more of each token attention would have to take to raise the class's score.

Bousselham et al. 2024 (arXiv:2404.03214). The head reads the tokens z(l) of every block as if it
were the last, and each score is derived by the weights A(l) of its own block alone, which takes no
backward pass through other blocks::

    s(l) = head(pool(norm(z(l))))[class]
    E(l) = 1/(H N) · Σ_h Σ_i (∂s(l)/∂A(l)_hi)⁺          map = mean over blocks of E(l)

i goes over all tokens that look, prefix tokens too. The weights themselves are not multiplied in.
Different from the paper: the map is not brought to 0 … 1, which would make every picture's map
equally strong; its published code reads the mean of all tokens where this reads what the model's
head reads. A head that reads class tokens of several blocks is given that of this block for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers, fixed
from minivit.explain.free_memory import require_room
from minivit.explain.methods.readout import block_inputs, block_number, class_score, to_maps
from minivit.explain.states import classify_outputs
from minivit.vit import VisionTransformer


def legrad(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    blocks: Sequence[int] | None = None,
) -> Tensor:
    """Gradient of the score at each block by its own attention weights: arXiv:2404.03214.

    It says where more attention would raise the score, also where there is hardly any. Heads read
    tokens of early blocks as noise, and what values were made of is not followed back.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: The class to explain; None: the one predicted after the last block.
        blocks: Numbers of the blocks, negative ones from the last; None: all.

    Returns:
        (B, rows, cols), not negative, in units of the logit a weight.

    Raises:
        ValueError: The model has no head; no such class; no blocks; or called under
            `torch.inference_mode`.
        IndexError: No such block.
    """
    depth = len(model.blocks)
    chosen = {block_number(model, block) for block in (range(depth) if blocks is None else blocks)}
    if not chosen:
        raise ValueError("blocks is empty: give at least one, or None for all")
    require_room(model, images, copies=4, what="the attention of a block and its gradient")
    with fixed(model, gradients=True):
        states = block_inputs(model, images, count=depth + 1)
        with torch.no_grad():
            read = states[-model.config.head_blocks :]
            numbers = class_numbers(model, target, classify_outputs(model, read))
        total = states[0].new_zeros(())
        for number in sorted(chosen):
            tokens = states[number].requires_grad_()
            output, attention = model.blocks[number](tokens, need_weights=True)
            logits = classify_outputs(model, [output] * model.config.head_blocks)
            score = class_score(model, numbers, logits)
            (gradient,) = torch.autograd.grad(score, attention)
            total = total + gradient.clamp_min(0).mean(dim=(1, 2))  # (B, H, N, N) -> (B, N)
    return to_maps(model, images, total / len(chosen))
