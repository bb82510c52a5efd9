"""Exact accounting: how much of a logit came from which part of the model.

The residual stream is a sum: the embedding, and what every head, every attention's bias and every
MLP has added (`parts.py`). All that stands between it and a logit is a norm and the head. With the
standard deviation σ that the norm has found, taken as it is, the norm is linear too (Elhage et al.
2021, "A Mathematical Framework for Transformer Circuits")::

    logit_c = w_c · (γ (x - mean x) / σ + β) + b_c = g · x + (w_c · β + b_c)
    g = (γ w_c - mean(γ w_c)) / σ

and every part p of x = Σ p has a share of its own, g · p. Where the head sees several tokens, or
tokens of several blocks, there is a g for each.

A share says what a part wrote into the logit itself, not what later parts made of it: for that, see
`intervene.py`. And a share that is the same for every class changes no probability.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from minivit.blocks import EncoderBlock
from minivit.explain.conditions import Target, class_numbers, fixed
from minivit.explain.inside.parts import block_numbers, record
from minivit.precision import no_autocast, widen
from minivit.vit import VisionTransformer


class Contributions(NamedTuple):
    """Shares of a class's logit; all of them add up to it.

    Attributes:
        embedding: (B,) of the tokens before the first block.
        heads: (B, L, H) of each head, through the output projection and LayerScale.
        attention_biases: (B, L) of the bias of each output projection.
        mlps: (B, L) of each MLP.
        bias: (B,) of the last norm's bias and the head's, the same for every picture.
        logit: (B,) that the model gave.
    """

    embedding: Tensor
    heads: Tensor
    attention_biases: Tensor
    mlps: Tensor
    bias: Tensor
    logit: Tensor

    @property
    def error(self) -> Tensor:
        """(B,) sum of all shares minus the logit: rounding, 1e-4 at most in float32."""
        blocks = self.heads.sum(dim=(1, 2)) + self.attention_biases.sum(1) + self.mlps.sum(1)
        return self.embedding + blocks + self.bias - self.logit


class AttentionParts(NamedTuple):
    """The output of a block's attention, before LayerScale, as a sum.

    Attributes:
        heads: (B, H, N, D), what each head writes: o_h times its rows of W_O.
        bias: (D,) of the output projection.
    """

    heads: Tensor
    bias: Tensor


def contributions(model: VisionTransformer, images: Tensor, target: Target = None) -> Contributions:
    """The shares of a class's logit that each part of the model wrote.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: The class; None: the predicted one.

    Raises:
        ValueError: No head, no such class; or a tanh layer before the head, through which no sum
            passes.
    """
    if model.config.representation_dim:
        raise ValueError(
            "contributions do not add up through the tanh layer before this head "
            f"(representation_dim is {model.config.representation_dim})"
        )
    with fixed(model), record(model, "embedding", "heads", "mlps", "outputs") as recording:
        logits = model(images)
    numbers = class_numbers(model, target, logits)
    depth = len(model.blocks)
    with torch.no_grad(), no_autocast(images.device):
        along = torch.zeros_like(widen(recording["outputs", depth - 1]))
        directions = [along] * depth  # g by the block that is read, (B, N, D)
        constant = _head_bias(model, numbers)
        for reading in _readings(model, numbers, along):
            direction, bias = _fold_norm(reading, widen(recording["outputs", reading.block]))
            directions[reading.block] = directions[reading.block] + direction
            constant = constant + bias
        heads, biases, mlps = [], [], []
        for number in reversed(range(depth)):
            block = cast(EncoderBlock, model.blocks[number])
            along = along + directions[number]  # what a block adds is read after all later ones too
            mlps.append(_dot(block.ls2(along), recording["mlps", number]))
            # LayerScale is diagonal, its own transpose; W_O is taken to the side of g, so that no
            # head has to be written out in D channels.
            attended = block.ls1(along)
            biases.append(_dot(attended, block.attn.proj.bias))
            attended = attended @ widen(block.attn.proj.weight)
            outputs = widen(recording["heads", number])  # (B, N, H, d)
            by_head = attended.view_as(outputs) * outputs  # (B, N, D) -> (B, N, H, d)
            heads.append(by_head.sum(dim=(1, 3)))  # (B, N, H, d) -> (B, H)
        embedding = _dot(along, recording["embedding", 0])
    return Contributions(
        embedding,
        torch.stack(heads[::-1], dim=1),  # L of (B, H) -> (B, L, H)
        torch.stack(biases[::-1], dim=1),
        torch.stack(mlps[::-1], dim=1),
        constant,
        logits.gather(1, numbers[:, None])[:, 0],  # (B, classes) -> (B,)
    )


def attention_parts(model: VisionTransformer, images: Tensor, block: int = -1) -> AttentionParts:
    """What each head of a block writes into the residual stream, before LayerScale.

    Args:
        model: Vision Transformer.
        images: (B, C, height, width).
        block: Number of the block; negative ones count from the last.

    Raises:
        ValueError: No such block.
    """
    (number,) = block_numbers(model, [block])
    with fixed(model), record(model, "heads", blocks=[number]) as recording:
        model.encode(images)
    proj = cast(EncoderBlock, model.blocks[number]).attn.proj
    outputs = recording["heads", number]  # (B, N, H, d)
    with torch.no_grad():
        matrices = proj.weight.view(-1, *outputs.shape[2:])  # (D, D) -> (D, H, d)
        heads = torch.einsum("bnhd,ehd->bhne", outputs, matrices)  # e: channel of the output
    return AttentionParts(heads, proj.bias.detach())


# ---- readings: how the head looks at the residual stream -----------------------------------------


class _Reading(NamedTuple):
    """A linear look at the tokens after a block, through a norm.

    Attributes:
        block: Number of the block.
        share: (N,) weight of each token, 1 in all.
        weight: (B, D) row of the head, for the class of each picture.
        norm: LayerNorm or Identity.
        pooled: Whether the norm comes after the tokens are pooled.
    """

    block: int
    share: Tensor
    weight: Tensor
    norm: nn.Module
    pooled: bool


def _readings(model: VisionTransformer, numbers: Tensor, tokens: Tensor) -> list[_Reading]:
    """All that the head sees, as `VisionTransformer.classify` pools it."""
    config, last = model.config, len(model.blocks) - 1
    norm = model.fc_norm if config.fc_norm else model.norm
    one_hot = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    patches = one_hot[model.num_prefix_tokens :].mean(0)
    weight = widen(cast(nn.Linear, model.head).weight)[numbers]  # (classes, D) -> (B, D)
    if config.pooling == "cls_and_mean":
        *class_rows, mean_row = torch.split(
            weight, config.dim, dim=1
        )  # (B, pooled_dim) -> n of (B, D)
        first = last + 1 - len(class_rows)
        readings = [
            _Reading(first + index, one_hot[0], row, norm, False)
            for index, row in enumerate(class_rows)
        ]
        return [*readings, _Reading(last, patches, mean_row, norm, False)]
    share = one_hot[0] if config.pooling == "cls" else patches
    if model.head_dist is None:
        return [_Reading(last, share, weight, norm, config.fc_norm)]
    distilled = widen(cast(nn.Linear, model.head_dist).weight)[numbers]
    return [
        _Reading(last, share, weight / 2, norm, config.fc_norm),
        _Reading(last, one_hot[1], distilled / 2, model.norm, False),
    ]


def _fold_norm(reading: _Reading, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The g (B, N, D) of a reading, and its constant (B,)."""
    share, weight, norm = reading.share[:, None], reading.weight, reading.norm
    if not isinstance(norm, nn.LayerNorm):
        return share * weight[:, None], torch.zeros_like(weight[:, 0])
    if reading.pooled:
        tokens = (share * tokens).sum(dim=1, keepdim=True)  # (B, N, D) -> (B, 1, D)
    variance = tokens.var(dim=-1, correction=0, keepdim=True)  # (B, N or 1, 1)
    scaled = weight * widen(norm.weight)
    centred = (scaled - scaled.mean(dim=-1, keepdim=True))[:, None]  # (B, 1, D)
    return share * centred / (variance + norm.eps).sqrt(), weight @ widen(norm.bias)


def _head_bias(model: VisionTransformer, numbers: Tensor) -> Tensor:
    """(B,) bias of the head, or of both heads together."""
    heads = [model.head] if model.head_dist is None else [model.head, model.head_dist]
    total = torch.zeros(numbers.shape, device=numbers.device)
    for head in heads:
        if cast(nn.Linear, head).bias is not None:
            total = total + widen(cast(nn.Linear, head).bias)[numbers] / len(heads)
    return total


def _dot(direction: Tensor, part: Tensor) -> Tensor:
    """(B,) sum of the products over all tokens and channels."""
    return (direction * widen(part)).sum(dim=(1, 2))
