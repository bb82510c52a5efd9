"""Attention weighted by the length of what is moved: a large weight on a short vector moves little.

Kobayashi, Kuribayashi, Yokoi & Inui 2020, "Attention is Not Only a Weight" (arXiv:2004.10102). A
head adds to token i, from each token j, the vector α_ij f(x_j); its length is the map::

    f(x) = (x W_V + b_V) W_O        map_j = mean over heads of α_ij ‖f(x_j)‖

"outputs" is that, with each head's own rows of W_O. "values" stops before W_O, ‖x W_V + b_V‖.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from einops import rearrange
from torch import Tensor

from minivit.attention import attention_weights
from minivit.blocks import EncoderBlock
from minivit.explain.conditions import Target, fixed
from minivit.explain.methods.readout import block_inputs, block_number, looking_token, to_maps
from minivit.explain.states import is_plain_block
from minivit.precision import no_autocast, widen
from minivit.vit import VisionTransformer

Moved = Literal["outputs", "values"]


def value_norm(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    block: int = -1,
    head: int | None = None,
    patch: tuple[int, int] | None = None,
    of: Moved = "outputs",
) -> Tensor:
    """Attention weights times the length of the vectors that they move: arXiv:2004.10102.

    It says how much is moved from where, not in which direction: vectors of heads can cancel each
    other, and a class may not depend on them. LayerScale, alike for all tokens, is left out.

    Args:
        model: Vision Transformer; without a class token a `patch` has to be given.
        images: (B, C, height, width).
        target: Not looked at.
        block: Number of the block; negative ones count from the last.
        head: Number of the head alone; None: the mean over heads.
        patch: (row, col) of the patch that looks; None: the class token.
        of: "outputs": vectors through the output projection, as in the paper; "values": before it.

    Returns:
        (B, rows, cols), not negative, in units of the block's tokens.

    Raises:
        ValueError: No class token and no patch; no such patch or head; an unknown `of`; or a block
            with hooks, as of an intervention.
        IndexError: No such block.
    """
    if of not in get_args(Moved):
        raise ValueError(f"of is {of!r}: choose from {', '.join(get_args(Moved))}")
    number, token = block_number(model, block), looking_token(model, images, patch)
    module = cast(EncoderBlock, model.blocks[number])
    num_heads = module.attn.num_heads
    if head is not None and not 0 <= head < num_heads:
        raise ValueError(f"head {head}: choose from 0 to {num_heads - 1}")
    if not is_plain_block(module):
        raise ValueError(
            f"block {number} has hooks, as of an intervention, or layers of another kind, and its "
            "values cannot be read past them: leave the intervention first"
        )
    with fixed(model):
        tokens = block_inputs(model, images, count=number + 1)[-1]
        normed = module.before(module.norm1, tokens)
        query, key = module.attn.queries_and_keys(normed)
        weights = attention_weights(query[:, :, [token]], key)[:, :, 0]  # (B, H, N)
        projected = widen(module.attn.qkv(normed))  # (B, N, D) -> (B, N, 3·D)
        moved = rearrange(projected, "b n (parts h d) -> parts b h n d", parts=3, h=num_heads)[2]
        if of == "outputs":
            matrix = widen(module.attn.proj.weight)  # (D, H·d), acts on the right as its transpose
            matrices = rearrange(matrix, "out (h d) -> h d out", h=num_heads)
            with no_autocast(images.device):
                moved = moved @ matrices  # (B, H, N, d) -> (B, H, N, D)
        heads = weights * torch.linalg.vector_norm(moved, dim=-1)  # (B, H, N)
    row = heads.mean(dim=1) if head is None else heads[:, head]  # (B, H, N) -> (B, N)
    return to_maps(model, images, row)
