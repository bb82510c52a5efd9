"""Checks of lesson 2: where each patch is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from minivit.embeddings import resize_position_embedding, sine_position_embedding
from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_gradient,
    expect_shape,
)

__all__ = [
    "check_additive_share",
    "check_better_resize",
    "check_grid_waves",
    "check_resize_positions",
    "check_similarity_grid",
    "error_of_resize",
]


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@exercise("2.1", "Waves for a grid")
def check_grid_waves(answer: Callable[[int, int, int], Tensor]) -> None:
    """`answer(rows, cols, D)` is (rows · cols, D): waves of the column, then of the row."""
    rows, cols, dim = 3, 5, 24
    table = ask(answer, rows, cols, dim)
    if isinstance(table, Tensor) and table.shape == (rows, cols, dim):
        raise NotSolved("the table is still a grid (rows, cols, D): flatten it to (rows · cols, D)")
    if isinstance(table, Tensor) and table.shape in (
        (rows * cols, dim // 2),
        (rows * cols, dim * 2),
    ):
        raise NotSolved(
            f"the table has {table.shape[1]} channels, and D = {dim} is expected: K = D/4 waves, "
            "each with a sine and a cosine for the column, and again for the row"
        )
    expect_shape(table, (rows * cols, dim), "(rows · cols, D)")
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    row, col = row.flatten(), col.flatten()
    k = torch.arange(dim // 4)
    omega = 10000.0 ** (-k / (dim // 4 - 1))

    def waves(first: Tensor, second: Tensor, omega: Tensor) -> Tensor:
        angles = [places[:, None] * omega for places in (first, second)]
        return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)

    def in_turns(places: Tensor) -> Tensor:
        angle = places[:, None] * omega
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (N, K, 2) -> (N, 2K)

    number = torch.arange(rows * cols)[:, None] * 10000.0 ** (
        -torch.arange(dim // 2) / (dim // 2 - 1)
    )
    sines = torch.cat([(places[:, None] * omega).sin() for places in (col, row)], dim=1)
    cosines = torch.cat([(places[:, None] * omega).cos() for places in (col, row)], dim=1)
    transposed = torch.meshgrid(torch.arange(cols), torch.arange(rows), indexing="ij")
    # Of the first waves only: sines of 10,000 differ with the order of multiplication.
    if torch.allclose(table[1, :3].float(), (1 / omega[:3]).sin(), atol=1e-3):
        raise NotSolved("frequencies grow with k: the exponent lacks its minus")
    mistakes = {
        "these are the waves of the number n, version 1: the row and the column need channels "
        "of their own": torch.cat([number.sin(), number.cos()], dim=1),
        "the first half of the channels follows the row, and it is to follow the column": waves(
            row, col, omega
        ),
        "places stand column by column, and reading order is row by row: did meshgrid run with "
        'indexing="xy", or with columns first?': waves(
            transposed[0].flatten(), transposed[1].flatten(), omega
        ),
        "the exponents run from 0 to almost 1: divide k by K - 1 and not by K, so that the last "
        "wave has the frequency 1 / T": waves(col, row, 10000.0 ** (-k / (dim // 4))),
        "sines and cosines take turns: all sines of the column come first, then its cosines": (
            torch.cat([in_turns(col), in_turns(row)], dim=1)
        ),
        "all sines come before all cosines: the column has both its blocks first": torch.cat(
            [sines, cosines], dim=1
        ),
        "rows and columns are counted from 1, and the first is 0": waves(col + 1, row + 1, omega),
    }
    places = torch.arange(rows * cols)
    for name_of_row, of_row in {
        "n // cols": places // cols,
        "n // rows": places // rows,
        "n % cols": places % cols,
        "n % rows": places % rows,
    }.items():
        for name_of_col, of_col in {"n % cols": places % cols, "n % rows": places % rows}.items():
            mistakes.setdefault(
                f"the row is taken as {name_of_row} and the column as {name_of_col}: a row of the "
                "grid has `cols` places, so they are n // cols and n % cols",
                waves(of_col, of_row, omega),
            )
    expect_close(
        table,
        sine_position_embedding(rows, cols, dim),
        mistakes,
        "the shape is right and the numbers are not: compare the row of place (0, 1) with "
        "sin(ω), cos(ω) of the column and 0, 1 of the row",
        tolerance=1e-4,
    )


def _expect_any_prefix(
    wrong: NotSolved, answer: Callable[..., Any], prefix: int, position: Tensor, *sizes: Any
) -> None:
    """What failed with `prefix` rows before the patches may work with one, or with none.

    `position` is (prefix + N, D), or (1, prefix + N, D).
    """
    for fewer, said in ((1, "one prefix row works"), (0, "no prefix row works")):
        kept = position[..., prefix - fewer :, :].detach().clone()
        try:
            value = ask(answer, kept, *sizes)
        except NotSolved:
            continue
        if isinstance(value, Tensor):
            raise NotSolved(
                f"{said}, {prefix} do not ({wrong}): P may be 0, 1 or more, and the patches are "
                "the last rows · cols vectors"
            ) from None


@exercise("2.2", "Fold the list")
def check_similarity_grid(answer: Callable[[Tensor, int, int], Tensor]) -> None:
    """`answer(position (P + N, D), rows, cols)` is (rows, cols, rows, cols)."""
    rows, cols, prefix = 3, 5, 2
    position = _noise(prefix + rows * cols, 7) * torch.linspace(1, 3, prefix + rows * cols)[:, None]
    try:
        similarity = ask(answer, position, rows, cols)
    except NotSolved as wrong:
        _expect_any_prefix(wrong, answer, prefix, position, rows, cols)
        raise
    if isinstance(similarity, Tensor) and similarity.shape == (rows * cols, rows * cols):
        raise NotSolved("this is the matrix (N, N): fold both of its sides into (rows, cols)")
    expect_shape(similarity, (rows, cols, rows, cols), "(rows, cols, rows, cols)")

    def folded(vectors: Tensor) -> Tensor:
        return (vectors @ vectors.T).reshape(rows, cols, rows, cols)  # (N, N) -> (r, c, r, c)

    patches = position[prefix:]
    unit = F.normalize(patches, dim=-1)
    by_columns = rearrange(unit @ unit.T, "(c1 r1) (c2 r2) -> r1 c1 r2 c2", r1=rows, r2=rows)
    mistakes = {
        "these are scalar products, not cosines: divide each vector by its length": folded(patches),
        "the first vectors belong to the prefix tokens: the patches are the last rows · cols": (
            folded(F.normalize(position[: rows * cols], dim=-1))
        ),
        "channels have the length 1 and vectors do not: normalise over D, the last dimension": (
            folded(F.normalize(patches, dim=0))
        ),
        "the list is folded column by column: number n stands in row n // cols": by_columns,
        "the mean was taken out before the cosine: that is the correlation of the channels": (
            folded(F.normalize(patches - patches.mean(-1, keepdim=True), dim=-1))
        ),
        "this is 1 - cosine, a distance: a place must have 1 with itself": 1 - folded(unit),
    }
    expect_close(
        similarity,
        folded(unit),
        mistakes,
        "the numbers differ: [r, c, r, c] must be 1 for each place, and [0, 0, r, c] the cosine of "
        "the first patch with patch r · cols + c",
    )


@exercise("2.3", "A share for rows and columns")
def check_additive_share(answer: Callable[[Tensor], float | Tensor]) -> None:
    """`answer(table (rows, cols, D))` is a number from 0 to 1."""
    rows, cols, dim = 4, 7, 6
    table = _noise(rows, cols, dim) + 2 * _noise(rows, 1, dim) + 1.5 * _noise(1, cols, dim + 1)[
        ..., 1:
    ] + 3  # fmt: skip
    share = torch.as_tensor(ask(answer, table))
    if share.numel() != 1:
        raise NotSolved(
            f"one number is expected, and this has the shape {tuple(share.shape)}: sum over rows, "
            "columns and channels before you divide"
        )
    mean = table.mean((0, 1), keepdim=True)
    row = table.mean(1, keepdim=True) - mean
    col = table.mean(0, keepdim=True) - mean
    total = (table - mean).square().sum()
    explained = (row + col).square().sum()
    mistakes = {
        "only the row part is in it": row.expand_as(table).square().sum() / total,
        "only the column part is in it": col.expand_as(table).square().sum() / total,
        "this is the share of the rest: take it from 1": 1 - explained / total,
        "each row part is counted once, and it stands in every column: add a and b to (rows, cols, "
        "D) before you square": (row.square().sum() + col.square().sum()) / total,
        "the total is that of p itself: take its mean m out first": explained
        / table.square().sum(),
        "the parts still hold the mean: take m out of the row means and of the column means": (
            (table.mean(1, keepdim=True) + table.mean(0, keepdim=True)).square().sum() / total
        ),
        "the mean m is in the part that is explained: a + b only": (row + col + mean).square().sum()
        / total,
        "m is in both sums: take it out of p, of the row means and of the column means": (
            (row + col + mean).square().sum() / table.square().sum()
        ),
        "m is in both sums, and twice in the upper one: take it out of p, of the row means and "
        "of the column means": ((row + col + 2 * mean).square().sum() / table.square().sum()),
        "these are sums of lengths, and the equation sums squares of lengths": (
            (row + col).norm(dim=-1).sum() / (table - mean).norm(dim=-1).sum()
        ),
        "these are sums of sizes, and the equation sums squares": (
            (row + col).abs().sum() / (table - mean).abs().sum()
        ),
        "shares of single places were averaged: sum over all places first, then divide": (
            (row + col).square().sum(-1) / (table - mean).square().sum(-1)
        ).mean(),
        "this is a share of lengths: do not take the root": (explained / total).sqrt(),
        "means were taken over the channels too: m, a and b are vectors of D numbers": (
            (table.mean((1, 2), keepdim=True) + table.mean((0, 2), keepdim=True) - 2 * table.mean())
            .expand_as(table)
            .square()
            .sum()
            / (table - table.mean()).square().sum()
        ),
    }
    expect_close(
        share.reshape(()).detach(),
        explained / total,
        mistakes,
        f"{float(share):.4f} is not the share of this table, {float(explained / total):.4f}: look "
        "at m (1, 1, D), a (rows, 1, D) and b (1, cols, D), one after the other",
        tolerance=1e-4,
    )


@exercise("2.4", "Resize a table")
def check_resize_positions(
    answer: Callable[[Tensor, tuple[int, int], tuple[int, int]], Tensor],
) -> None:
    """`answer(embedding, old grid, new grid)` is what timm does, prefix rows untouched."""
    old, new, prefix, dim = (4, 6), (7, 5), 2, 3
    embedding = _noise(1, prefix + old[0] * old[1], dim).requires_grad_()
    try:
        resized = ask(answer, embedding, old, new)
    except NotSolved as wrong:
        _expect_any_prefix(wrong, answer, prefix, embedding, old, new)
        raise
    count = new[0] * new[1]
    if isinstance(resized, Tensor) and resized.shape == (1, 1 + count, dim):
        raise NotSolved(
            f"one prefix row comes back, and {prefix} were there: P is the number of rows of the "
            "embedding minus old rows · old cols"
        )
    if isinstance(resized, Tensor) and resized.shape == (1, count, dim):
        raise NotSolved("the prefix rows are gone: put them before the patches again")
    if isinstance(resized, Tensor) and resized.shape == (1, dim, *new):
        raise NotSolved("the result is still a picture (1, D, rows, cols): back to a list, please")
    expect_shape(resized, (1, prefix + count, dim), "(1, P + rows · cols, D)")
    patches = embedding[:, prefix:].detach()
    grid = rearrange(patches, "1 (r c) d -> 1 d r c", r=old[0])

    def listed(picture: Tensor) -> Tensor:
        return picture.flatten(2).transpose(1, 2)  # (1, D, rows, cols) -> (1, N, D)

    def bicubic(picture: Tensor, size: tuple[int, int] = new) -> Tensor:
        return F.interpolate(picture, size=size, mode="bicubic", antialias=True)

    if not torch.allclose(resized[:, :prefix], embedding[:, :prefix]):
        raise NotSolved(
            "the first rows are not those of the prefix tokens any more: these have no place in "
            "the grid and keep their numbers"
        )
    swapped = rearrange(patches, "1 (r c) d -> 1 d r c", r=old[1])
    by_columns = rearrange(patches, "1 (c r) d -> 1 d r c", r=old[0])

    def offset(*, antialias: bool) -> Tensor:
        factor = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
        return F.interpolate(grid, scale_factor=factor, mode="bicubic", antialias=antialias)

    mistakes = {
        "this is bicubic without antialias: timm sets antialias=True, which changes the "
        "kernel even where the grid grows": listed(F.interpolate(grid, size=new, mode="bicubic")),
        "this is bilinear": listed(F.interpolate(grid, size=new, mode="bilinear", antialias=True)),
        "this is bilinear without antialias": listed(
            F.interpolate(grid, size=new, mode="bilinear")
        ),
        "this is the nearest cell": listed(F.interpolate(grid, size=new, mode="nearest")),
        "channels and places are mixed up: `reshape` cut (rows, cols, D) as if it were (D, rows, "
        "cols); transpose, or use rearrange": listed(bicubic(patches.reshape(1, dim, *old))),
        "the old grid was folded with cols for rows: its first number is rows": listed(
            bicubic(swapped)
        ),
        "the corners are aligned: leave align_corners out": listed(
            F.interpolate(grid, size=new, mode="bicubic", align_corners=True)
        ),
        "the new grid has its rows and columns swapped: size=(rows, cols)": listed(
            bicubic(grid, (new[1], new[0]))
        ),
        "the result was unfolded column by column: reading order is row by row": listed(
            bicubic(grid).transpose(-1, -2)
        ),
        "the old grid was unfolded column by column, (c r): reading order is (r c)": listed(
            bicubic(by_columns)
        ),
        "both ways go column by column, (c r): reading order is (r c)": listed(
            bicubic(by_columns).transpose(-1, -2)
        ),
        "on the way back `reshape` cut (D, rows, cols) as if it were (rows, cols, D): transpose, "
        "or use rearrange": bicubic(grid).reshape(1, count, dim),
        "an offset is in the number of new cells, as in DINO's code: hand `size=` to "
        "F.interpolate, and no scale_factor": listed(offset(antialias=False)),
        "an offset is in the number of new cells: hand `size=` to F.interpolate, and no "
        "scale_factor": listed(offset(antialias=True)),
    }
    expect_close(
        resized[:, prefix:].detach(),
        listed(bicubic(grid)),
        mistakes,
        "the rows of the patches are not those of a bicubic interpolation with antialias: does the "
        "grid begin after the prefix rows?",
    )
    expect_gradient(resized, embedding, "the table")
    for what, rows, source in (
        ("prefix rows", resized[:, :prefix], slice(0, prefix)),
        ("rows of the patches", resized[:, prefix:], slice(prefix, None)),
    ):
        gradient = None
        if rows.requires_grad:
            (gradient,) = torch.autograd.grad(
                rows.sum(), embedding, allow_unused=True, retain_graph=True
            )
        if gradient is None or not bool(gradient[:, source].any()):
            raise NotSolved(
                f"no gradient reaches the {what}: `.detach()`, `.data` or `torch.no_grad()` stands "
                "on their way, and the other rows have one"
            )
    same = ask(answer, embedding, old, old)
    if not torch.allclose(same, embedding, atol=1e-5):
        raise NotSolved("the same grid again must give the same table")
    library = resize_position_embedding(embedding.detach(), old, new)
    assert torch.allclose(resized, library, atol=1e-4)


_OLD, _NEW = 14, 24
_SOLVED = 0.85  # of the error of bicubic with antialias


def _hidden_waves() -> tuple[Tensor, Tensor]:
    """Waves in all directions on the old grid, (1, D, 14, 14), and on the new one."""
    generator = torch.Generator().manual_seed(7)
    count = 48
    length = 7 * 6 ** torch.rand(count, generator=generator)  # 7 to 42 cells
    turn, phase = (2 * math.pi * torch.rand(count, generator=generator) for _ in range(2))
    old = torch.arange(_OLD, dtype=torch.float32)
    new = (torch.arange(_NEW) + 0.5) * _OLD / _NEW - 0.5

    def at(places: Tensor) -> Tensor:
        angle = places[:, None, None] * turn.sin() + places[None, :, None] * turn.cos()
        return (2 * math.pi * angle / length + phase).sin().permute(2, 0, 1)[None]

    return at(old), at(new)


def _errors(values: Tensor, truth: Tensor) -> Tensor:
    """Length of the error of each cell: (1, D, 24, 24) -> (24, 24)."""
    return (values.detach().float() - truth)[0].norm(dim=0)


def error_of_resize(answer: Callable[[Tensor], Tensor]) -> float:
    """Mean error of an answer to 2.5 on the check's waves, times that of bicubic with antialias."""
    given, truth = _hidden_waves()
    usual = F.interpolate(given, size=(_NEW, _NEW), mode="bicubic", antialias=True)
    return float(_errors(answer(given), truth).mean() / _errors(usual, truth).mean())


@exercise("2.5", "Resize better")
def check_better_resize(answer: Callable[[Tensor], Tensor]) -> None:
    """`answer(grid (1, D, 14, 14))` is (1, D, 24, 24), nearer to the truth than bicubic."""
    given, truth = _hidden_waves()
    resized = ask(answer, given)
    expect_shape(resized, truth.shape, "(1, D, 24, 24)")
    if not bool(torch.isfinite(resized).all()):
        raise NotSolved("some numbers are not finite")
    usual = F.interpolate(given, size=(_NEW, _NEW), mode="bicubic", antialias=True)
    own, theirs = _errors(resized, truth), _errors(usual, truth)
    ratio = float(own.mean() / theirs.mean())
    if ratio < _SOLVED:
        return
    constant = ask(answer, torch.ones_like(given))
    if not torch.allclose(constant, torch.ones_like(constant), atol=1e-3):
        raise NotSolved(
            "a table of ones does not stay one: the weights of every new cell must sum to 1"
        )
    ruler = torch.arange(float(_OLD)).expand_as(given).contiguous()
    wanted = (torch.arange(_NEW) + 0.5) * _OLD / _NEW - 0.5
    moved = ask(answer, ruler)[0, 0, _NEW // 2].detach() - wanted
    centred = torch.arange(_NEW) - (_NEW - 1) / 2
    stretch = float((centred * moved)[4:-4].sum() / centred[4:-4].square().sum())  # per new cell
    farthest = max(abs(stretch) * _NEW / 2, float(moved[4:-4].abs().max()))
    if abs(stretch) * _NEW > 0.1 or farthest > 0.3:
        raise NotSolved(
            f"error {ratio:.2f} times bicubic's: cells read from other places than they should "
            f"(by up to {farthest:.2f} of an old cell); new cell i lies at "
            "(i + 1/2) · 14/24 - 1/2"
        )
    where = (
        "on the border" if own[4:-4, 4:-4].mean() <= 1.1 * theirs[4:-4, 4:-4].mean() else "inside"
    )
    cure = {
        "on the border": "continue the table beyond it instead of repeating the last cell",
        "inside": "the kernel is worse than Keys' cubic with a = -1/2 (antialias=True)",
    }[where]
    raise NotSolved(
        f"error {ratio:.2f} times that of bicubic with antialias (solved below {_SOLVED}); "
        f"what to gain lies {where}: {cure}"
    )
