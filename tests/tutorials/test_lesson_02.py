"""Lesson 2: its checks tell mistakes apart, and what it says of positions holds."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

import minivit
from minivit.embeddings import resize_position_embedding, sine_position_embedding
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_additive_share,
    check_better_resize,
    check_grid_waves,
    check_resize_positions,
    check_similarity_grid,
    error_of_resize,
)


def _waves(
    rows: int,
    cols: int,
    dim: int,
    *,
    swapped: bool = False,
    by_columns: bool = False,
    first: int = 0,
    divide_by: int = -1,
    sign: int = -1,
    turns: bool = False,
) -> Tensor:
    """Waves of a grid with one thing done otherwise."""
    k = torch.arange(dim // 4)
    omega = 10000.0 ** (sign * k / (dim // 4 + divide_by))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    if by_columns:
        row, col = row.T, col.T
    x, y = (v.flatten()[:, None] + first for v in (col, row))
    if swapped:
        x, y = y, x
    if turns:
        return torch.cat(
            [torch.stack([(v * omega).sin(), (v * omega).cos()], -1).flatten(1) for v in (x, y)], 1
        )
    return torch.cat(
        [(x * omega).sin(), (x * omega).cos(), (y * omega).sin(), (y * omega).cos()], dim=1
    )


def _line(rows: int, cols: int, dim: int) -> Tensor:
    angle = torch.arange(rows * cols)[:, None] * 10000.0 ** (
        -torch.arange(dim // 2) / (dim // 2 - 1)
    )
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _numbered(rows: int, cols: int, dim: int, *, row_by: str = "c", col_by: str = "c") -> Tensor:
    """Waves of a row and a column that are taken from the number of a place."""
    places, size = torch.arange(rows * cols), {"r": rows, "c": cols}
    k = torch.arange(dim // 4)
    omega = 10000.0 ** (-k / (dim // 4 - 1))
    angles = [v[:, None] * omega for v in (places % size[col_by], places // size[row_by])]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)


def test_waves_for_a_grid() -> None:
    assert_told_apart(
        check_grid_waves,
        right=[solution("02", "2.1")["grid_waves"], _waves, _numbered],
        wrong={
            "version 1": _line,
            "follows the row": partial(_waves, swapped=True),
            "column by column": partial(_waves, by_columns=True),
            "K - 1": partial(_waves, divide_by=0),
            "lacks its minus": partial(_waves, sign=1),
            "take turns": partial(_waves, turns=True),
            "counted from 1": partial(_waves, first=1),
            "flatten it": lambda r, c, d: _waves(r, c, d).reshape(r, c, d),
            "nothing comes back": lambda r, c, d: None,
            "the shape is": lambda r, c, d: _waves(r, c, d)[:, :-1],
            "the numbers are not": lambda r, c, d: _waves(r, c, d) * 2,
            "has 12 channels": lambda r, c, d: _waves(r, c, d // 2),
            "has 48 channels": lambda r, c, d: _waves(r, c, 2 * d),
            "row is taken as n // cols and the column as n % rows": partial(_numbered, col_by="r"),
            "row is taken as n // rows and the column as n % cols": partial(_numbered, row_by="r"),
        },
    )


def _folded(vectors: Tensor, rows: int, cols: int) -> Tensor:
    return (vectors @ vectors.T).view(rows, cols, rows, cols)


def test_the_list_folded() -> None:
    def other(position: Tensor, rows: int, cols: int) -> Tensor:
        grid = position[len(position) - rows * cols :].view(rows, cols, -1)
        lengths = grid.norm(dim=-1)
        products = torch.einsum("abd,efd->abef", grid, grid)
        return products / lengths[..., None, None] / lengths

    assert_told_apart(
        check_similarity_grid,
        right=[solution("02", "2.2")["similarity_grid"], other],
        wrong={
            "not cosines": lambda p, r, c: _folded(p[-r * c :], r, c),
            "first vectors belong to the prefix": lambda p, r, c: _folded(
                F.normalize(p[: r * c], dim=-1), r, c
            ),
            "the last dimension": lambda p, r, c: _folded(F.normalize(p[-r * c :], dim=0), r, c),
            "column by column": lambda p, r, c: rearrange(
                F.normalize(p[-r * c :], dim=-1) @ F.normalize(p[-r * c :], dim=-1).T,
                "(c1 r1) (c2 r2) -> r1 c1 r2 c2",
                r1=r,
                r2=r,
            ),
            "a distance": lambda p, r, c: 1 - other(p, r, c),
            "fold both": lambda p, r, c: other(p, r, c).reshape(r * c, r * c),
            "nothing comes back": lambda p, r, c: None,
            "has other numbers afterwards": changed_in_place(other),
            "your lines end in": lambda p, r, c: p.reshape(r, c, -1, 1000),
            "one prefix row works, 2 do not": lambda p, r, c: _folded(
                F.normalize(p[1:], dim=-1), r, c
            ),
            "no prefix row works, 2 do not": lambda p, r, c: _folded(F.normalize(p, dim=-1), r, c),
        },
    )


def test_a_share_for_rows_and_columns() -> None:
    def parts(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = table.mean((0, 1), keepdim=True)
        return mean, table.mean(1, keepdim=True) - mean, table.mean(0, keepdim=True) - mean

    def other(table: Tensor) -> float:
        mean, row, col = parts(table)
        rest = table - mean - row - col  # at right angles to the parts
        return 1 - (rest.square().sum() / (table - mean).square().sum()).item()

    def share(table: Tensor, *, over: str) -> Tensor:
        mean, row, col = parts(table)
        total = table if over in ("itself", "both") else table - mean
        top = {
            "row": row.expand_as(table),
            "both": row + col + mean,
            "rest": table - mean - row - col,
            "with mean": row + col + mean,
            "means kept": row + col + 2 * mean,
            "itself": row + col,
        }[over]
        return top.square().sum() / total.square().sum()

    def counted_once(table: Tensor) -> Tensor:
        mean, row, col = parts(table)
        return (row.square().sum() + col.square().sum()) / (table - mean).square().sum()

    def lengths(table: Tensor) -> Tensor:
        mean, row, col = parts(table)
        return (row + col).norm(dim=-1).sum() / (table - mean).norm(dim=-1).sum()

    assert_told_apart(
        check_additive_share,
        right=[solution("02", "2.3")["additive_share"], other],
        wrong={
            "only the row part": partial(share, over="row"),
            "share of the rest": partial(share, over="rest"),
            "counted once": counted_once,
            "take its mean m out first": partial(share, over="itself"),
            "still hold the mean": partial(share, over="means kept"),
            "the mean m is in the part": partial(share, over="with mean"),
            "do not take the root": lambda table: math.sqrt(other(table)),
            "m is in both sums": partial(share, over="both"),
            "sums of lengths": lengths,
            "one number is expected": lambda table: parts(table)[1],
            "nothing comes back": lambda table: None,
            "is not the share": lambda table: 0.5,
            "has other numbers afterwards": changed_in_place(other),
        },
    )


def _resized(
    embedding: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    antialias: bool = True,
    mode: str = "bicubic",
    cols_first: bool = False,
    transposed: bool = False,
    by_columns: bool = False,
    reshaped: bool = False,
    corners: bool | None = None,
) -> Tensor:
    """Resized positions with one thing done otherwise."""
    count = embedding.shape[1] - old[0] * old[1]
    patches = embedding[:, count:]
    if reshaped:
        grid = patches.reshape(1, -1, *old)
    elif by_columns:
        grid = rearrange(patches, "b (c r) d -> b d r c", r=old[0])
    else:
        grid = rearrange(patches, "b (r c) d -> b d r c", r=old[cols_first])
    grid = F.interpolate(grid, size=new, mode=mode, antialias=antialias, align_corners=corners)
    if transposed:
        grid = grid.transpose(-1, -2)
    return torch.cat([embedding[:, :count], grid.flatten(2).transpose(1, 2)], dim=1)


def test_a_table_resized() -> None:
    def prefix_too(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        right = _resized(embedding, old, new)
        return torch.cat([right[:, 2:], right[:, :2]], dim=1)

    def one_prefix(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        grid = rearrange(embedding[:, 1:], "b (r c) d -> b d r c", r=old[0], c=old[1])
        grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
        return torch.cat([embedding[:, :1], rearrange(grid, "b d r c -> b (r c) d")], dim=1)

    def back_by_reshape(embedding: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        grid = _resized(embedding, old, new)[:, 2:].transpose(1, 2)
        patches = grid.reshape(1, new[0] * new[1], -1)
        return torch.cat([embedding[:, :2], patches], dim=1)

    assert_told_apart(
        check_resize_positions,
        right=[
            solution("02", "2.4")["resize_positions"],
            resize_position_embedding,
            _resized,
        ],
        wrong={
            "without antialias: timm": partial(_resized, antialias=False),
            "this is bilinear": partial(_resized, mode="bilinear"),
            "mixed up": partial(_resized, reshaped=True),
            "its first number is rows": partial(_resized, cols_first=True),
            "unfolded column by column": partial(_resized, transposed=True),
            "corners are aligned": partial(_resized, antialias=False, corners=True),
            "not those of the prefix": prefix_too,
            "prefix rows are gone": lambda e, o, n: _resized(e, o, n)[:, 2:],
            "no gradient reaches the table": lambda e, o, n: _resized(e, o, n).detach(),
            "no gradient reaches the prefix": lambda e, o, n: torch.cat(
                [e[:, :2].detach(), _resized(e, o, n)[:, 2:]], dim=1
            ),
            "no gradient reaches the rows of the patches": lambda e, o, n: torch.cat(
                [e[:, :2], _resized(e, o, n)[:, 2:].detach()], dim=1
            ),
            "one prefix row works, 2 do not": one_prefix,
            "one prefix row comes back": lambda e, o, n: _resized(e, o, n)[:, 1:],
            "on the way back": back_by_reshape,
            "the old grid was unfolded": partial(_resized, by_columns=True),
            "both ways go": partial(_resized, by_columns=True, transposed=True),
            "as in DINO's code": partial(resize_position_embedding, antialias=False, offset=0.1),
            "nothing comes back": lambda e, o, n: None,
            "your lines end in": lambda e, o, n: _resized(e[:, 1:], o, (0, 0)),
            "has other numbers afterwards": changed_in_place(_resized),
        },
    )


def _spline(grid: Tensor) -> Tensor:
    """A cubic spline along rows and columns, its second derivative straight at the ends."""
    n = grid.shape[-1]
    left, right = torch.zeros(n, n), torch.zeros(n, n)
    left[0, :3] = left[-1, -3:] = torch.tensor([1.0, -2.0, 1.0])
    for i in range(1, n - 1):
        left[i, i - 1 : i + 2] = torch.tensor([1.0, 4.0, 1.0])
        right[i, i - 1 : i + 2] = torch.tensor([6.0, -12.0, 6.0])
    bends = torch.linalg.solve(left, right)
    rows = []
    for place in ((torch.arange(24) + 0.5) * 14 / 24 - 0.5).tolist():
        i = min(max(math.floor(place), 0), n - 2)
        t, unit = place - i, torch.eye(n)
        rows.append(
            (1 - t) * unit[i]
            + t * unit[i + 1]
            + ((1 - t) ** 3 - (1 - t)) / 6 * bends[i]
            + (t**3 - t) / 6 * bends[i + 1]
        )
    matrix = torch.stack(rows)
    return matrix @ grid @ matrix.T


def test_resized_better() -> None:
    def usual(grid: Tensor, **options: bool) -> Tensor:
        return F.interpolate(grid, size=(24, 24), mode="bicubic", **options)

    right = solution("02", "2.5")["better_resize"]
    assert_told_apart(
        check_better_resize,
        right=[right, _spline],
        wrong={
            "lies on the border": partial(usual, antialias=True),
            "lies inside": usual,
            "from other places": partial(usual, align_corners=True),
            "must sum to 1": lambda grid: 1.01 * usual(grid, antialias=True),
            "the shape is": lambda grid: grid,
            "not finite": lambda grid: usual(grid) / 0,
            "nothing comes back": lambda grid: None,
            "has other numbers afterwards": changed_in_place(_spline),
        },
    )
    assert error_of_resize(_spline) < 0.3 < 0.4 < error_of_resize(right) < 0.85
    assert abs(error_of_resize(partial(usual, antialias=True)) - 1) < 1e-6
    nearest = check_better_resize.message(
        lambda grid: F.interpolate(grid, size=(24, 24), mode="nearest-exact")
    )
    assert nearest is not None and "from other places" in nearest


def test_trained_positions_are_a_row_part_plus_a_column_part() -> None:
    model = minivit.load_model("scenes")
    assert isinstance(model, minivit.VisionTransformer) and model.pos_embed is not None
    rows, cols = model.grid_size
    table = model.pos_embed.detach()[0, 1:].view(rows, cols, -1)
    share = solution("02", "2.3")["additive_share"]
    assert share(table) > 0.95
    assert share(torch.randn(rows, cols, 96)) < 0.25
    assert share(sine_position_embedding(rows, cols, 96).view(rows, cols, -1)) > 1 - 1e-5
