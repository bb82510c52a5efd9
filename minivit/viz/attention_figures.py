"""Whole figures: one photo with all its attention maps, and the grid of position similarities.

`minivit.viz.page` and `panels` have what they are made from; here is which panel stands where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from einops import rearrange
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.page import DPI, axes_at, blank_page, write_lines
from minivit.viz.panels import (
    COLOUR_MAP,
    Box,
    add_scale,
    cell_box,
    dim_outside,
    outline,
    region_pixels,
    require_finite,
    show_map,
    show_photo,
    show_pixels,
)

_MARGIN, _GAP = 0.3, 0.15  # inches
_HEADING, _TITLE, _FOOTER = 0.6, 0.42, 0.62  # height of two lines above the page, a panel, below
_TALLEST = 5.0
_PAGE = 11.0
_NARROWEST = 3.0  # a title has this much room, however slim the photo


def attention_figure(
    photo: Image.Image,
    box: Box,
    maps: Tensor,
    *,
    num_tokens: int,
    heads: Sequence[int] | None = None,
    query: tuple[int, int] | None = None,
    smooth: bool = False,
    heading: str = "",
    photo_title: str = "",
) -> Figure:
    """The photo, the map of all heads averaged, and the map of each head, laid over the photo.

    The first panel is the whole photo, with what the model did not see veiled; the others show the
    region that it saw. Panels are `figure.axes` in this order, in pixels of the photo, the bar of
    colours last.

    Args:
        photo: The photo, upright.
        box: The region that the grid covers, (left, top, right, bottom) in the photo's pixels:
            `Preprocess.crop_box`.
        maps: (H, rows, cols), what one query gave to each patch, head by head.
        num_tokens: N, over which each head's attention sums to 1; patches and prefix tokens.
        heads: Which heads get a panel; None: all. The average is of all in any case.
        query: (row, col) of the patch that looks, to be outlined; None for a prefix token.
        smooth: Whether to interpolate between the middles of the patches.
        heading: Above the figure, at most two lines.
        photo_title: Above the photo, at most two lines.

    Raises:
        ValueError: `maps` is not (H, rows, cols), or holds values that are not finite.
    """
    require_finite("attention", maps, "(heads, rows, cols)", 3)
    photo, maps = to_rgb(photo), maps.detach().float().cpu()
    heads = range(len(maps)) if heads is None else heads
    whole: Box = (0.0, 0.0, float(photo.width), float(photo.height))
    cropped = max(abs(a - b) for a, b in zip(box, whole, strict=True)) > 0.5
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    page, slots = _arrange(photo.width / photo.height, aspect, len(heads))

    figure = blank_page(*page)
    write_lines(figure, page[0] / 2, 0.1, heading, page[0] - 2 * _MARGIN, 12)
    photo_axes, mean_axes, *head_axes = [axes_at(figure, slot[:4]) for slot in slots]
    show_photo(photo_axes, photo, whole)
    if cropped:
        dim_outside(photo_axes, photo.size, box)
        outline(photo_axes, box, linewidth=0.7)
    titles = [photo_title, _describe("mean of all heads", maps.mean(0), num_tokens)]
    titles += [_describe(f"head {head}", maps[head], num_tokens) for head in heads]
    for (left, top, width, _, room), title in zip(slots, titles, strict=True):
        size = 10 if room >= _NARROWEST else 7.5
        write_lines(figure, left + width / 2, top - 0.04, title, room, size, above=True)
    ground = region_pixels(photo, box, grey=True)
    for axes, weights in zip(
        [mean_axes, *head_axes], [maps.mean(0), *(maps[head] for head in heads)], strict=True
    ):
        show_pixels(axes, ground, box)
        show_map(axes, weights, box, smooth=smooth)
    if query is not None:
        looks = cell_box(box, (maps.shape[1], maps.shape[2]), query)
        for index, axes in enumerate([photo_axes, mean_axes, *head_axes]):
            outline(axes, looks, linewidth=1.5 if index < 2 else 1.0)

    add_scale(figure, (_MARGIN, page[1] - _FOOTER + 0.2, 1.6, 0.13), {0: "0", 1: "maximum"})
    notes = [
        f"colour: attention weight, from 0 to the maximum that the panel's title gives; uniform: "
        f"{1 / num_tokens:.3g}, the same for all {num_tokens} tokens",
        "each map is of one query: what it looks at, as softmax gave it"
        + ("; outlined: the patch that looks" if query is not None else "")
        + ("; veiled: outside of what the model saw" if cropped else ""),
    ]
    room = page[0] - 2 * _MARGIN - 2.2
    write_lines(
        figure, _MARGIN + 2.2, page[1] - _FOOTER + 0.12, "\n".join(notes), room, 8, align="left"
    )
    return figure


def positions_figure(similarity: Tensor, *, heading: str = "") -> Figure:
    """How similar the position embedding of each patch is to all others (ViT paper, figure 7).

    The map in place (r, c) shows the cosine similarity of patch (r, c) to every patch, laid out as
    the grid is. Colours run from the least similar pair, down to the next tenth, to 1.

    Args:
        similarity: (rows, cols, rows, cols), as `explain.position_similarity` gives it.
        heading: Above the figure, at most two lines.

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    require_finite("similarity", similarity, "(rows, cols, rows, cols)", 4)
    rows, cols = similarity.shape[:2]
    # One line of nothing between two maps: (rows, cols, rows, cols) -> one mosaic.
    tiles = np.full((rows, cols, rows + 1, cols + 1), np.nan, dtype=np.float32)
    tiles[:, :, :rows, :cols] = similarity.detach().float().cpu().numpy()
    mosaic = rearrange(tiles, "r1 c1 r2 c2 -> (r1 r2) (c1 c2)")[:-1, :-1]

    # A whole number of pixels a cell: otherwise some cells and gaps would be drawn wider.
    pixels = math.ceil(7 * DPI / max(mosaic.shape))
    height, width = (side * pixels / DPI for side in mosaic.shape)
    left, top, bar = 0.75, 0.65, 1.2
    page = (max(left + width + bar, 5.0), top + max(height, 1.0) + 0.7)
    figure = blank_page(*page)
    write_lines(figure, page[0] / 2, 0.1, heading, page[0] - 2 * _MARGIN, 12)
    axes = axes_at(figure, (left, top, width, height))
    lowest = min(math.floor(10 * float(similarity.min())) / 10, 0.9)
    image = axes.imshow(
        mosaic,
        cmap=COLOUR_MAP,
        vmin=lowest,
        vmax=1,
        interpolation="nearest",
        aspect="auto",
        origin="upper",
    )
    for axis, count in ((axes.xaxis, cols), (axes.yaxis, rows)):
        shown = np.arange(0, count, math.ceil(count / 16))
        middles = shown * (count + 1) + (count - 1) / 2
        axis.set_ticks(middles.tolist(), shown.astype(str).tolist())
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="input patch column", ylabel="input patch row")
    scale = axes_at(figure, (left + width + 0.2, top, 0.18, max(height, 1.0)))
    figure.colorbar(image, cax=scale, label="cosine similarity")
    return figure


_Slot = tuple[float, float, float, float, float]  # left, top, width, height, room for a title


def _arrange(
    photo_aspect: float, region_aspect: float, num_heads: int
) -> tuple[tuple[float, float], list[_Slot]]:
    """The page's (width, height) and a slot for each panel, in inches from the top left."""
    full = _PAGE - 2 * _MARGIN
    pair = (photo_aspect, region_aspect)
    if sum(pair) <= 4:  # side by side, of one height
        height = min(_TALLEST, (full - _GAP) / sum(pair))
        rows = [[(aspect * height, height) for aspect in pair]]
    else:
        rows = [[(min(full, a * _TALLEST), min(full / a, _TALLEST))] for a in pair]
    # of each row: its panels as (width, height), and what each has for its title and itself
    blocks = [[(panel, max(panel[0], _NARROWEST)) for panel in row] for row in rows]
    widths = [_width([room for _, room in block]) for block in blocks]

    most = 6 if region_aspect <= 1.5 else 4 if region_aspect <= 2.5 else 2
    cols = math.ceil(num_heads / math.ceil(num_heads / most)) if num_heads else 0
    room = (full + _GAP) / max(cols, min(most, 3)) - _GAP
    height = min(room / region_aspect, 3.5)
    for first in range(0, num_heads, cols or 1):
        count = min(cols, num_heads - first)
        blocks.append([((region_aspect * height, height), room)] * count)
        widths.append(_width([room] * cols))  # a short last row starts where the others start

    page_width = max(_PAGE, max(widths) + 2 * _MARGIN)
    slots: list[_Slot] = []
    top = _HEADING
    for block, block_width in zip(blocks, widths, strict=True):
        left = (page_width - block_width) / 2
        top += _TITLE
        for (width, height), room in block:
            slots.append((left + (room - width) / 2, top, width, height, room))
            left += room + _GAP
        top += block[0][0][1] + _GAP
    return (page_width, top + _FOOTER), slots


def _width(rooms: Sequence[float]) -> float:
    return sum(rooms) + _GAP * (len(rooms) - 1)


def _describe(name: str, weights: Tensor, num_tokens: int) -> str:
    """Two lines: whose map it is, what part went to patches, and how high it goes."""
    largest = float(weights.max())
    ratio = largest * num_tokens
    return (
        f"{name}: {100 * float(weights.sum()):.0f} % on patches\n"
        f"max {largest:#.2g} = {ratio:.{1 if ratio < 10 else 0}f} × uniform"
    )
