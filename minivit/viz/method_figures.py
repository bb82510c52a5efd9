"""The figure of one photo with a map of each method of explanation.

Methods have no common unit: each panel has its own scale, which its title gives, and colours tell
cells of one map apart, not one map from another. `minivit.viz.page` and `panels` have what the
figure is made from, `caption_pages` the places.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.caption_pages import arrange, fit_photo
from minivit.viz.page import MARGIN, NOTE_SIZE, Page, Slot, line_height, wrap_lines
from minivit.viz.panels import (
    COLOUR_MAP,
    DIVERGING_MAP,
    Box,
    Scale,
    add_scale,
    aspect_ratio,
    is_cropped,
    overlay,
    region_pixels,
    require_finite,
    show_pixels,
    show_veiled,
)

_TITLE_SIZE = 8.5  # points; two lines above each panel
_SCALE, _NOTES = 1.6, 2.6  # width of a bar of colours, and where the words beside it begin
_INDENT = 0.3  # the words below a bar reach beyond its ends
_STEP = 0.42  # height of a bar with its labels

_OWN_RANGE = (
    "from the lowest value of the panel to its highest, which its title gives: compare cells of a "
    "panel, not panels"
)
_SIGNED = "red is above 0, blue below, pale is 0; full colour is the value farthest from 0"


def methods_figure(
    photo: Image.Image,
    box: Box,
    maps: Mapping[str, Tensor],
    *,
    signed: Collection[str] = (),
    smooth: bool = False,
    colour_map: str = COLOUR_MAP,
    heading: str = "",
    photo_title: str = "",
    notes: str = "",
) -> Figure:
    """The photo, and the map of each method laid over it.

    The first panel is the whole photo, with what the model did not see veiled; the others show the
    region that it saw. Panels are `figure.axes` in this order, in pixels of the photo, the bars of
    colours last.

    Args:
        photo: The photo, upright.
        box: Region that the grid covers, (left, top, right, bottom) in the photo's pixels:
            `Preprocess.crop_box`.
        maps: Maps (rows, cols) by the names of their methods, at least one.
        signed: Names of maps, drawn or not, whose values below 0 mean the opposite of those above:
            their colours run as far down as up from 0. Those of others run from their minimum to
            their maximum.
        smooth: Whether to interpolate between the middles of the patches.
        colour_map: Name of matplotlib's colour map for maps that are not signed.
        heading: Text above the figure, at most two lines.
        photo_title: Text above the photo.
        notes: Lines below the figure, after those on colours.

    Raises:
        ValueError: A map is not (rows, cols), or holds values that are not finite.
    """
    for name, values in maps.items():
        require_finite(name, values, "(rows, cols)", 2)
    photo = to_rgb(photo)
    photo_height = (1 + photo_title.count("\n")) * line_height(_TITLE_SIZE)
    grid = arrange(len(maps), aspect_ratio(box), None)
    grid = fit_photo(grid, photo.width / photo.height, photo_height)
    if is_cropped(photo, box):
        notes += "\nveiled: outside of what the model saw"
    room = grid.width - 2 * MARGIN
    lines = [line for note in notes.splitlines() for line in wrap_lines(note, room, NOTE_SIZE, 3)]
    scales = [name in signed for name in maps]
    bars = (False in scales) + (True in scales)
    bottom = grid.bottom + 0.05
    height = bottom + bars * _STEP + len(lines) * line_height(NOTE_SIZE) + 0.15
    page = Page(grid.width, height)
    page.write_heading(heading)

    panel = page.axes(grid.photo)
    show_veiled(panel, photo, box)
    foot = (grid.photo.center, grid.photo.top - 0.04)
    room = max(grid.photo.width, grid.room)
    page.write(photo_title, foot, room=room, size=_TITLE_SIZE, above=True)
    ground = region_pixels(photo, box, grey=True)
    for slot, (name, values) in zip(grid.slots, maps.items(), strict=True):
        values = values.detach().float().cpu()
        axes = page.axes(slot)
        show_pixels(axes, ground, box)
        scale: Scale = "signed" if name in signed else "own range"
        overlay(axes, values, box, smooth=smooth, scale=scale, colour_map=colour_map)
        text = f"{name}\n{_number(values.min())} to {_number(values.max())}"
        foot = (slot.center, slot.top - 0.04)
        page.write(text, foot, room=grid.room, size=_TITLE_SIZE, above=True)
    _write_legend(page, bottom, scales, lines, colour_map)
    return page.figure


def _number(value: Tensor) -> str:
    return f"{float(value):.2g}".replace("-", "−", 1) if value < 0 else f"{float(value):.2g}"


def _write_legend(
    page: Page, top: float, scales: Collection[bool], lines: list[str], colour_map: str
) -> None:
    """Bars of the colours that are used, what they mean, and other lines."""
    if False in scales:
        slot = Slot(MARGIN + _INDENT, top, _SCALE, 0.13)
        add_scale(page, slot, {0: "lowest", 1: "highest"}, colour_map=colour_map)
        _write_note(page, _OWN_RANGE, top)
        top += _STEP
    if True in scales:
        labels = {0: "−farthest", 0.5: "0", 1: "farthest"}
        slot = Slot(MARGIN + _INDENT, top, _SCALE, 0.13)
        add_scale(page, slot, labels, colour_map=DIVERGING_MAP)
        _write_note(page, _SIGNED, top)
        top += _STEP
    for line in lines:
        page.write(line, (MARGIN, top), room=page.room, size=NOTE_SIZE, align="left")
        top += line_height(NOTE_SIZE)


def _write_note(page: Page, text: str, top: float) -> None:
    room = page.room - _NOTES
    words = "\n".join(wrap_lines(text, room, NOTE_SIZE, 2))
    page.write(words, (MARGIN + _NOTES, top - 0.01), room=room, size=NOTE_SIZE, align="left")
