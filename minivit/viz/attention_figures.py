"""The figure of one photo with all its attention maps.

`minivit.viz.page` and `panels` have what they are made from; this file says which panel stands
where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.fields import renamed_arguments
from minivit.preprocess import to_rgb
from minivit.viz.page import (
    MARGIN,
    NOTE_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Page,
    Slot,
    line_height,
    wrap_lines,
)
from minivit.viz.panels import (
    COLOUR_MAP,
    Box,
    add_scale,
    aspect_ratio,
    cell_box,
    is_cropped,
    outline,
    outline_mask,
    overlay,
    region_pixels,
    require_finite,
    show_pixels,
    show_veiled,
)

_GAP = 0.15  # inches, as all lengths here
_HEADING, _TITLE, _FOOTER = 0.6, 0.42, 0.62  # height of two lines above all, a panel, below all
_TALLEST, _TALLEST_HEAD = 5.0, 3.5  # a panel of the first two, of a head
_NARROWEST = 3.0  # a title has this much room, however slim the photo
_NARROW_TITLE_SIZE = 7.5  # points, where a title has less room than that
_SCALE, _NOTES = 1.6, 2.2  # width of the bar of colours, and where the notes beside it begin


# ---- attention -----------------------------------------------------------------------------------


class Region(NamedTuple):
    """A part of the photo that is outlined, and whose share of each map is given.

    Attributes:
        cells: Part of each cell that lies in it, (rows, cols): `explain.box_cells`.
        place: Box in pixels of the photo, or mask (height, width) of all of it.
    """

    cells: Tensor
    place: Box | Tensor

    @property
    def name(self) -> str:
        """The word for it."""
        return "mask" if isinstance(self.place, Tensor) else "box"


@renamed_arguments(query="patch")
def attention_figure(
    photo: Image.Image,
    box: Box,
    maps: Tensor,
    *,
    num_tokens: int,
    heads: Sequence[int] | None = None,
    patch: tuple[int, int] | None = None,
    region: Region | None = None,
    shared_scale: bool = False,
    smooth: bool = False,
    colour_map: str = COLOUR_MAP,
    heading: str = "",
    photo_title: str = "",
) -> Figure:
    """The photo, the map of all heads averaged, and the map of each head, laid over the photo.

    The first panel is the whole photo, with what the model did not see veiled; the others show the
    region that it saw. Panels are `figure.axes` in this order, in pixels of the photo, the bar of
    colours last.

    Args:
        photo: The photo, upright.
        box: Region that the grid covers, (left, top, right, bottom) in the photo's pixels:
            `Preprocess.crop_box`.
        maps: Weights (H, rows, cols) that one query gives to each patch, head by head.
        num_tokens: Number N of tokens, over which each head's attention sums to 1; patches and
            prefix tokens.
        heads: Heads that get a panel; None: all. The average is of all in any case.
        patch: Patch (row, col) that looks, to be outlined; None for a prefix token.
        region: Box or mask that is outlined; titles then give its share of each map, over its part
            of the picture.
        shared_scale: Whether the colours of all maps run to the highest value of them all, so that
            heads can be compared by colour; otherwise each to its own maximum.
        smooth: Whether to interpolate between the middles of the patches.
        colour_map: Name of matplotlib's colour map.
        heading: Text above the figure, at most two lines.
        photo_title: Text above the photo, at most two lines.

    Raises:
        ValueError: `maps` is not (H, rows, cols), or holds values that are not finite.
    """
    require_finite("attention", maps, "(heads, rows, cols)", 3)
    photo, maps = to_rgb(photo), maps.detach().float().cpu()
    heads = range(len(maps)) if heads is None else heads
    named = [("mean of all heads", maps.mean(0)), *((f"head {head}", maps[head]) for head in heads)]

    maximum = max(float(weights.max()) for _, weights in named) if shared_scale else None
    notes = _notes(num_tokens, maximum, patch, region, is_cropped(photo, box))
    rows = _photo_rows(photo.width / photo.height, aspect_ratio(box))
    rows += _head_rows(aspect_ratio(box), len(heads))
    title_height = _TITLE + (line_height(TITLE_SIZE) if region else 0)
    page, places, footer = _arrange(rows, title_height, notes)
    page.write_heading(heading)
    panels = [page.axes(place.slot) for place in places]
    titles = [photo_title]
    titles += [_describe(name, weights, num_tokens, region) for name, weights in named]
    for place, title in zip(places, titles, strict=True):
        _write_title(page, place, title)
    show_veiled(panels[0], photo, box)
    ground = region_pixels(photo, box, grey=True)
    for axes, (_, weights) in zip(panels[1:], named, strict=True):
        show_pixels(axes, ground, box)
        overlay(axes, weights, box, smooth=smooth, maximum=maximum, colour_map=colour_map)
    if region is not None:
        _outline_region(panels, region.place)
    if patch is not None:
        _outline_patch(panels, cell_box(box, (maps.shape[1], maps.shape[2]), patch))

    _draw_footer(page, footer, maximum, colour_map)
    return page.figure


def _describe(name: str, weights: Tensor, num_tokens: int, region: Region | None) -> str:
    """The map's name and what part went to patches, its highest value, and a region's share."""
    largest, on_patches = float(weights.max()), 100 * float(weights.sum())
    ratio = largest * num_tokens
    times_uniform = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
    text = f"{name}: {on_patches:.0f} % on patches\nmax {largest:#.2g} = {times_uniform} × uniform"
    if region is None:
        return text
    inside = float((weights * region.cells).sum()) / max(float(weights.sum()), 1e-12)
    times_area = inside / max(float(region.cells.mean()), 1e-12)
    return f"{text}\n{region.name} {100 * inside:.{int(inside < 0.1)}f} % = {times_area:.1f} × area"


def _write_title(page: Page, place: _Place, title: str) -> None:
    size = TITLE_SIZE if place.room >= _NARROWEST else _NARROW_TITLE_SIZE
    foot = (place.slot.center, place.slot.top - 0.04)
    page.write(title, foot, room=place.room, size=size, above=True)


def _outline_patch(panels: Sequence[Axes], patch_box: Box) -> None:
    for axes in panels[:2]:
        outline(axes, patch_box, linewidth=1.5)
    for axes in panels[2:]:
        outline(axes, patch_box, linewidth=1.0)


def _outline_region(panels: Sequence[Axes], place: Box | Tensor) -> None:
    for index, axes in enumerate(panels):
        linewidth = 1.5 if index < 2 else 1.0
        if isinstance(place, Tensor):
            outline_mask(axes, place, linewidth=linewidth)
        else:
            outline(axes, place, linewidth=linewidth, clip=True)


def _notes(
    num_tokens: int,
    maximum: float | None,
    patch: tuple[int, int] | None,
    region: Region | None,
    cropped: bool,
) -> list[str]:
    """What a colour is, and what else a reader has to know, one sentence each."""
    scale = f"on one scale for all panels, from 0 to {maximum:#.2g}" if maximum is not None else ""
    scale = scale or "from 0 to the maximum that the panel's title gives"
    outlined = ["the patch that looks"] if patch is not None else []
    if region:
        area = 100 * float(region.cells.mean())
        outlined.append(
            f"the {region.name}, {area:.1f} % of the area, with its share of what is on patches"
        )
    others = "each map is of one query: what it looks at, as softmax gave it"
    others += f"; outlined: {' and '.join(outlined)}" if outlined else ""
    others += "; veiled: outside of what the model saw" if cropped else ""
    return [
        f"colour: attention weight, {scale}; uniform: {1 / num_tokens:.3g}, the same for all "
        f"{num_tokens} tokens",
        others,
    ]


def _draw_footer(page: Page, footer: _Footer, maximum: float | None, colour_map: str) -> None:
    """The bar of colours, and the notes beside it."""
    end = "maximum" if maximum is None else f"{maximum:#.2g}"
    slot = Slot(MARGIN, footer.top + 0.2, _SCALE, 0.13)
    add_scale(page, slot, {0: "0", 1: end}, colour_map=colour_map)
    at = (MARGIN + _NOTES, footer.top + 0.12)
    text = "\n".join(footer.lines)
    page.write(text, at, room=page.room - _NOTES, size=NOTE_SIZE, align="left")


# ---- its layout ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """Panels of one height side by side, before their place on the page is known.

    Attributes:
        height: Height of the panels.
        widths: Widths of the panels.
        rooms: Widths that the titles have; each panel stands in the middle of its room.
        width: Width of the row; a row that is not full keeps the width of the others.
    """

    height: float
    widths: Sequence[float]
    rooms: Sequence[float]
    width: float


@dataclass(frozen=True)
class _Place:
    """Place of a panel on the page.

    Attributes:
        slot: Rectangle of the panel.
        room: Width for its title.
    """

    slot: Slot
    room: float


def _photo_rows(photo_aspect: float, region_aspect: float) -> list[_Row]:
    """The photo and the average of all heads: side by side, or one above the other."""
    full = PAGE_WIDTH - 2 * MARGIN
    both = (photo_aspect, region_aspect)
    if sum(both) <= 4:
        height = min(_TALLEST, (full - _GAP) / sum(both))
        return [_photo_row(height, [aspect * height for aspect in both])]
    return [
        _photo_row(min(full / aspect, _TALLEST), [min(full, aspect * _TALLEST)]) for aspect in both
    ]


def _photo_row(height: float, widths: Sequence[float]) -> _Row:
    rooms = [max(width, _NARROWEST) for width in widths]
    return _Row(height, widths, rooms, _total_width(rooms))


def _head_rows(aspect: float, num_heads: int) -> list[_Row]:
    """Rows of panels of one size, a panel for each head."""
    if not num_heads:
        return []
    most = 6 if aspect <= 1.5 else 4 if aspect <= 2.5 else 2
    cols = math.ceil(num_heads / math.ceil(num_heads / most))
    room = (PAGE_WIDTH - 2 * MARGIN + _GAP) / max(cols, min(most, 3)) - _GAP
    height = min(room / aspect, _TALLEST_HEAD)
    counts = (min(cols, num_heads - first) for first in range(0, num_heads, cols))
    width = _total_width([room] * cols)
    return [_Row(height, [aspect * height] * count, [room] * count, width) for count in counts]


def _total_width(rooms: Sequence[float]) -> float:
    return sum(rooms) + _GAP * (len(rooms) - 1)


class _Footer(NamedTuple):
    """Lines below the panels, and the upper edge of their place."""

    top: float
    lines: list[str]


def _arrange(
    rows: Sequence[_Row], title_height: float, notes: Sequence[str]
) -> tuple[Page, list[_Place], _Footer]:
    """A page with room for all rows, each in its middle, the places of the panels, the footer."""
    page_width = max(PAGE_WIDTH, max(row.width for row in rows) + 2 * MARGIN)
    places = []
    top = _HEADING
    for row in rows:
        top += title_height
        left = (page_width - row.width) / 2
        for width, room in zip(row.widths, row.rooms, strict=True):
            slot = Slot(left + (room - width) / 2, top, width, row.height)
            places.append(_Place(slot, room))
            left += room + _GAP
        top += row.height + _GAP
    room = page_width - 2 * MARGIN - _NOTES
    lines = [line for note in notes for line in wrap_lines(note, room, NOTE_SIZE, 3)]
    height = max(_FOOTER, 0.25 + len(lines) * line_height(NOTE_SIZE))
    return Page(page_width, top + height), places, _Footer(top, lines)
