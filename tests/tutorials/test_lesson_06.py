"""The checks of lesson 6 tell wrong answers apart, and what the lesson claims holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor

import minivit
from minivit import VisionTransformer
from minivit.explain import query_attention, rollout
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_cell_box,
    check_choose_head,
    check_relevance_step,
    check_rollout,
    check_token_map,
)

Grid = tuple[int, int]


def test_a_map_of_a_row() -> None:
    right = solution("06", "6.1")["token_map"]

    def other(row: Tensor, num_prefix: int, grid: Grid) -> Tensor:
        return row[:, :, num_prefix:].unflatten(-1, grid)

    def cut(start: int) -> Callable[[Tensor, int, Grid], Tensor]:
        def answer(row: Tensor, num_prefix: int, grid: Grid) -> Tensor:
            return row[..., start : start + grid[0] * grid[1]].unflatten(-1, grid)

        return answer

    def root_taken(row: Tensor, num_prefix: int, grid: Grid) -> Tensor:
        patches = row[..., num_prefix:]
        return rearrange(patches, "b h (r c) -> b h r c", r=math.isqrt(patches.shape[-1]))

    assert_told_apart(
        check_token_map,
        right=[right, other],
        wrong={
            "prefix is still there": cut(0),
            "only the class token was cut off": cut(1),
            "one prefix token works, three do not": lambda row, n, grid: row[..., 1:].unflatten(
                -1, grid
            ),
            "take rows and cols from `grid`, and not": root_taken,
            "have to be cut off before": lambda row, n, grid: rearrange(
                row, "b h (r c) -> b h r c", r=grid[0], c=grid[1]
            ),
            "before the rest is a grid; and a square": lambda row, n, grid: root_taken(
                row, 0, grid
            ),
            "rows and columns are mixed up": lambda row, n, grid: (
                row[..., n:].unflatten(-1, (grid[1], grid[0])).mT
            ),
            "(2, 3, 7, 4)": lambda row, n, grid: row[..., n:].unflatten(-1, (grid[1], grid[0])),
            "divided by its sum": lambda row, n, grid: (
                right(row, n, grid) / right(row, n, grid).sum((-2, -1), keepdim=True)
            ),
            "divided by its maximum": lambda row, n, grid: (
                right(row, n, grid) / right(row, n, grid).amax((-2, -1), keepdim=True)
            ),
            "second softmax": lambda row, n, grid: row[..., n:].softmax(dim=-1).unflatten(-1, grid),
            "nothing comes back": lambda row, n, grid: None,
            "in place": changed_in_place(right),
        },
    )


def test_the_pixels_of_a_cell() -> None:
    right = solution("06", "6.2")["box_of_cell"]

    def other(box: Any, grid: Grid, cell: Grid) -> Tensor:
        corner, far = torch.tensor(box).view(2, 2)  # (x, y) each
        size = (far - corner) / torch.tensor([grid[1], grid[0]])
        start = corner + torch.tensor([cell[1], cell[0]]) * size
        return torch.cat([start, start + size])

    def moved(by: float) -> Callable[[Any, Grid, Grid], Any]:
        return lambda box, grid, cell: right(box, grid, (cell[0] + by, cell[1] + by))

    def size_and_place(box: Any, grid: Grid, cell: Grid) -> Any:
        left, top, far, bottom = right(box, grid, cell)
        return left, top, far - left, bottom - top

    def without_crop(box: Any, grid: Grid, cell: Grid) -> Any:
        return right((0, 0, box[2] - box[0], box[3] - box[1]), grid, cell)

    def of_the_photo(box: Any, grid: Grid, cell: Grid) -> Any:
        wide, high = box[2] / grid[1], box[3] / grid[0]
        x, y = box[0] + cell[1] * wide, box[1] + cell[0] * high
        return x, y, x + wide, y + high

    def swapped(box: Any, grid: Grid, cell: Grid) -> Any:
        wide, high = (box[2] - box[0]) / grid[1], (box[3] - box[1]) / grid[0]
        x, y = box[0] + cell[0] * wide, box[1] + cell[1] * high
        return x, y, x + wide, y + high

    def cut_size(box: Any, grid: Grid, cell: Grid) -> Any:
        wide, high = (box[2] - box[0]) // grid[1], (box[3] - box[1]) // grid[0]
        x, y = box[0] + cell[1] * wide, box[1] + cell[0] * high
        return x, y, x + wide, y + high

    assert_told_apart(
        check_cell_box,
        right=[right, other],
        wrong={
            "x and y are swapped": swapped,
            "x stands before y": lambda box, grid, cell: [
                right(box, grid, cell)[edge] for edge in (1, 0, 3, 2)
            ],
            "left, top, width and height": size_and_place,
            "half a cell": moved(-0.5),
            "the cell before it": moved(-1),
            "the cell after it": moved(1),
            "the crop was forgotten": without_crop,
            "size of the whole photo's": of_the_photo,
            "divided by the rows": lambda box, grid, cell: right(box, grid[::-1], cell),
            "`//`": cut_size,
            "the edges were rounded": lambda box, grid, cell: [
                round(edge) for edge in right(box, grid, cell)
            ],
            "leave - 1 out": lambda box, grid, cell: (
                *right(box, grid, cell)[:2],
                *(edge - 1 for edge in right(box, grid, cell)[2:]),
            ),
            "this is (left, right, top, bottom)": lambda box, grid, cell: [
                right(box, grid, cell)[edge] for edge in (0, 2, 1, 3)
            ],
            "got (0.00, 0.00, 1.00, 1.00)": lambda box, grid, cell: (0, 0, 1, 1),
            "2 numbers": lambda box, grid, cell: right(box, grid, cell)[:2],
            "four numbers are expected": lambda box, grid, cell: 3.0,
            "nothing comes back": lambda box, grid, cell: None,
        },
    )


def test_a_head_that_is_chosen() -> None:
    right = solution("06", "6.3")["choose_head"]

    def other(model: VisionTransformer, images: Tensor, cells: Tensor) -> Tensor:
        """In one tensor, from the rows themselves."""
        rows = minivit.AttentionRows(blocks=range(len(model.blocks)), queries=[0])
        with torch.no_grad():
            weights = torch.stack(model(images, return_attention=rows)[1])[:, :, :, 0, 1:]
        parts = weights / weights.sum(dim=-1, keepdim=True)  # (blocks, B, H, patches)
        mass = torch.einsum("lbhp,bp->lh", parts, cells.flatten(1))
        return (mass == mass.max()).nonzero()[0]

    def in_last_block(model: VisionTransformer, images: Tensor, cells: Tensor) -> tuple[int, int]:
        with torch.no_grad():
            maps = query_attention(model(images, return_attention=[-1])[1], token=0)
        mass = (maps * cells[:, None]).sum(dim=(-2, -1)) / maps.sum(dim=(-2, -1))
        return len(model.blocks) - 1, int(mass.mean(dim=0).argmax())

    def flat(model: VisionTransformer, images: Tensor, cells: Tensor) -> int:
        block, head = right(model, images, cells)
        return cast(int, block * model.config.num_heads + head)

    def not_divided(model: VisionTransformer, images: Tensor, cells: Tensor) -> tuple[int, int]:
        with torch.no_grad():
            _, attentions = model(images, return_attention=True)
        masses = [
            (query_attention(attentions, token=0, block=b) * cells[:, None]).sum((-2, -1)).mean(0)
            for b in range(len(attentions))
        ]
        return divmod(int(torch.stack(masses).argmax()), model.config.num_heads)

    assert not_divided(*_scenes()) == (1, 2)  # right by luck in this model
    assert right(*_scenes()) == (1, 2)  # as the lesson says: a head of block 1
    assert_told_apart(
        check_choose_head,
        right=[right, other],
        wrong={
            "flat number": flat,
            "the best one of the last block": in_last_block,
            "the two numbers are swapped": lambda *given: right(*given)[::-1],
            "the smallest was taken": lambda *given: (0, 0),
            "both counted from 0": lambda *given: (4, 3),
            "compare the part of each map's own sum": lambda *given: (0, 1),
            "divided by the map's own sum? There": not_divided,
            "a pair of whole numbers": lambda *given: "block 1",
            "nothing comes back": lambda *given: None,
        },
    )


def _scenes() -> tuple[VisionTransformer, Tensor, Tensor]:
    from tutorials.checks.lesson_06 import _scenes

    return _scenes()[:3]


def test_attention_through_all_blocks() -> None:
    right = solution("06", "6.4")["roll"]

    def other(attentions: list[Tensor]) -> Tensor:
        """From the last block, each older one on the right; divided instead of halved."""
        length = attentions[0].shape[-1]
        flow = torch.eye(length).expand(len(attentions[0]), -1, -1)
        for attention in reversed(attentions):
            mixed = attention.mean(1) + torch.eye(length)
            flow = flow @ (mixed / mixed.sum(-1, keepdim=True))
        return flow

    def filled(attentions: list[Tensor]) -> Tensor:
        value = right(attentions)
        attentions[1].mul_(2)
        return cast(Tensor, value)

    eye = torch.eye(7)
    assert_told_apart(
        check_rollout,
        right=[right, other, rollout],
        wrong={
            "the wrong order": lambda maps: right(maps[::-1]),
            "the residual is missing": lambda maps: rollout(maps, residual=0),
            "was not halved": lambda maps: 8 * right(maps),
            "the last block is missing": lambda maps: right(maps[:-1]),
            "the first block is missing": lambda maps: right(maps[1:]),
            "I was added to the product": lambda maps: (rollout(maps, residual=0) + eye) / 2,
            "divided by their sum; here the mean": lambda maps: rollout(maps, fusion="max"),
            "the first head alone": lambda maps: right([each[:, :1] for each in maps]),
            "multiplied one by one": lambda maps: torch.stack(
                [(each.mean(1) + eye) / 2 for each in maps]
            ).prod(dim=0),
            "summed or averaged": lambda maps: torch.stack(
                [(each.mean(1) + eye) / 2 for each in maps]
            ).mean(dim=0),
            "rows sum to 64, and": lambda maps: 64 * rollout(maps, residual=0.2),
            "rows sum to 0.5": lambda maps: right(maps) / 2,
            "rows sum to 1, and the numbers differ": lambda maps: rollout(maps, residual=0.2),
            "changed it": filled,
            "(B, N, N)": lambda maps: right(maps)[:, 0],
            "nothing comes back": lambda maps: None,
        },
    )


def test_relevance_through_a_block() -> None:
    right = solution("06", "6.5")["relevance_step"]

    def other(relevance: Tensor, attention: Tensor, gradient: Tensor) -> Tensor:
        """Weights are not negative, so it is enough to clamp the gradient."""
        raising = torch.einsum("bhnm,bhnm->bnm", attention, gradient.relu()) / attention.shape[1]
        return torch.baddbmm(relevance, raising, relevance)

    def step(of_heads: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda relevance, attention, gradient: (
            relevance + of_heads(attention, gradient) @ relevance
        )

    def raising(attention: Tensor, gradient: Tensor) -> Tensor:
        return (attention * gradient).clamp(min=0).mean(dim=1)

    assert_told_apart(
        check_relevance_step,
        right=[right, other],
        wrong={
            "R itself is missing": lambda r, a, g: raising(a, g) @ r,
            "the wrong way round": lambda r, a, g: r + r @ raising(a, g),
            "what speaks against the class was kept": step(lambda a, g: (a * g).mean(1)),
            "the mean came before the clamp": step(lambda a, g: (a * g).mean(1).clamp(min=0)),
            "averaged before the product": step(lambda a, g: (a.mean(1) * g.mean(1)).clamp(min=0)),
            "the heads were summed": step(lambda a, g: (a * g).clamp(min=0).sum(1)),
            "the gradient is missing": step(lambda a, g: a.mean(1)),
            "the attention is missing": step(lambda a, g: g.clamp(min=0).mean(1)),
            "the size was taken": step(lambda a, g: (a * g).abs().mean(1)),
            "brought to the sum 1": step(
                lambda a, g: raising(a, g) / raising(a, g).sum(-1, keepdim=True)
            ),
            "one by one": lambda r, a, g: r + raising(a, g) * r,
            "this is Ā alone": lambda r, a, g: raising(a, g),
            "`@ R` is missing": lambda r, a, g: r + raising(a, g),
            "multiplied as matrices": step(lambda a, g: (a @ g).clamp(min=0).mean(1)),
            "the strongest head was taken": step(lambda a, g: (a * g).clamp(min=0).amax(1)),
            "the negative part was taken: keep": step(lambda a, g: (a * g).clamp(max=0).mean(1)),
            "as positive numbers": step(lambda a, g: (-a * g).clamp(min=0).mean(1)),
            "in the place of R": lambda r, a, g: torch.eye(7) + raising(a, g) @ r,
            "R is in neither": lambda r, a, g: torch.eye(7) + raising(a, g),
            "halved": lambda r, a, g: (r + raising(a, g) @ r) / 2,
            "numbers differ from R": lambda r, a, g: r,
            "in place": lambda r, a, g: r.add_(raising(a, g) @ r),
            "nothing comes back": lambda r, a, g: None,
        },
    )


def test_the_mass_of_a_mean_map_is_the_heads_weighted_mean() -> None:
    model, images, cells = _scenes()
    with torch.no_grad():
        maps = query_attention(model(images, return_attention=[-1])[1], token=0)
    sums = maps.sum(dim=(-2, -1))  # (B, H)
    masses = (maps * cells[:, None]).sum(dim=(-2, -1)) / sums
    mean = maps.mean(dim=1)  # (B, rows, cols)
    of_mean = (mean * cells).sum(dim=(-2, -1)) / mean.sum(dim=(-2, -1))
    torch.testing.assert_close(of_mean, (sums * masses).sum(dim=1) / sums.sum(dim=1))


def test_one_more_key_leaves_the_pattern_of_a_heads_map() -> None:
    """A register takes its part from all cells of a head alike."""
    model, images, _ = _scenes()
    with torch.no_grad():
        tokens = model.embed(images[:1])
        more = torch.cat([tokens[:, :1], 5 * tokens[:, :1], tokens[:, 1:]], dim=1)
        block = model.blocks[0]
        plain = block(tokens, need_weights=True, rows=[0])[1][0, :, 0, 1:]
        shared = block(more, need_weights=True, rows=[0])[1][0, :, 0, 2:]
    factors = (shared / plain).masked_fill(plain < 1e-6, torch.nan)  # (H, patches)
    for head in factors:
        known = head[~head.isnan()]
        torch.testing.assert_close(known, known[:1].expand_as(known), rtol=1e-3, atol=0)
