"""Interventions: what would the model say if a part of it were silent, or saw another picture?

Attention shows where values come from, not what depends on them. To learn that, a part of the
forward pass is replaced and the logits are looked at: zeroed or averaged (ablation, as Michel et
al. 2019, arXiv:1905.10650, do to heads), or taken from another picture (activation patching, Meng
et al. 2022, arXiv:2202.05262)::

    with intervene(model, heads={3: [0, 2]}, blocks=[1]):          # zeroed
        logits = model(images)

    with record(model, "heads") as recording:                      # a first pass
        model(others)
    with intervene(model, heads={3: [0]}, by=recording.mean()):    # their mean
        logits = model(images)

An answer holds for the replacement that was made: a zero is a number that the model may never have
seen, and what one part lost another may make up for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minivit.blocks import EncoderBlock
from minivit.explain.inside.parts import (
    Part,
    Recording,
    block_numbers,
    hooks_on,
    on_part,
    refuse_recomputing,
    whole_numbers,
)
from minivit.fields import is_number
from minivit.vit import VisionTransformer

Replacement = float | Literal["mean"] | Recording
Weights = Literal["uniform"] | Tensor
Given = TypeVar("Given")


@contextlib.contextmanager
def intervene(
    model: VisionTransformer,
    *,
    patches: Sequence[tuple[int, int]] = (),
    weights: Mapping[int, Weights] | None = None,
    heads: Mapping[int, Sequence[int]] | None = None,
    attention: Sequence[int] = (),
    mlps: Sequence[int] = (),
    blocks: Sequence[int] = (),
    outputs: Sequence[int] = (),
    tokens: Sequence[int] | None = None,
    by: Replacement = 0.0,
) -> Iterator[None]:
    """Replaces parts of every forward pass within; afterwards the model is what it was, bit by bit.

    The arguments stand in the order in which a picture meets the parts, which are described in
    `parts.py`; a part that is replaced sees what was replaced before it. Contexts
    may be nested: at one and the same part, the inner one acts on what the outer one has left.
    Gradients flow through what is left of the parts. Training mode, hooks of others and autograd's
    mode are left alone; gradient checkpointing is off within.

    Args:
        model: Vision Transformer, neither packed nor compiled.
        patches: (row, col) of patches, whose tokens are replaced before the first block.
        weights: Attention weights by number of the block: "uniform", or weights of another picture
            as the model returned them, (B or 1, H or 1, N, N), of which only constants are used.
            `tokens` and `by` do not concern them.
        heads: Numbers of heads by number of the block.
        attention: Numbers of blocks whose attention's output is replaced.
        mlps: Numbers of blocks whose MLP's output is replaced.
        blocks: Numbers of blocks of which that is replaced which they add to their tokens: with
            zero, the tokens pass by the block.
        outputs: Numbers of blocks whose tokens are replaced, the residual stream with all that was
            before.
        tokens: Numbers of the tokens at which parts are replaced; None: all. Patches have their
            own.
        by: A factor, 0 to silence; "mean": the part's mean over all tokens, of a patch that over
            all patches; or the same part of a `Recording`, of one picture or of as many as here.

    Raises:
        ValueError: Another kind of model; no such block, head, token or patch; weights whose rows
            do not sum to 1; or what does not fit the pictures, then from the model's call.
    """
    if not isinstance(by, Recording) and by != "mean" and not is_number(by):
        raise ValueError(f"by is {by!r}: expected a factor, 'mean' or a Recording")
    with hooks_on(model) as handles:
        if patches:
            handles += _replace_patches(model, patches, by)
        for block, given in _by_number(model, weights or {}):
            handles += _replace_weights(model, block, given)
        for block, wanted in _by_number(model, heads or {}):
            numbers = whole_numbers("head", wanted, model.config.num_heads)
            change = partial(_replace, by=by, key=("heads", block), tokens=tokens, heads=numbers)
            handles.append(on_part(model, "heads", block, change))
        rest: dict[Part, Sequence[int]] = {
            "attention": attention,
            "mlps": mlps,
            "blocks": blocks,
            "outputs": outputs,
        }
        for part, chosen in rest.items():
            for block in block_numbers(model, chosen):
                change = partial(_replace, by=by, key=(part, block), tokens=tokens)
                handles.append(on_part(model, part, block, change))
        yield


def _by_number(model: VisionTransformer, by_block: Mapping[int, Given]) -> list[tuple[int, Given]]:
    """The same by numbers that are counted from 0."""
    numbers = block_numbers(model, list(by_block))
    if len(numbers) < len(by_block):
        raise ValueError(f"blocks {', '.join(map(str, by_block))}: one of them is named twice")
    return list(zip(numbers, by_block.values(), strict=True))


def _replace(
    part: Tensor,
    *,
    by: Replacement,
    key: tuple[str, int],
    tokens: Sequence[int] | None,
    heads: Sequence[int] | None = None,
) -> Tensor:
    """A part (B, N, D), or (B, N, H, d), of which some tokens, or some heads, are replaced."""
    chosen = _chosen("token", tokens, part.shape[1], part)  # (N,)
    chosen = chosen.view(-1, *[1] * (part.dim() - 2))  # (N,) -> (N, 1) or (N, 1, 1)
    if heads is not None:
        chosen = chosen & _chosen("head", heads, part.shape[2], part)[:, None]  # (N, H, 1)
    if by == "mean":
        return torch.where(chosen, part.mean(dim=1, keepdim=True), part)
    return torch.where(chosen, _other(part, by, key), part)


def _other(part: Tensor, by: Replacement, key: tuple[str, int]) -> Tensor:
    """The part times a factor, or as it was recorded."""
    if not isinstance(by, Recording):
        return part * cast(float, by)
    recorded = by[key]
    if recorded.shape[1:] != part.shape[1:] or recorded.shape[0] not in (1, part.shape[0]):
        raise ValueError(
            f"{key[0]} of block {key[1]} were recorded as {tuple(recorded.shape)} and here they "
            f"are {tuple(part.shape)}: record pictures of the same size, one or as many as here"
        )
    return recorded.to(part)


def _chosen(what: str, numbers: Sequence[int] | None, count: int, like: Tensor) -> Tensor:
    """(count,) boolean, True at the numbers; None: everywhere."""
    chosen = torch.full((count,), numbers is None, device=like.device)
    if numbers is not None:
        chosen[whole_numbers(what, numbers, count)] = True
    return chosen


def _replace_patches(
    model: VisionTransformer, patches: Sequence[tuple[int, int]], by: Replacement
) -> list[RemovableHandle]:
    """The tokens of some patches before the first block."""
    grid = model.grid_size

    def see(module: nn.Module, arguments: Any) -> None:
        nonlocal grid
        grid = model.patch_embed.grid_for(*arguments[0].shape[-2:])

    def change(embedding: Tensor) -> Tensor:
        rows, cols = grid
        for row, col in patches:
            if not (0 <= row < rows and 0 <= col < cols):
                raise ValueError(
                    f"patch ({row}, {col}): the patches are a grid of {rows} rows x {cols} cols; "
                    f"choose from (0, 0) to ({rows - 1}, {cols - 1})"
                )
        first = model.num_prefix_tokens
        numbers = [first + row * cols + col for row, col in patches]
        chosen = _chosen("token", numbers, embedding.shape[1], embedding)  # (N,)
        if by == "mean":
            other = embedding[:, first:].mean(dim=1, keepdim=True)  # (B, N, D) -> (B, 1, D)
        else:
            other = _other(embedding, by, ("embedding", 0))
        return torch.where(chosen[:, None], other, embedding)

    return [
        model.patch_embed.register_forward_pre_hook(see),
        on_part(model, "embedding", 0, change),
    ]


def _replace_weights(
    model: VisionTransformer, number: int, weights: Weights
) -> list[RemovableHandle]:
    """Queries of zero and a mask of log W, since softmax(0 + log W) = W where rows sum to 1.

    So the fused kernel goes on computing the output, and the weights that are returned, all or some
    rows, are those that were used.
    """
    attn = cast(EncoderBlock, model.blocks[number]).attn
    mask = None if isinstance(weights, str) else _log(weights, number, attn.num_heads)
    if isinstance(weights, str) and weights != "uniform":
        raise ValueError(f"weights of block {number} are {weights!r}: give 'uniform' or a tensor")

    def silence_queries(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        refuse_recomputing()
        if mask is not None and output.dtype.itemsize < 4:
            raise ValueError(
                f"weights of block {number} would be rounded to {output.dtype}: use model.float() "
                "outside autocast, or 'uniform'"
            )
        dim = attn.proj.in_features
        return torch.cat([torch.zeros_like(output[..., :dim]), output[..., dim:]], dim=-1)

    def add_mask(module: nn.Module, arguments: Any, named: dict[str, Any]) -> Any:
        refuse_recomputing()
        batch, length, _ = arguments[0].shape
        if mask is not None and (mask.shape[0] not in (1, batch) or mask.shape[-1] != length):
            raise ValueError(
                f"weights of block {number} are {tuple(mask.shape)} for {batch} pictures of "
                f"{length} tokens: give those of pictures of the same size, one or as many as here"
            )
        return arguments, named | {"mask": None if mask is None else mask.to(arguments[0].device)}

    return [
        attn.register_forward_pre_hook(add_mask, with_kwargs=True),
        attn.qkv.register_forward_hook(silence_queries),
    ]


def _log(weights: Tensor, block: int, num_heads: int) -> Tensor:
    """Logarithm of weights that are fit to be some."""
    shape = tuple(weights.shape)
    if len(shape) != 4 or shape[1] not in (1, num_heads) or shape[2] != shape[3]:
        raise ValueError(
            f"weights of block {block} are {shape}: expected (B or 1, {num_heads} or 1, N, N)"
        )
    weights = weights.detach()
    sums = weights.sum(dim=-1)
    if not (bool((weights >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)):
        raise ValueError(
            f"weights of block {block}: expected none below 0 and rows that sum to 1, found sums "
            f"from {float(sums.min()):.3g} to {float(sums.max()):.3g}: divide the rows by their sum"
        )
    return weights.log()
