"""Attention rollout of one token: the same numbers as a row of `rollout`, without its matrices.

A row of R = Ã(L) … Ã(1) is a row vector that goes through the blocks from the last to the first::

    r(L+1) = one-hot of the token        r(l) = r(l+1) Ã(l)        R[token] = r(1)

so no product of two N × N matrices is made, and nothing of a block is needed but its weights::

    r(l) = residual · r(l+1) + (1 - residual) / H · Σ_h r(l+1) A_h(l)

The forward pass must be over before the row begins, and what it leaves behind is a matter of
memory and time. The first H/2 blocks leave Ã, N × N numbers each, all together half of one block's
weights; they are run off the fused kernel, which costs next to nothing. The others leave their
inputs, from which their weights come again, one head after the other in one piece of memory. The
last block is not run, since of it one row of weights is wanted and no output.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from minivit.attention import attention_weights
from minivit.blocks import EncoderBlock
from minivit.cpu import write_weights
from minivit.explain.conditions import Target, fixed
from minivit.explain.free_memory import require_room
from minivit.explain.methods.readout import looking_token, to_maps
from minivit.explain.rollout import Fusion, check_mix, mix
from minivit.explain.states import is_plain_block
from minivit.precision import no_autocast, widen
from minivit.vit import VisionTransformer


def rolled_row(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    patch: tuple[int, int] | None = None,
    fusion: Fusion = "mean",
    residual: float = 0.5,
    discard: float = 0.0,
) -> Tensor:
    """Attention rollout, the row of one token: arXiv:2005.00928, equation 1.

    It says through which tokens attention could have carried something to the token, if values and
    MLPs did not matter; it is the same for every class, and on deep models nearly even.

    Args:
        model: Vision Transformer; without a class token a `patch` has to be given.
        images: (B, C, height, width).
        target: Not looked at.
        patch: (row, col) of the patch whose row it is; None: the class token.
        fusion: As in `rollout`.
        residual: As in `rollout`.
        discard: As in `rollout`; with it, or with another fusion than the mean, weights come again
            a block at a time instead of a head.

    Returns:
        (B, rows, cols) shares, which sum to 1 minus those of the prefix tokens.

    Raises:
        ValueError: No class token and no patch; no such patch; or what `rollout` refuses.
    """
    check_mix(residual, discard)
    token = looking_token(model, images, patch)
    require_room(model, images, copies=1.5, what="rollout")
    with fixed(model):
        maps: list[Tensor] = []
        inputs: list[Tensor] = []
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        for number, block in enumerate(model.blocks[:-1]):
            by_map = number < model.config.num_heads // 2
            if not by_map:
                inputs.append(tokens)
            tokens, weights = block(tokens, need_weights=by_map)
            if by_map:
                maps.append(mix(weights, fusion=fusion, residual=residual, discard=discard))
            del weights
        inputs.append(tokens)

        row = tokens.new_zeros(tokens.shape[:2], dtype=widen(tokens).dtype)  # (B, N)
        row[:, token] = 1
        for module in reversed(model.blocks[len(maps) :]):
            block = cast(EncoderBlock, module)
            if not is_plain_block(block):  # an intervention, say: the block knows what it looks at
                _, weights = block(inputs.pop(), need_weights=True)
                with no_autocast(row.device):
                    mixed = mix(weights, fusion=fusion, residual=residual, discard=discard)
                    row = (row[:, None] @ mixed)[:, 0]  # (B, N) -> (B, 1, N) -> (B, N)
                continue
            query, key = block.attn.queries_and_keys(block.before(block.norm1, inputs.pop()))
            with no_autocast(row.device):
                row = _through(row, query, key, fusion=fusion, residual=residual, discard=discard)
        with no_autocast(row.device):
            while maps:
                row = (row[:, None] @ maps.pop())[:, 0]  # (B, N) -> (B, 1, N) -> (B, N)
    return to_maps(model, images, row)


def _through(
    row: Tensor, query: Tensor, key: Tensor, *, fusion: Fusion, residual: float, discard: float
) -> Tensor:
    """r Ã for a row (B, N) and a block's queries and keys (B, H, N, d)."""
    if discard or fusion != "mean":
        weights = attention_weights(query, key)  # (B, H, N, N)
        mixed = mix(weights, fusion=fusion, residual=residual, discard=discard)
        return (row[:, None] @ mixed)[:, 0]  # (B, N) -> (B, 1, N) -> (B, N)
    carried = torch.zeros_like(row)
    asked = row.any(dim=0).nonzero()[:, 0]  # at the last block it is one token, then all
    memory = row.new_empty(len(row), len(asked), row.shape[1])  # (B, r, N)
    for q, k in zip(query[:, :, asked].unbind(1), key.unbind(1), strict=True):  # a head each
        weights = write_weights(memory, q, k, None)
        carried += (row[:, None, asked] @ weights)[:, 0]  # (B, r) -> (B, 1, r) -> (B, N)
    return residual * row + (1 - residual) / query.shape[1] * carried
