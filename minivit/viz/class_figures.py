"""Figures of a classifier: what it takes for what, and its worst mistakes.

Names of classes are foreign text and may be long: each has a measured place in which it is
shortened in its middle or broken into lines, never clipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minivit.fields import renamed_arguments
from minivit.preprocess import to_rgb
from minivit.viz.page import (
    HEADING_SIZE,
    MARGIN,
    NOTE_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Page,
    Slot,
    line_height,
    one_line,
    stack_rows,
    text_width,
    wrap_lines,
)
from minivit.viz.panels import (
    add_scale,
    overlay,
    region_pixels,
    require_finite,
    show_pixels,
    whole_box,
)

# ---- confusion -----------------------------------------------------------------------------------

_FRACTIONS = "Blues"
_SMALLEST_SIZE, _LARGEST_NAME_SIZE = 5.5, 9.0  # points; the first also of digits
_LONGEST_NAME = 2.6  # inches
_BAR = 2.4


def confusion_figure(confusion: Tensor, class_names: Sequence[str], *, heading: str = "") -> Figure:
    """How often photos of each class (row) were called which (column).

    Colours are fractions of a row, on a scale that rises as the square root does, so that a few
    photos of a hundred are seen; a class without photos is grey. The numbers are photos, and stand
    in the cells where the largest of them fits. Of very many classes only some are named.

    Args:
        confusion: Photos (K, K) by [truth, answer].
        class_names: Names of the K classes.
        heading: Text above the figure, one line.

    Raises:
        ValueError: Another shape, or another number of names.
    """
    num_classes = len(class_names)
    if not num_classes or confusion.shape != (num_classes, num_classes):
        raise ValueError(
            f"confusion of shape {tuple(confusion.shape)} and {num_classes} names; expected "
            "(classes, classes), and a name of each class"
        )
    counts = confusion.detach().cpu().double().numpy()
    totals = counts.sum(axis=1, keepdims=True)
    fractions = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)

    cell = max(0.02, min(0.9, max(7.5 / num_classes, 0.26), 14.5 / num_classes))
    side = cell * num_classes
    names = _Names.beside(class_names, cell)
    before = names.room + 0.4  # of the matrix: its names and the word "truth"
    width = max(before + side + 2 * MARGIN, 2 * MARGIN + _BAR + 3.6)
    left, top = (width - before - side) / 2 + before, 0.25 + _room_for(heading)
    matrix = Slot(left, top, side, side)
    bottom = matrix.top + side + names.height + 0.1
    page = Page(width, bottom + 0.95)
    if heading:
        page.write_heading(one_line(heading))

    axes = page.axes(matrix)
    colours = _draw_matrix(axes, fractions, cell)
    names.write(page, matrix, cell)
    page.write("said", (matrix.center, bottom), room=1, size=TITLE_SIZE)
    at = (matrix.left - before + 0.1, matrix.top + side / 2)
    (truth,) = page.write("truth", at, room=1, size=TITLE_SIZE)
    truth.set(rotation=90, va="center")

    notes = ["colour: share of the photos of a class (a row) that were called so"]
    notes += ["numbers: photos"] if _write_counts(axes, counts, fractions, cell) else []
    notes += ["grey: no photos of that class"] if not totals.all() else []
    _explain_colours(page, colours, bottom + 0.33, "; ".join(notes))
    return page.figure


@dataclass(frozen=True)
class _Names:
    """Names of classes on two sides of a matrix.

    Attributes:
        shown: Names by the number of their class: all, or as many as fit.
        size: Size of the letters in points.
        room: Width for a name in inches.
        turned: Whether names below the columns stand upright.
    """

    shown: Mapping[int, str]
    size: float
    room: float
    turned: bool

    @classmethod
    def beside(cls, class_names: Sequence[str], cell: float) -> _Names:
        """Names that fit beside cells of that many inches."""
        size = min(_LARGEST_NAME_SIZE, max(_SMALLEST_SIZE, 0.66 * 72 * cell))
        step = math.ceil(line_height(size) / 1.12 / cell)  # from one name to the next
        shown = {index: one_line(class_names[index]) for index in range(0, len(class_names), step)}
        longest = max(text_width(name, size) for name in shown.values()) + 0.02
        room = min(_LONGEST_NAME, longest)
        return cls(shown, size, room, turned=room > 0.9 * cell * step)

    @property
    def height(self) -> float:
        """Height of the names below the columns."""
        return self.room if self.turned else line_height(self.size)

    def write(self, page: Page, matrix: Slot, cell: float) -> None:
        """Writes each name at the left of its row and below its column."""
        foot = matrix.top + matrix.height + 0.06
        for index, name in self.shown.items():
            middle = (index + 0.5) * cell
            at = (matrix.left - 0.06, matrix.top + middle)
            (beside,) = page.write(name, at, room=self.room, size=self.size, align="right")
            beside.set(va="center")
            at = (matrix.left + middle, foot)
            (below,) = page.write(name, at, room=self.room, size=self.size)
            below.set(rotation=90 if self.turned else 0)


def _draw_matrix(axes: Axes, fractions: NDArray[np.float64], cell: float) -> AxesImage:
    drawn = axes.imshow(
        fractions,
        cmap=matplotlib.colormaps[_FRACTIONS].with_extremes(bad="0.85"),
        norm=PowerNorm(0.5, 0, 1),
        interpolation="nearest",
        aspect="auto",
        origin="upper",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.5", linewidth=0.5)
    if cell >= 0.1:
        for edge in np.arange(0.5, len(fractions) - 1):
            axes.axhline(edge, color="0.85", linewidth=0.4)
            axes.axvline(edge, color="0.85", linewidth=0.4)
    return drawn


def _write_counts(
    axes: Axes, counts: NDArray[np.float64], fractions: NDArray[np.float64], cell: float
) -> bool:
    """Writes the number of photos into each cell that has some, if the longest number fits."""
    longest = text_width(f"{counts.max():.0f}", TITLE_SIZE)
    size = min(TITLE_SIZE, TITLE_SIZE * 0.84 * cell / longest, 0.62 * 72 * cell)
    if size < _SMALLEST_SIZE:
        return False
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.text(
            column,
            row,
            f"{counts[row, column]:.0f}",
            size=size,
            ha="center",
            va="center_baseline",
            color="white" if fractions[row, column] > 0.4 else "black",
        )
    return True


def _explain_colours(page: Page, colours: AxesImage, top: float, notes: str) -> None:
    """The scale of the colours, and what a reader has to know, from `top` inches on."""
    scale = page.axes(Slot(MARGIN, top + 0.05, _BAR, 0.13))
    bar = page.figure.colorbar(
        colours, cax=scale, orientation="horizontal", ticks=[0, 0.05, 0.25, 0.5, 1]
    )
    bar.set_ticklabels(["0", "5", "25", "50", "100 %"])
    bar.outline.set_visible(False)
    scale.tick_params(length=2, labelsize=NOTE_SIZE, pad=2)
    left = MARGIN + _BAR + 0.35
    room = page.width - MARGIN - left
    text = "\n".join(wrap_lines(notes, room, NOTE_SIZE, 3))
    page.write(text, (left, top), room=room, size=NOTE_SIZE, align="left")


def _room_for(heading: str) -> float:
    """Height in inches of a heading of one line."""
    return 0.1 + line_height(HEADING_SIZE) if heading else 0.0


# ---- mistakes ------------------------------------------------------------------------------------

_GAP, _BETWEEN = 0.08, 0.24  # inches, between photo and overlay, and between pairs
_PAIRS_IN_ROW = 3
_PAIR = (PAGE_WIDTH - 2 * MARGIN + _BETWEEN) / _PAIRS_IN_ROW - _BETWEEN  # width of a pair
_TALLEST = 3.0
_PAIR_TITLE_SIZE, _TITLE_LINES = 8.5, 3
_SCALE, _NOTES = 1.6, 2.2  # width of the bar of colours, and where the notes beside it begin


@renamed_arguments(images="pictures")
def mistakes_figure(
    pictures: Sequence[Image.Image], maps: Tensor, titles: Sequence[str], *, heading: str = ""
) -> Figure:
    """Photos, each beside what the class token looked at, in rows of three pairs.

    Panels are `figure.axes`, photo and overlay of the first picture first, the bar of colours last.
    Every picture keeps its shape.

    Args:
        pictures: Pictures whole as the model saw them, `Preprocess.view`; of any sizes.
        maps: Maps (n, rows, cols), one a picture.
        titles: Titles, one a picture; at most three lines of each are shown.
        heading: Text above the figure, one line.

    Raises:
        ValueError: No picture, not as many of each, or maps that are not finite.
    """
    require_finite("attention", maps, "(pictures, rows, cols)", 3)
    if not len(pictures) == len(maps) == len(titles) or not pictures:
        raise ValueError(
            f"{len(pictures)} pictures, {len(maps)} maps and {len(titles)} titles; expected as "
            "many of each, one or more"
        )
    maps = maps.detach().float().cpu()
    sizes = [_fit(picture) for picture in pictures]
    lines = [wrap_lines(title, _PAIR, _PAIR_TITLE_SIZE, _TITLE_LINES) for title in titles]
    cols = min(_PAIRS_IN_ROW, len(pictures))
    tops, bottom = stack_rows(
        [len(title) * line_height(_PAIR_TITLE_SIZE) for title in lines],
        [height for _, height in sizes],
        columns=cols,
        top=0.15 + _room_for(heading),
        gap=0.15,
    )
    width = cols * (_PAIR + _BETWEEN) - _BETWEEN
    page = Page(max(width + 2 * MARGIN, 6.0), bottom + 0.65)
    if heading:
        page.write_heading(one_line(heading))

    for index, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        left = (page.width - width) / 2 + index % cols * (_PAIR + _BETWEEN)
        top = tops[index // cols]
        text, at = "\n".join(lines[index]), (left, top - 0.04)
        page.write(text, at, room=_PAIR, size=_PAIR_TITLE_SIZE, above=True, align="left")
        _show_pair(page, Slot(left, top, *size), to_rgb(picture), maps[index])
    note = "colour: attention of the class token, each picture from 0 to its own maximum"
    room = page.room - _NOTES
    text, at = "\n".join(wrap_lines(note, room, NOTE_SIZE, 2)), (MARGIN + _NOTES, bottom + 0.1)
    page.write(text, at, room=room, size=NOTE_SIZE, align="left")
    add_scale(page, Slot(MARGIN, bottom + 0.17, _SCALE, 0.13), {0: "0", 1: "maximum"})
    return page.figure


def _fit(picture: Image.Image) -> tuple[float, float]:
    """Width and height in inches of one half of a pair."""
    width = min((_PAIR - _GAP) / 2, _TALLEST * picture.width / picture.height)
    return width, width * picture.height / picture.width


def _show_pair(page: Page, slot: Slot, picture: Image.Image, weights: Tensor) -> None:
    """A picture in its slot, and at its right the same under its map."""
    whole = whole_box(picture)
    plain = page.axes(slot)
    painted = page.axes(Slot(slot.left + slot.width + _GAP, slot.top, slot.width, slot.height))
    show_pixels(plain, region_pixels(picture, whole), whole)
    show_pixels(painted, region_pixels(picture, whole, grey=True), whole)
    overlay(painted, weights, whole)
