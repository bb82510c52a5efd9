"""Panels: a place on a page, a photo, a map painted on it cell by cell, and words that fit.

Pages are measured in inches from their top left, and no layout engine decides: every panel has the
shape of what it shows, and neither a long title nor a slim photo moves another one.

Inside a panel all coordinates are pixels of the photo, counted at their edges: x runs from 0 at the
left edge of the first pixel to the width at the right edge of the last. Matplotlib's default puts 0
at the middle of the first pixel; with edges, cell (r, c) of a map that fills a box lies at::

    x: left + (right - left) · c / cols  …  (c + 1) / cols        y: the same with top, bottom, r

which is the patch that the model cut out. Photos are grey under a map, so that a colour always
means attention; the map is a perceptually uniform one whose hue alone tells the value.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the photo."""

COLOUR_MAP = "viridis"
OPACITY = 0.5  # of a map: the photo stays readable below it
DPI = 140
_LONGEST = 1000  # pixels of a photo in a figure


# ---- the page ---------------------------------------------------------------------------------


def blank_page(width: float, height: float) -> Figure:
    """An empty white page of a size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, slot: Sequence[float]) -> Axes:
    """Axes at (left, top, width, height) inches from the page's top left."""
    left, top, width, height = slot
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write_lines(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    room: float,
    size: float,
    *,
    above: bool = False,
    align: str = "center",
) -> None:
    """Writes lines below (or above) a point in inches, each shortened in its middle to fit.

    File names and labels are foreign text: dollar signs stay what they are, and characters that
    cannot be drawn become boxes without a warning.
    """
    wide, high = figure.get_size_inches()
    lines = text.split("\n")
    step = 1.3 * size / 72
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for index, line in enumerate(reversed(lines) if above else lines):
            line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
            height = 1 - (y - index * step if above else y + index * step) / high
            artist = figure.text(
                x / wide,
                height,
                line,
                size=size,
                ha=align,
                va="bottom" if above else "top",
                parse_math=False,
            )
            keep = min(len(line), 250)
            while keep > 1:
                excess = artist.get_window_extent().width / (room * figure.dpi)
                if excess <= 1:
                    break
                keep = min(keep - 1, int(keep / excess))
                artist.set_text(line[: (keep + 1) // 2] + "…" + line[len(line) - keep // 2 :])


# ---- photo and map ----------------------------------------------------------------------------


def cell_box(box: Box, grid_size: tuple[int, int], cell: tuple[int, int]) -> Box:
    """The part of the photo that one patch covers.

    Args:
        box: The region that the whole grid covers.
        grid_size: (rows, cols).
        cell: (row, col), counted from 0.
    """
    left, top, right, bottom = box
    (rows, cols), (row, col) = grid_size, cell
    width, height = (right - left) / cols, (bottom - top) / rows
    return (
        left + width * col,
        top + height * row,
        left + width * (col + 1),
        top + height * (row + 1),
    )


def show_photo(axes: Axes, photo: Image.Image, box: Box, *, grey: bool = False) -> None:
    """Fills the axes with a region of a photo; the axes then count in the photo's pixels.

    Args:
        axes: Empty axes.
        photo: In any mode and size; a copy of moderate size is drawn.
        box: The region, not necessarily whole pixels.
        grey: Without its colours, as the ground of a map.
    """
    left, top, right, bottom = box
    scale = _LONGEST / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    region = to_rgb(photo).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    pixels = np.asarray(region.convert("L").convert("RGB") if grey else region)
    axes.imshow(pixels, extent=(left, right, bottom, top), aspect="auto", origin="upper")
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_map(axes: Axes, weights: Tensor, box: Box, *, smooth: bool = False) -> AxesImage:
    """Lays an attention map over a photo, coloured from 0 to its own maximum.

    Args:
        axes: Showing the photo.
        weights: (rows, cols), not negative.
        box: The region that the model saw.
        smooth: Interpolate between the middles of the cells; otherwise each cell is one rectangle,
            which is all that the model said.

    Returns:
        The image, with the colour scale.
    """
    largest = float(weights.max())
    if smooth:
        # Each cell becomes a block of finer ones in its own place, hence no shift; what lies
        # beyond the outermost middles is continued flat.
        finer = max(2, 512 // max(weights.shape))
        weights = F.interpolate(
            weights[None, None].float(), scale_factor=finer, mode="bilinear", align_corners=False
        )[0, 0]
    left, top, right, bottom = box
    return axes.imshow(
        weights.cpu().numpy(),
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=largest or 1,
        alpha=OPACITY,
        interpolation="nearest",
        extent=(left, right, bottom, top),
        origin="upper",
        aspect="auto",
    )


def outline(axes: Axes, box: Box, *, linewidth: float = 1.5) -> None:
    """Draws a frame that shows on dark and on bright photos."""
    left, top, right, bottom = box
    frame = Rectangle(
        (left, top),
        right - left,
        bottom - top,
        fill=False,
        edgecolor="white",
        linewidth=linewidth,
        clip_on=False,
    )
    frame.set_path_effects([patheffects.withStroke(linewidth=2 * linewidth, foreground="black")])
    axes.add_patch(frame)


def dim_outside(axes: Axes, photo_size: tuple[int, int], box: Box) -> None:
    """Veils what lies outside of a region.

    Args:
        axes: Showing the whole photo.
        photo_size: (width, height) in pixels, as Pillow gives it.
        box: The region that stays clear.
    """
    (width, height), (left, top, right, bottom) = photo_size, box
    for x, y, wide, high in (
        (0.0, 0.0, width, top),
        (0.0, bottom, width, height - bottom),
        (0.0, top, left, bottom - top),
        (right, top, width - right, bottom - top),
    ):
        if wide > 0 and high > 0:
            veil = Rectangle((x, y), wide, high, facecolor="white", alpha=0.65, linewidth=0)
            axes.add_patch(veil)
