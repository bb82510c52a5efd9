"""Panels: a photo, a map painted on it cell by cell, and what explains the colours.

Inside a panel all coordinates are pixels of the photo, counted at their edges: x runs from 0 at the
left edge of the first pixel to the width at the right edge of the last. Matplotlib's default puts 0
at the middle of the first pixel; with edges, cell (r, c) of a map that fills a box lies at::

    x: left + (right - left) · c / cols  …  (c + 1) / cols        y: the same with top, bottom, r

which is the patch that the model cut out. Photos are grey under a map, so that a colour always
means attention, and dark ones are lifted, or the map would swallow them; the map is a perceptually
uniform one whose hue alone tells the value. Where values have a middle, as ratios have, it is a
diverging one that is pale there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import matplotlib
import numpy as np
import torch.nn.functional as F
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.page import NOTE_SIZE, Page, Slot

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the photo."""

Scale = Literal["from zero", "own range", "signed"]

COLOUR_MAP = "viridis"
DIVERGING_MAP = "RdBu_r"
OPACITY = 0.5  # of a map: the photo stays readable below it
_LONGEST, _LONGEST_PHOTO = 1000, 3000  # pixels of a photo below maps, of one that stands alone


# ---- boxes ---------------------------------------------------------------------------------------


def whole_box(photo: Image.Image) -> Box:
    """The box of a photo itself."""
    return (0.0, 0.0, float(photo.width), float(photo.height))


def is_cropped(photo: Image.Image, box: Box) -> bool:
    """Whether a box leaves out more than half a pixel on some side of the photo."""
    return max(abs(a - b) for a, b in zip(box, whole_box(photo), strict=True)) > 0.5


def aspect_ratio(box: Box) -> float:
    """Width / height."""
    return (box[2] - box[0]) / (box[3] - box[1])


def cell_box(box: Box, grid_size: tuple[int, int], cell: tuple[int, int]) -> Box:
    """The part of the photo that one patch covers.

    Args:
        box: Region that the whole grid covers.
        grid_size: (rows, cols) of the grid.
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


# ---- photos --------------------------------------------------------------------------------------


def region_pixels(photo: Image.Image, box: Box, *, grey: bool = False) -> NDArray[np.uint8]:
    """A region of a photo, (height, width, 3), of moderate size.

    Args:
        photo: The photo, in any mode and size.
        box: Region of the photo, not necessarily of whole pixels.
        grey: Whether to drop the colours and to lift what is dark, for the ground of a map.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    scale = _LONGEST / side if grey else min(max(_LONGEST / side, 1), _LONGEST_PHOTO / side)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    region = to_rgb(photo).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(_lift(region.convert("L")).convert("RGB") if grey else region)


def _lift(grey: Image.Image) -> Image.Image:
    """Makes the brightest hundredth white and half of the pixels brighter than middle grey.

    A photo of which half is brighter already stays as it is. Of ways to draw over night photos this
    one leaves both to be seen: where colours take the photo's own brightness they glow or drown,
    and outlines of a fine grid hide more of the photo than they show of the map.
    """
    counts = np.cumsum(grey.histogram())
    middle, white = np.searchsorted(counts, (0.5 * counts[-1], 0.99 * counts[-1]))
    if middle >= 128:
        return grey
    levels = np.arange(256) / max(int(white), 1)
    # The power that takes the median to 1/2, at most the one that takes 1/7 there.
    power = max(0.35, math.log(0.5) / math.log(min(max(levels[middle], 1e-3), 0.999)))
    lifted = np.rint(255 * np.minimum(levels, 1) ** min(power, 1)).astype(int)
    return grey.point(lifted.tolist())


def show_pixels(axes: Axes, pixels: NDArray[np.uint8], box: Box) -> None:
    """Fills empty axes with `region_pixels` of a box; they then count in the photo's pixels.

    To shrink a large photo takes longer than all else: panels of one region share its pixels.
    """
    left, top, right, bottom = box
    axes.imshow(pixels, extent=(left, right, bottom, top), aspect="auto", origin="upper")
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def show_photo(axes: Axes, photo: Image.Image, box: Box, *, grey: bool = False) -> None:
    """Fills empty axes with a region of a photo, by the two functions above."""
    show_pixels(axes, region_pixels(photo, box, grey=grey), box)


def show_veiled(axes: Axes, photo: Image.Image, box: Box) -> None:
    """Fills empty axes with a whole photo; a veil lies on all that is outside of a region."""
    whole = whole_box(photo)
    show_photo(axes, photo, whole)
    if not is_cropped(photo, box):
        return
    (_, _, width, height), (left, top, right, bottom) = whole, box
    for x, y, veil_width, veil_height in (
        (0.0, 0.0, width, top),
        (0.0, bottom, width, height - bottom),
        (0.0, top, left, bottom - top),
        (right, top, width - right, bottom - top),
    ):
        if veil_width > 0 and veil_height > 0:
            veil = Rectangle(
                (x, y), veil_width, veil_height, facecolor="white", alpha=0.65, linewidth=0
            )
            axes.add_patch(veil)
    outline(axes, box, linewidth=0.7)


# ---- maps ----------------------------------------------------------------------------------------


def overlay(
    axes: Axes,
    weights: Tensor,
    box: Box,
    *,
    smooth: bool = False,
    scale: Scale = "from zero",
    maximum: float | None = None,
    ratios_to: float | None = None,
    colour_map: str = COLOUR_MAP,
) -> AxesImage:
    """Lays a map over a photo, coloured from 0 to its own maximum unless another scale is chosen.

    A box may reach over the edges of what the axes show: cells are cut there.

    Args:
        axes: Axes that show the photo.
        weights: Map (rows, cols); values that are not negative, unless the scale is for others.
        box: Region that the model saw.
        smooth: Whether to interpolate between the middles of the cells; otherwise each cell is one
            rectangle, which is all that the model knows.
        scale: "from zero" to the maximum; "own range", from the minimum to the maximum; or
            "signed", over 0, which is pale, as far down as up, to the value farthest from 0.
        maximum: End of a scale "from zero" that several maps share; None: the map's own maximum.
        ratios_to: Limit L, above 1, for maps of ratios: colours lie on a logarithmic scale from 1/L
            over 1, which is pale, to L. A value outside takes the colour of its end.
        colour_map: Name of matplotlib's colour map, for scales without a middle.

    Returns:
        The map as matplotlib draws it, with the colour scale.
    """
    lowest, largest = float(weights.min()), float(weights.max())
    if smooth:
        # Each cell becomes a block of finer ones in its own place, hence no shift; what lies
        # beyond the outermost middles is continued flat.
        finer = max(2, 512 // max(weights.shape))
        weights = F.interpolate(
            weights[None, None].float(), scale_factor=finer, mode="bilinear", align_corners=False
        )[0, 0]
    left, top, right, bottom = box
    norm: Normalize = Normalize(0, (largest if maximum is None else maximum) or 1)
    if scale == "own range":
        norm = Normalize(lowest, largest)
    elif scale == "signed":
        farthest = max(-lowest, largest) or 1
        norm = Normalize(-farthest, farthest)
    if ratios_to is not None:
        norm = LogNorm(1 / ratios_to, ratios_to)
        weights = weights.clamp(1 / ratios_to, ratios_to)  # or the logarithm of 0 would be a hole
    return axes.imshow(
        weights.cpu().numpy(),
        cmap=_translucent(colour_map if ratios_to is None and scale != "signed" else DIVERGING_MAP),
        norm=norm,
        interpolation="nearest",
        extent=(left, right, bottom, top),
        origin="upper",
        aspect="auto",
    )


def _translucent(colour_map: str) -> ListedColormap:
    """A colour map of matplotlib whose colours let the photo through.

    The opacity of an image (`alpha=`) counts twice in SVG files, where matplotlib puts the images
    of an axes together (findings/matplotlib_composite_applies_alpha_twice.sh).
    """
    colours = matplotlib.colormaps[colour_map](np.linspace(0, 1, 256))
    colours[:, 3] = OPACITY
    return ListedColormap(colours, name=colour_map)


def add_scale(
    page: Page, slot: Slot, labels: Mapping[float, str], *, colour_map: str = COLOUR_MAP
) -> None:
    """Draws the colours of a map as they look over a photo of middling brightness.

    Args:
        page: The page.
        slot: Place of the bar; the labels stand below it.
        labels: Words below the bar, by their place from 0 at the left to 1 at the right.
        colour_map: Name of matplotlib's colour map.
    """
    axes = page.axes(slot)
    axes.set_facecolor("0.5")
    axes.imshow(
        np.linspace(0, 1, 256)[None],
        cmap=_translucent(colour_map),
        aspect="auto",
        extent=(0, 1, 0, 1),
    )
    axes.set_yticks([])
    axes.set_xticks(list(labels), list(labels.values()))
    axes.tick_params(length=2, labelsize=NOTE_SIZE, pad=2)
    axes.spines[:].set_visible(False)


def require_finite(name: str, values: Tensor, shape: str, num_dimensions: int) -> None:
    """Raises a ValueError for values of another shape, or that are not finite."""
    if values.dim() != num_dimensions:
        raise ValueError(f"{name}: found shape {tuple(values.shape)}, expected {shape}")
    if not values.isfinite().all():
        raise ValueError(f"{name}: found values that are not finite; the weights are damaged")


def outline_mask(axes: Axes, mask: Tensor, *, linewidth: float = 1.0) -> None:
    """Draws the border of a mask (height, width) of the whole photo, as `outline` does of a box."""
    height, width = mask.shape
    step = max(1, max(height, width) // _LONGEST)
    # A pixel of nothing all around: without it a border along the photo's edge would be left open.
    pixels = F.pad(mask[::step, ::step].float(), (1, 1, 1, 1)).cpu().numpy()
    x = (np.arange(pixels.shape[1]) - 0.5) * step
    y = (np.arange(pixels.shape[0]) - 0.5) * step
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    border = axes.contour(x, y, pixels, levels=[0.5], colors="white", linewidths=linewidth)
    border.set_path_effects([patheffects.withStroke(linewidth=2 * linewidth, foreground="black")])
    axes.set(**limits)


def outline(axes: Axes, box: Box, *, linewidth: float = 1.5, clip: bool = False) -> None:
    """Draws a frame that shows on dark and on bright photos.

    Args:
        axes: Axes that show the photo.
        box: Box to frame.
        linewidth: Width of the white line in points.
        clip: Whether the frame ends at the panel's edges; one along them would lose half of itself.
    """
    left, top, right, bottom = box
    frame = Rectangle(
        (left, top),
        right - left,
        bottom - top,
        fill=False,
        edgecolor="white",
        linewidth=linewidth,
        clip_on=clip,
    )
    frame.set_path_effects([patheffects.withStroke(linewidth=2 * linewidth, foreground="black")])
    axes.add_patch(frame)
