"""Figures of a classifier: what it takes for what, its worst mistakes, and several runs compared.

Names of classes and runs are foreign text and may be long: each has a measured place in which it is
shortened in its middle or broken into lines, never clipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.page import (
    axes_at,
    blank_page,
    line_height,
    one_line,
    text_width,
    wrap_lines,
    write_lines,
)
from minivit.viz.panels import (
    Box,
    add_scale,
    region_pixels,
    require_finite,
    show_map,
    show_pixels,
)

_MARGIN, _GAP = 0.3, 0.08  # inches
_PAGE = 11.0


# ---- confusion -----------------------------------------------------------------------------------

_SHARES = "Blues"
_SMALLEST = 5.5  # points, of letters and digits
_LONGEST_NAME = 2.6  # inches
_BAR = 2.4


def confusion_figure(confusion: Tensor, class_names: Sequence[str]) -> Figure:
    """How often photos of each class (row) were called which (column).

    Colours are shares of a row, on a scale that rises as the square root does, so that a few photos
    of a hundred are seen; a class without photos is grey. The numbers are photos, and stand in the
    cells where the largest of them fits. Of very many classes only some are named.

    Args:
        confusion: (K, K), photos by [truth, said].
        class_names: Of the K classes.

    Raises:
        ValueError: Another shape, or another number of names.
    """
    num_classes = len(class_names)
    if not num_classes or confusion.shape != (num_classes, num_classes):
        found = f"confusion of shape {tuple(confusion.shape)} and {num_classes} names"
        raise ValueError(f"{found}; expected (classes, classes), and a name of each class")
    counts = confusion.detach().cpu().double().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)

    cell = max(0.02, min(0.9, max(7.5 / num_classes, 0.26), 14.5 / num_classes))
    side = cell * num_classes
    size = min(9.0, max(_SMALLEST, 0.66 * 72 * cell))
    step = math.ceil(line_height(size) / 1.12 / cell)  # from one name to the next
    names = {index: one_line(class_names[index]) for index in range(0, num_classes, step)}
    room = min(_LONGEST_NAME, max(text_width(name, size) for name in names.values()) + 0.02)
    level = room <= 0.9 * cell * step  # names below the columns need no turning

    before, below = room + 0.4, (line_height(size) if level else room) + 0.1  # names and axis
    wide = max(before + side + 2 * _MARGIN, 2 * _MARGIN + _BAR + 3.6)
    top, left = 0.25, (wide - before - side) / 2 + before
    bottom = top + side + below
    figure = blank_page(wide, bottom + 0.95)
    axes = axes_at(figure, (left, top, side, side))
    image = axes.imshow(
        shares,
        cmap=matplotlib.colormaps[_SHARES].with_extremes(bad="0.85"),
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
        aspect="auto",
        origin="upper",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.5", linewidth=0.5)
    if cell >= 0.1:
        for edge in np.arange(0.5, num_classes - 1):
            axes.axhline(edge, color="0.85", linewidth=0.4)
            axes.axvline(edge, color="0.85", linewidth=0.4)
    for index, name in names.items():
        middle = (index + 0.5) * cell
        write_lines(figure, left - 0.06, top + middle, name, room, size, align="right")
        figure.texts[-1].set(va="center")
        write_lines(figure, left + middle, top + side + 0.06, name, room, size)
        figure.texts[-1].set(rotation=0 if level else 90)
    write_lines(figure, left + side / 2, bottom, "said", 1, 10)
    write_lines(figure, left - before + 0.1, top + side / 2, "truth", 1, 10)
    figure.texts[-1].set(rotation=90, va="center")

    notes = ["colour: share of the photos of a class (a row) that were called so"]
    notes += ["numbers: photos"] if _write_counts(axes, counts, shares, cell) else []
    notes += ["grey: no photos of that class"] if not totals.all() else []
    _explain_shares(figure, image, bottom + 0.33, "; ".join(notes))
    return figure


def _explain_shares(figure: Figure, image: AxesImage, top: float, notes: str) -> None:
    """The scale of the colours, and what a reader has to know, from `top` inches on."""
    scale = axes_at(figure, (_MARGIN, top + 0.05, _BAR, 0.13))
    bar = figure.colorbar(image, cax=scale, orientation="horizontal", ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.set_ticklabels(["0", "5", "25", "50", "100 %"])
    bar.outline.set_visible(False)
    scale.tick_params(length=2, labelsize=8, pad=2)
    left = _MARGIN + _BAR + 0.35
    room = figure.get_figwidth() - _MARGIN - left
    write_lines(figure, left, top, "\n".join(wrap_lines(notes, room, 8, 3)), room, 8, align="left")


def _write_counts(
    axes: Axes, counts: NDArray[np.float64], shares: NDArray[np.float64], cell: float
) -> bool:
    """Writes the number of photos into each cell that has some, if the longest number fits."""
    longest = text_width(f"{counts.max():.0f}", 10.0)
    size = min(10.0, 10.0 * 0.84 * cell / longest, 0.62 * 72 * cell)
    if size < _SMALLEST:
        return False
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            f"{counts[row, column]:.0f}",
            size=size,
            ha="center",
            va="center_baseline",
            color="white" if shares[row, column] > 0.4 else "black",
        )
    return True


# ---- mistakes ------------------------------------------------------------------------------------

_PAIRS_A_ROW = 3
_TALLEST = 3.0
_TITLE_SIZE, _TITLE_LINES = 8.5, 3


def mistakes_figure(images: Sequence[Image.Image], maps: Tensor, titles: Sequence[str]) -> Figure:
    """Photos, each beside what the class token looked at, in rows of three pairs.

    Panels are `figure.axes`, photo and overlay of the first picture first, the bar of colours last.
    Every picture keeps its shape.

    Args:
        images: Whole as the model saw them, `Preprocess.view`; of any sizes.
        maps: (n, rows, cols), one map a picture.
        titles: One a picture, at most three lines of it are shown.

    Raises:
        ValueError: No picture, not as many of each, or maps that are not finite.
    """
    require_finite("attention", maps, "(pictures, rows, cols)", 3)
    if not len(images) == len(maps) == len(titles) or not images:
        raise ValueError(
            f"{len(images)} pictures, {len(maps)} maps and {len(titles)} titles; expected as many "
            "of each, one or more"
        )
    maps = maps.detach().float().cpu()
    cols = min(_PAIRS_A_ROW, len(images))
    between = 3 * _GAP
    room = (_PAGE - 2 * _MARGIN + between) / _PAIRS_A_ROW - between
    half = (room - _GAP) / 2
    boxes = [_fit(image, half) for image in images]
    lines = [wrap_lines(title, room, _TITLE_SIZE, _TITLE_LINES) for title in titles]

    wide = max(cols * (room + between) - between + 2 * _MARGIN, 6.0)
    note = "colour: attention of the class token, each picture from 0 to its own maximum"
    notes = wrap_lines(note, wide - 2 * _MARGIN - 2.2, 8, 2)
    tops, down = [], 0.15
    for first in range(0, len(images), cols):
        row = range(first, min(first + cols, len(images)))
        down += max(len(lines[index]) for index in row) * line_height(_TITLE_SIZE) + 0.06
        tops.append(down)
        down += max(boxes[index][1] for index in row) + 0.15
    figure = blank_page(wide, down + 0.65)
    start = (wide - cols * (room + between) + between) / 2
    for index, (image, (width, height)) in enumerate(zip(images, boxes, strict=True)):
        top, left = tops[index // cols], start + index % cols * (room + between)
        text = "\n".join(lines[index])
        write_lines(figure, left, top - 0.04, text, room, _TITLE_SIZE, above=True, align="left")
        whole: Box = (0.0, 0.0, float(image.width), float(image.height))
        plain = axes_at(figure, (left, top, width, height))
        overlay = axes_at(figure, (left + width + _GAP, top, width, height))
        image = to_rgb(image)
        show_pixels(plain, region_pixels(image, whole), whole)
        show_pixels(overlay, region_pixels(image, whole, grey=True), whole)
        show_map(overlay, maps[index], whole)
    left, room = _MARGIN + 2.2, wide - 2 * _MARGIN - 2.2
    write_lines(figure, left, down + 0.1, "\n".join(notes), room, 8, align="left")
    add_scale(figure, (_MARGIN, down + 0.17, 1.6, 0.13), {0: "0", 1: "maximum"})
    return figure


def _fit(image: Image.Image, room: float) -> tuple[float, float]:
    """(width, height) in inches of a picture in a place of that width."""
    width = min(room, _TALLEST * image.width / image.height)
    return width, width * image.height / image.width
