"""Checks of lesson 6: reading attention maps."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor

import minivit
from minivit import VisionTransformer
from minivit.data.scenes.dataset import make_scene
from minivit.explain import query_attention
from minivit.explain.pointing import covered
from minivit.viz.panels import cell_box
from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_shape,
)

__all__ = [
    "check_cell_box",
    "check_choose_head",
    "check_relevance_step",
    "check_rollout",
    "check_token_map",
]


# ---- 6.1 -----------------------------------------------------------------------------------------


@exercise("6.1", "Make a map of a row")
def check_token_map(answer: Callable[[Tensor, int, tuple[int, int]], Tensor]) -> None:
    grid, letters = (4, 7), "(B, H, rows, cols)"
    for num_prefix in (1, 3):
        row = _random(2, 3, num_prefix + 28).softmax(dim=-1)
        try:
            value = ask(answer, row, num_prefix, grid)
            expect_shape(value, (2, 3, *grid), letters)
        except NotSolved as wrong:
            if num_prefix == 1:
                _name_what_works(wrong, answer, row, num_prefix)
                raise
            raise NotSolved(
                f"one prefix token works, three do not ({wrong}): a class token and two registers "
                "stand before the patches, so cut off `num_prefix` tokens and not one"
            ) from None
        right = rearrange(row[..., num_prefix:], "b h (rows cols) -> b h rows cols", rows=4)
        transposed = row[..., num_prefix:].reshape(2, 3, 7, 4).transpose(-2, -1)
        mistakes = {
            "the prefix is still there: it stands before the patches, not behind; the first cell "
            "shows what goes to the class token, and every patch lies late": row[..., :28].reshape(
                2, 3, *grid
            ),
            "rows and columns are mixed up: patches are counted along a row of the grid first, "
            "then down": transposed,
            "the map was divided by its sum: a weight stays what softmax gave, or "
            "maps of two heads cannot be compared": right / right.sum(dim=(-2, -1), keepdim=True),
            "a second softmax ran over weights": right.flatten(2).softmax(-1).view_as(right),
        }
        if num_prefix == 3:
            only_one = row[..., 1:29].reshape(2, 3, *grid)
            mistakes["only the class token was cut off: the registers lie on the map"] = only_one
        mistakes |= {
            "the map was divided by its maximum: a weight stays what softmax gave": right
            / right.amax(dim=(-2, -1), keepdim=True)
        }
        expect_close(value, right, mistakes, "the numbers are not those of the row's patches")


def _name_what_works(
    wrong: NotSolved, answer: Callable[..., Tensor], row: Tensor, num_prefix: int
) -> None:
    """What failed on 4 x 7 patches behind a prefix may work without the prefix, or on a square."""
    patches = row[..., num_prefix:]
    prefix_is_left = (
        "the prefix is still there: `num_prefix` numbers stand before those of the patches, and "
        "have to be cut off before the rest is a grid"
    )
    root_is_taken = (
        "a square grid works, and 4 x 7 does not: take rows and cols from `grid`, and not from "
        "the root of their number"
    )
    square = row[..., : num_prefix + 16]
    for message, given, prefix, grid in (
        (prefix_is_left, patches, 0, (4, 7)),
        (root_is_taken, square, num_prefix, (4, 4)),
        (f"{prefix_is_left}; and {root_is_taken}", patches[..., :16], 0, (4, 4)),
    ):
        try:
            expect_shape(ask(answer, given, prefix, grid), (2, 3, *grid), "")
        except NotSolved:
            continue
        raise NotSolved(f"{message} ({wrong})") from None


# ---- 6.2 -----------------------------------------------------------------------------------------


Box = tuple[float, float, float, float]


@exercise("6.2", "Find the pixels of a cell")
def check_cell_box(answer: Callable[[Box, tuple[int, int], tuple[int, int]], Box]) -> None:
    box, grid, cell = (75.0, 20.0, 525.0, 380.0), (12, 18), (3, 10)
    whole: Box = (0.0, 0.0, 630.0, 400.0)  # cells are not square
    for seen in (whole, box):
        value = ask(answer, seen, grid, cell)
        try:
            corners = torch.as_tensor([float(edge) for edge in value], dtype=torch.float64)
        except (TypeError, ValueError):
            raise NotSolved("four numbers are expected: (left, top, right, bottom)") from None
        if len(corners) != 4:
            raise NotSolved(f"{len(corners)} numbers, and (left, top, right, bottom) are four")
        left, top, right, bottom = seen
        wide, high = (right - left) / grid[1], (bottom - top) / grid[0]
        correct = torch.tensor(cell_box(seen, grid, cell), dtype=torch.float64)
        row, col = cell
        half = torch.tensor([wide, high, wide, high], dtype=torch.float64) / 2
        cut_wide, cut_high = wide // 1, high // 1
        mistakes = {
            "x and y are swapped: a row of the grid says how far down, and a column how far to the "
            "right": _box(left + row * wide, top + col * high, wide, high),
            "the order is (left, top, right, bottom): x stands before y": correct[[1, 0, 3, 2]],
            "these are left, top, width and height; right and bottom are edges, too": torch.tensor(
                [correct[0], correct[1], wide, high], dtype=torch.float64
            ),
            "the box is half a cell too far up and left: `left + col · width` is the cell's edge, "
            "not its middle": correct - half,
            "the cell's number counts from 0: this is the cell before it": correct - 2 * half,
            "the cell's number counts from 0: this is the cell after it": correct + 2 * half,
            "the crop was forgotten: a cell is counted from the corner of what the model saw, and "
            "that lies at (left, top) of the photo": _box(col * wide, row * high, wide, high),
            "cells have the size of the whole photo's: divide the width and the height of the box, "
            "right - left and bottom - top": _box(
                left + col * right / grid[1],
                top + row * bottom / grid[0],
                right / grid[1],
                bottom / grid[0],
            ),
            "width was divided by the rows and height by the columns: a row of the grid has `cols` "
            "cells": _box(
                left + col * (right - left) / grid[0],
                top + row * (bottom - top) / grid[1],
                (right - left) / grid[0],
                (bottom - top) / grid[1],
            ),
            "the cell's size was cut to whole pixels, `//`: divide with `/`, edges need not be "
            "whole numbers": _box(left + col * cut_wide, top + row * cut_high, cut_wide, cut_high),
            "the edges were rounded or cut to whole numbers, and they need not be whole": (
                correct.round() if torch.allclose(corners, correct.round()) else correct.floor()
            ),
            "right and bottom are edges, not the last pixels before them: leave - 1 out": correct
            - torch.tensor([0.0, 0.0, 1.0, 1.0]),
            "the order is (left, top, right, bottom), and this is (left, right, top, bottom)": (
                correct[[0, 2, 1, 3]]
            ),
        }
        expect_close(
            corners,
            correct,
            mistakes,
            f"these are not the edges of cell {cell} in {seen}: expected {_numbers(correct)}, got "
            f"{_numbers(corners)}; edges need not be whole numbers",
        )


def _numbers(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"


def _box(left: float, top: float, width: float, height: float) -> Tensor:
    return torch.tensor([left, top, left + width, top + height], dtype=torch.float64)


# ---- 6.4 -----------------------------------------------------------------------------------------


@exercise("6.4", "Follow attention through all blocks")
def check_rollout(answer: Callable[[Sequence[Tensor]], Tensor]) -> None:
    attentions = [(3 * _random(2, 3, 7, 7, seed=s)).softmax(dim=-1) for s in range(3)]
    copies = [attention.clone() for attention in attentions]
    value = ask(answer, attentions)
    if any(not torch.equal(a, b) for a, b in zip(attentions, copies, strict=True)):
        raise NotSolved(
            "the attention that you were given has other numbers afterwards: an operation in place "
            "(`fill_diagonal_`, `+=`, `x[...] =`) changed it; make new tensors"
        )
    expect_shape(value, (2, 7, 7), "(B, N, N)")
    identity = torch.eye(7)
    means = [attention.mean(dim=1) for attention in attentions]

    def product(factors: Sequence[Tensor]) -> Tensor:
        flow = factors[0]
        for factor in factors[1:]:
            flow = factor @ flow
        return flow

    half = [(mean + identity) / 2 for mean in means]
    strongest = [(a.amax(dim=1) + identity) / 2 for a in attentions]
    columns = [m + identity for m in means]
    mistakes = {
        "the blocks are multiplied in the wrong order: R = Ã(L) … Ã(1), so each new block stands "
        "to the left of what is there": product(half[::-1]),
        "the residual is missing: without + I a token has no way around a block": product(means),
        "rows sum to 8 after three blocks, not to 1: (Ā + I) was not halved": product(columns),
        "the last block is missing": product(half[:-1]),
        "the first block is missing": product(half[1:]),
        "I was added to the product; it belongs to every block, before the product": (
            product(means) + identity
        )
        / 2,
        "the strongest head was taken; here the mean over heads is asked for": product(strongest),
        "the strongest head was taken, and rows divided by their sum; here the mean over heads is "
        "asked for": product([s / s.sum(dim=-1, keepdim=True) for s in strongest]),
        "this is the first head alone: take the mean over dimension 1": product(
            [(a[:, 0] + identity) / 2 for a in attentions]
        ),
        "columns were divided by their sums, and rows have to sum to 1: sum over dim=-1, with "
        "keepdim=True": product([c / c.sum(dim=-2, keepdim=True) for c in columns]),
        "the entries were multiplied one by one; blocks follow each other by a matrix product, @": (
            half[2] * half[1] * half[0]
        ),
        "the blocks are summed or averaged; they follow each other, which is a product": sum(half)
        / 3,
    }
    expect_close(value, product(half), mistakes, _of_rows(value))


def _of_rows(value: Tensor) -> str:
    sums = value.detach().sum(dim=-1)
    if torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        return "rows sum to 1, and the numbers differ: are all blocks there, each once, in order?"
    low, high = f"{float(sums.min()):.2g}", f"{float(sums.max()):.2g}"
    return f"rows sum to {low if low == high else f'{low} … {high}'}, and 1 is expected"


# ---- 6.5 -----------------------------------------------------------------------------------------


@exercise("6.5", "Take relevance through one block")
def check_relevance_step(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    relevance = torch.eye(7) + 0.3 * _random(2, 7, 7, seed=1).abs()
    attention = _random(2, 3, 7, 7, seed=2).softmax(dim=-1)
    gradient = _random(2, 3, 7, 7, seed=3)
    value = ask(answer, relevance, attention, gradient)
    expect_shape(value, (2, 7, 7), "(B, N, N)")
    products = attention * gradient
    carried = products.clamp(min=0).mean(dim=1)

    def add(mean: Tensor) -> Tensor:
        return relevance + mean @ relevance

    mistakes = {
        "R itself is missing: the way around the block keeps it, so R + Ā R": carried @ relevance,
        "the product is the wrong way round: Ā stands to the left of R, since the block comes "
        "after what R holds": relevance + relevance @ carried,
        "what speaks against the class was kept: clamp A ⊙ ∂y/∂A at 0, head by head": add(
            products.mean(dim=1)
        ),
        "the mean came before the clamp: what one head has against the class cancelled what "
        "another has for it": add(products.mean(dim=1).clamp(min=0)),
        "the heads were averaged before the product: the mean of products is not the product of "
        "means": add((attention.mean(dim=1) * gradient.mean(dim=1)).clamp(min=0)),
        "the heads were summed; Ā is their mean": add(products.clamp(min=0).sum(dim=1)),
        "the gradient is missing: this is attention, the same for every class": add(
            attention.mean(dim=1)
        ),
        "the attention is missing: this is the gradient alone": add(
            gradient.clamp(min=0).mean(dim=1)
        ),
        "the size was taken, `abs`, and not the positive part: what speaks against the class "
        "counts for it": add(products.abs().mean(dim=1)),
        "rows were brought to the sum 1: that makes rollout of it, and what the gradient said of "
        "their size is lost": add(carried / carried.sum(dim=-1, keepdim=True)),
        "the entries were multiplied one by one; Ā R is a matrix product, @": relevance
        + carried * relevance,
        "this is Ā alone: it has to be multiplied with R and added to it": carried,
        "`@ R` is missing: Ā has to be multiplied with R before it is added to R": relevance
        + carried,
        "A and ∂y/∂A were multiplied as matrices, `@`; ⊙ is the product entry by entry, `*`": (
            add((attention @ gradient).clamp(min=0).mean(dim=1))
        ),
        "the strongest head was taken; Ā is the mean over heads": add(
            products.clamp(min=0).amax(dim=1)
        ),
        "the negative part was taken: keep what raises the logit, `.clamp(min=0)`": add(
            products.clamp(max=0).mean(dim=1)
        ),
        "the negative part was taken, as positive numbers: keep what raises the logit": add(
            -products.clamp(max=0).mean(dim=1)
        ),
        "I stands in the place of R: R is what the blocks before have given": torch.eye(7)
        + carried @ relevance,
        "I + Ā came back, and R is in neither: it is R + Ā R": torch.eye(7) + carried,
        "the sum was halved, as rollout does; relevance is not normalised": add(carried) / 2,
    }
    expect_close(value, add(carried), mistakes, "the numbers differ from R + mean((A ⊙ ∂y/∂A)⁺) R")


# ---- 6.3 -----------------------------------------------------------------------------------------


@exercise("6.3", "Choose a head on some scenes, and see it work on others")
def check_choose_head(answer: Callable[[VisionTransformer, Tensor, Tensor], Any]) -> None:
    model, images, cells, masses = _scenes()
    chosen = _chosen(answer, model, images, cells, masses)
    if chosen is not None:
        raise NotSolved(chosen)
    other, masses = _with_a_head_that_looks_at_the_class_token()
    chosen = _chosen(answer, other, images, cells, masses)
    if chosen is not None:
        raise NotSolved(
            "the head of this model is right. In a second model the class token gives a third of "
            "that head's row to itself, which is on no map, and another head was chosen: was what "
            f"lies on the object divided by the map's own sum? There, {chosen}"
        )


def _chosen(
    answer: Callable[..., Any],
    model: VisionTransformer,
    images: Tensor,
    cells: Tensor,
    masses: Tensor,
) -> str | None:
    """What is wrong with the head that is chosen, or None; `masses` are (blocks, H)."""
    value = ask(answer, model, images, cells)
    number = isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
    if number:
        raise NotSolved(
            f"one number comes back, {float(value):g}, and a pair (block, head) is expected: a "
            "flat number of a head is taken apart by divmod(number, number of heads)"
        )
    try:
        block, head = (int(part) for part in value)
    except (TypeError, ValueError):
        raise NotSolved("a pair of whole numbers is expected: (block, head)") from None
    blocks, heads = masses.shape
    best_block, best_head = divmod(int(masses.argmax()), heads)
    if not (0 <= block < blocks and 0 <= head < heads):
        raise NotSolved(
            f"({block}, {head}): there are {blocks} blocks and {heads} heads, both counted from 0"
        )
    mass, best = float(masses[block, head]), float(masses.max())
    if mass >= best - 0.01:
        return None
    shown = f"on other scenes block {block}, head {head} has {mass:.0%} of its map on the object"
    if (head, block) == (best_block, best_head):
        return f"{shown}: the two numbers are swapped, (block, head) is expected"
    if masses[block, head] == masses.min():
        return f"{shown}, the least of all: the smallest was taken, not the largest"
    if block == blocks - 1 and masses[block, head] == masses[block].max():
        return (
            f"{shown}: the best one of the last block, and a head of another block has {best:.0%}; "
            "ask for all blocks, return_attention=True"
        )
    return (
        f"{shown}, another one {best:.0%}: compare the part of each map's own sum that lies on the "
        "object, mean over pictures"
    )


@functools.lru_cache(maxsize=1)
def _scenes() -> tuple[VisionTransformer, Tensor, Tensor, Tensor]:
    """The shipped model, 16 scenes with the cells of their objects, and masses on 16 others."""
    model, images, cells = _all_scenes()
    return model, images[:16], cells[:16], _masses(model, images[16:], cells[16:])


@functools.lru_cache(maxsize=1)
def _with_a_head_that_looks_at_the_class_token() -> tuple[VisionTransformer, Tensor]:
    """The shipped model with another key of its best head, and masses on the 16 other scenes.

    The head's key of the class token gets a part along the class token's mean query. The direction
    u of the tokens that carries it tells the class token from the patches (Fisher's discriminant),
    so that the patches' weights stay alike and only their sum falls.
    """
    shipped, images, cells = _all_scenes()
    block, head = divmod(int(_scenes()[3].argmax()), shipped.config.num_heads)
    model = copy.deepcopy(shipped)
    layer, dim = model.blocks[block], model.config.dim
    width = dim // model.config.num_heads
    with torch.no_grad():
        tokens = model.embed(images)
        for before in model.blocks[:block]:
            tokens, _ = before(tokens)
        tokens = layer.norm1(tokens)  # (B, N, D)
        patches = tokens[:, 1:].flatten(0, 1)  # (B, N, D) -> (B·M, D)
        apart = tokens[:, 0].mean(dim=0) - patches.mean(dim=0)
        u = torch.linalg.solve(patches.T.cov() + 1e-3 * torch.eye(dim), apart)
        u /= u @ apart
        query, key = (slice(n * dim + head * width, n * dim + (head + 1) * width) for n in (0, 1))
        qkv = layer.attn.qkv
        mean = (tokens[:, 0] @ qkv.weight[query].T + qkv.bias[query]).mean(dim=0)  # (d,)
        qkv.weight[key] += _SHIFT * width**0.5 * torch.outer(mean / mean.square().sum(), u)
    return model, _masses(model, images[16:], cells[16:])


_SHIFT = 5.0  # of the score of the class token with itself


def _masses(model: VisionTransformer, images: Tensor, cells: Tensor) -> Tensor:
    """(blocks, H): part of each head's map on the objects, mean over images."""
    with torch.no_grad():
        _, attentions = model(images, return_attention=True)
    masses = []
    for block in range(len(attentions)):
        maps = query_attention(attentions, token=0, block=block)  # (B, H, rows, cols)
        on_object = (maps * cells[:, None]).sum(dim=(-2, -1))  # (B, H)
        masses.append((on_object / maps.sum(dim=(-2, -1))).mean(dim=0))
    return torch.stack(masses)


@functools.lru_cache(maxsize=1)
def _all_scenes() -> tuple[VisionTransformer, Tensor, Tensor]:
    """The shipped model, 32 scenes, and what part of each cell is their main object."""
    model = cast(VisionTransformer, minivit.load_model("scenes"))
    height, width = model.config.image_size
    scenes = [make_scene(606, i, image_size=(height, width)) for i in range(32)]
    images = torch.stack([model.preprocess(scene.image) for scene in scenes])
    masks = torch.stack([torch.from_numpy(scene.objects[0].mask) for scene in scenes])
    cells = covered(masks, model.grid_size)  # (B, rows, cols)
    return model, images, cells


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
