"""The figure of a ranking: how much each head and each MLP is missed, as a grid of numbers.

A row is a block, a column a head, the last column the MLPs. Colours lie around 0, which is white:
blue where the log-probability falls without the part, red where it rises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minivit.preprocess import to_rgb
from minivit.viz.page import (
    MARGIN,
    NOTE_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Page,
    Slot,
    line_height,
    text_width,
    wrap_lines,
)
from minivit.viz.panels import DIVERGING_MAP, Box, show_veiled

_HEADING, _AXIS, _FOOTER = 0.65, 0.5, 0.7  # inches, as all lengths here
_PHOTO = 3.0  # width and greatest height of the photo's place
_NAMES = 0.15 + MARGIN + _PHOTO  # where the names of the rows begin
_LOWEST, _HIGHEST = 0.3, 0.6  # a row of the grid
_GAP, _WIDEST = 0.12, 1.3  # width of the gap before the MLPs, of a cell
_SCALE = 2.4  # width of the bar of colours
_MOST_TITLE_LINES = 8


class AblatedBlock(NamedTuple):
    """A row of the grid.

    Attributes:
        name: Name of the row.
        heads: Change for each head; empty where heads were not replaced.
        mlp: Change for the MLP; None: not replaced, or there is none.
    """

    name: str
    heads: Sequence[float]
    mlp: float | None


def ablation_figure(
    photo: Image.Image,
    box: Box,
    blocks: Sequence[AblatedBlock],
    *,
    heading: str = "",
    photo_title: str = "",
) -> Figure:
    """The photo, and beside it the grid of changes; axes in this order, the bar of colours last.

    Args:
        photo: The photo, upright.
        box: Region that the model saw, in the photo's pixels; the rest is veiled.
        blocks: Rows of the grid, at least one, with a number at least.
        heading: Text above the figure, at most two lines.
        photo_title: Text above the photo; long lines are broken.

    Raises:
        ValueError: No number, or one that is not finite.
    """
    values = _grid(blocks)
    numbers = values.compressed()
    if not numbers.size:
        raise ValueError("no part was replaced: expected a number for a head or an MLP at least")
    limit = float(np.abs(numbers).max())
    if not math.isfinite(limit):
        raise ValueError("found changes that are not finite; the weights are damaged")
    photo = to_rgb(photo)

    names = max(text_width(block.name, NOTE_SIZE) for block in blocks)
    left = _NAMES + names + 0.2
    num_heads, has_mlps = _columns(blocks)
    gap = _GAP if num_heads and has_mlps else 0.0
    decimals = max(0, min(6, 2 - math.floor(math.log10(limit)))) if limit else 2
    longest = max((_label(number, decimals) for number in numbers), key=len)
    label_width = text_width(longest, NOTE_SIZE)
    room = PAGE_WIDTH - MARGIN - left - gap
    cell = min(_WIDEST, max(room / values.shape[1], 0.3))
    width = cell * values.shape[1] + gap
    scale = min(_PHOTO / photo.width, _PHOTO / photo.height)
    size = (photo.width * scale, photo.height * scale)
    height = len(blocks) * min(_HIGHEST, max(_LOWEST, size[1] / len(blocks)))
    title = [
        line
        for text in photo_title.split("\n")
        for line in wrap_lines(text, _PHOTO, NOTE_SIZE, _MOST_TITLE_LINES)
    ]
    top = _HEADING + max(len(title), 2) * line_height(NOTE_SIZE) + 0.1
    panels = max(size[1], height + _AXIS)
    page = Page(max(PAGE_WIDTH, left + width + MARGIN), top + panels + _FOOTER)
    page.write_heading(heading)

    middle = MARGIN + _PHOTO / 2
    show_veiled(page.axes(Slot(middle - size[0] / 2, top, *size)), photo, box)
    foot = (middle, top - 0.05)
    page.write("\n".join(title), foot, room=_PHOTO, size=NOTE_SIZE, above=True)

    grid = page.axes(Slot(left, top, width, height))
    size_of_labels = NOTE_SIZE * min(1.0, 0.9 * cell / label_width)
    _draw_grid(grid, blocks, values, limit, gap / cell, decimals, size_of_labels)
    grid.set_title("without the part minus with it", fontsize=TITLE_SIZE, pad=8)
    _draw_scale(page, limit, decimals)
    return page.figure


def _columns(blocks: Sequence[AblatedBlock]) -> tuple[int, bool]:
    """Number of columns of heads, and whether there is one of MLPs."""
    return max(len(block.heads) for block in blocks), any(b.mlp is not None for b in blocks)


def _grid(blocks: Sequence[AblatedBlock]) -> np.ma.MaskedArray[Any, Any]:
    """(blocks, columns) of changes; masked where a row has no such part."""
    num_heads, has_mlps = _columns(blocks)
    shape = (len(blocks), num_heads + has_mlps)
    values = np.ma.MaskedArray(np.zeros(shape), mask=np.ones(shape, dtype=bool))
    for row, block in enumerate(blocks):
        values[row, : len(block.heads)] = block.heads
        if block.mlp is not None:
            values[row, -1] = block.mlp
    return values


def _label(number: float, decimals: int) -> str:
    text = f"{number:+.{decimals}f}"
    return text.replace("-", "−") if float(text) else "0"


def _draw_grid(
    axes: Axes,
    blocks: Sequence[AblatedBlock],
    values: np.ma.MaskedArray[Any, Any],
    limit: float,
    gap: float,
    decimals: int,
    size: float,
) -> None:
    """The grid in units of a cell, the MLPs a gap away from the heads."""
    num_heads, has_mlps = _columns(blocks)
    rows = len(blocks)
    parts = [(values[:, :num_heads], 0.0)] if num_heads else []
    if has_mlps:
        parts.append((values[:, -1:], num_heads + gap))
    for part, start in parts:
        axes.imshow(
            part,
            cmap=DIVERGING_MAP,
            vmin=-(limit or 1),
            vmax=limit or 1,
            extent=(start, start + part.shape[1], rows, 0),
            aspect="auto",
            interpolation="nearest",
        )
        for row, col in zip(*np.nonzero(~np.ma.getmaskarray(part)), strict=True):
            number = float(part[row, col])
            colour = "white" if abs(number) > 0.6 * limit else "black"
            axes.text(
                start + col + 0.5,
                row + 0.5,
                _label(number, decimals),
                ha="center",
                va="center",
                size=size,
                color=colour,
            )
    places = [head + 0.5 for head in range(num_heads)]
    names = [str(head) for head in range(num_heads)]
    if has_mlps:
        places, names = [*places, num_heads + gap + 0.5], [*names, "MLP"]
    axes.set(xlim=(0, places[-1] + 0.5), ylim=(rows, 0))
    axes.set_xticks(places, names, fontsize=NOTE_SIZE)
    axes.set_yticks(
        [row + 0.5 for row in range(rows)], [block.name for block in blocks], fontsize=NOTE_SIZE
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if num_heads:
        axes.set_xlabel(
            "head" + (" (of each block, counted from 0)" if rows > 1 else ""), fontsize=NOTE_SIZE
        )


def _draw_scale(page: Page, limit: float, decimals: int) -> None:
    """The bar of colours at the left below the photo, with what its ends mean beside it."""
    top = page.height - 0.45
    axes = page.axes(Slot(MARGIN + 0.15, top, _SCALE, 0.13))
    axes.imshow(
        np.linspace(-1, 1, 256)[None], cmap=DIVERGING_MAP, aspect="auto", extent=(0, 1, 0, 1)
    )
    ends = [_label(-limit, decimals), "0", _label(limit, decimals)]
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1], ends)
    axes.tick_params(length=2, labelsize=NOTE_SIZE, pad=2)
    axes.spines[:].set_visible(False)
    lines = (
        "blue: the log-probability falls without the part, which the target depends on; red: it "
        "rises\nnatural logarithm; parts that stand in for each other both look as if they did "
        "not matter"
    )
    at = (MARGIN + _SCALE + 0.6, top - 0.06)
    page.write(lines, at, room=page.room - _SCALE - 0.6, size=NOTE_SIZE, align="left")
