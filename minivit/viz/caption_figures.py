"""Word by word: a photo, the caption, and where the captioner looked for each word.

The figure is that of Xu et al. 2015, "Show, Attend and Tell" (arXiv:1502.03044), with two
differences: cells are drawn as cells, not blurred, and each title says how likely the word was and
how far its map is from looking everywhere alike. A scale of its own makes every map look sharp.

`minivit.viz.caption_pages` decides which panel stands where, `page` and `panels` have what they are
made from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.caption_pages import MARGIN, arrange, fit_photo
from minivit.viz.page import axes_at, blank_page, line_height, wrap_lines, write_lines
from minivit.viz.panels import (
    DIVERGING_MAP,
    Box,
    add_scale,
    dim_outside,
    outline,
    region_pixels,
    require_finite,
    show_map,
    show_photo,
    show_pixels,
)
from minivit.word_maps import Caption, relative_attention

_MOST_CELLS = 20  # on a side of a layout
_SCALE, _NOTES = 2.0, 2.4  # inches: width of the colour bar, and where the notes beside it begin


def caption_figure(
    photo: Image.Image,
    caption: Caption,
    *,
    layout: tuple[int, int] | None = None,
    relative: bool = False,
    show_end: bool = False,
    heading: str = "",
) -> Figure:
    """The photo under its caption, and for each word its map, laid over the photo.

    The first panel is the whole photo, with what the captioner did not see veiled; the others show
    the region that it saw. Panels are `figure.axes` in this order, in pixels of the photo, the bar
    of colours last.

    A title gives the word, its probability given the picture and the words before it, and the
    highest value of its map: in multiples of what each cell would get if all got the same, or, in
    relative maps, of what the average word gives to that cell.

    Args:
        photo: The photo, upright.
        caption: What `Captioner.caption` said about it.
        layout: (rows, cols) of a page with this many places, the first for the photo, whether there
            are words for all or not. Words that do not fit are named below the panels. None: as
            many as it takes.
        relative: Draw `relative_attention`, on one scale for all panels around 1, instead of the
            weights, each on its own scale from 0 to its maximum.
        show_end: Add a panel for the end of the sentence, if it came to one.
        heading: Above the figure, at most two lines.

    Raises:
        ValueError: A layout that is not 1 to 20 places high and wide, or attention that is not
            finite.
    """
    if layout is not None and not all(1 <= side <= _MOST_CELLS for side in layout):
        raise ValueError(
            f"layout {layout[0]}x{layout[1]}: expected 1x1 to {_MOST_CELLS}x{_MOST_CELLS}"
        )
    photo = to_rgb(photo)
    whole: Box = (0.0, 0.0, float(photo.width), float(photo.height))
    maps, titles = _describe(caption, relative, show_end)
    limit = _limit(maps) if relative else None
    maps, box = _reach_the_edges(maps, caption.box, photo.size)
    seen: Box = (max(box[0], 0), max(box[1], 0), min(box[2], whole[2]), min(box[3], whole[3]))
    cropped = max(abs(a - b) for a, b in zip(seen, whole, strict=True)) > 0.5

    grid = arrange(len(maps), (seen[2] - seen[0]) / (seen[3] - seen[1]), layout)
    room = grid.photo[2]
    size = 11.0 if room >= 3 else 10.0 if room >= 2.2 else 8.5
    sentence = wrap_lines(caption.text or "(no word)", room, size, 12)
    grid = fit_photo(grid, photo.width / photo.height, len(sentence) * line_height(size) + 0.1)
    left_out = _name(titles[len(grid.slots) :], grid.width - 2 * MARGIN)
    notes = [
        line
        for note in _notes(caption, len(maps), limit, show_end, cropped)
        for line in wrap_lines(note, grid.width - 2 * MARGIN - _NOTES, 8, 3)
    ]
    footer = grid.bottom + 0.12 + (0.16 + len(left_out) * line_height(9) if left_out else 0)
    figure = blank_page(grid.width, footer + max(len(notes) * line_height(8), 0.4) + 0.15)

    write_lines(figure, grid.width / 2, 0.1, heading, grid.width - 2 * MARGIN, 12)
    axes = axes_at(figure, grid.photo)
    show_photo(axes, photo, whole)
    if cropped:
        dim_outside(axes, photo.size, seen)
        outline(axes, seen, linewidth=0.7)
    left, top, wide, _ = grid.photo
    write_lines(figure, left + wide / 2, top - 0.05, "\n".join(sentence), room, size, above=True)
    ground = region_pixels(photo, seen, grey=True)
    for slot, title, weights in zip(grid.slots, titles, maps, strict=False):
        axes = axes_at(figure, slot)
        show_pixels(axes, ground, seen)
        show_map(axes, weights, box, ratios_to=limit)
        _write_title(figure, slot[0] + slot[2] / 2, slot[1] - 0.04, title, grid.room)
    _write_footer(figure, grid.bottom + 0.08, footer, left_out, notes, limit)
    return figure


def _reach_the_edges(maps: Tensor, box: Box, photo_size: tuple[int, int]) -> tuple[Tensor, Box]:
    """Gives the strips that a ResNet's grid leaves free to their nearest cells.

    Its cells are centred on pixels: the first ones reach over the photo's left and upper edge by
    half of their size, and the last ones end that much before the others. The network saw it all.
    """
    (left, top, right, bottom), (rows, cols) = box, maps.shape[1:]
    wide, high = (right - left) / cols, (bottom - top) / rows
    more_cols = int(left < -wide / 4 and 0 < photo_size[0] - right < wide / 2)
    more_rows = int(top < -high / 4 and 0 < photo_size[1] - bottom < high / 2)
    if len(maps):
        maps = F.pad(maps, (0, more_cols, 0, more_rows), mode="replicate")
    return maps, (left, top, right + more_cols * wide, bottom + more_rows * high)


# ---- what is said -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Title:
    name: str
    probability: str
    largest: str


def _describe(caption: Caption, relative: bool, show_end: bool) -> tuple[Tensor, list[_Title]]:
    """The maps (n, rows, cols) of all panels, and their titles."""
    named = [(word.text, word.log_prob, word.attention) for word in caption.words]
    if show_end and caption.end_log_prob is not None and caption.end_attention is not None:
        named.append(("(end)", caption.end_log_prob, caption.end_attention))
    if not named:
        return caption.attention.float().cpu(), []
    maps = torch.stack([weights for _, _, weights in named]).detach().float().cpu()
    require_finite("attention", maps, "(words, rows, cols)", 3)
    if relative:
        maps, unit = relative_attention(maps), "average"
    else:
        unit = "uniform"
    titles = []
    for (name, log_prob, _), weights in zip(named, maps, strict=True):
        largest = float(weights.max()) * (1 if relative else weights.numel())
        digits = 1 if largest < 10 else 0
        titles.append(
            _Title(
                " ".join(name.split()),
                f"{math.exp(log_prob):.2f}" if log_prob > math.log(0.005) else "<0.01",
                f"max {largest:.{digits}f} × {unit}",
            )
        )
    return maps, titles


def _limit(maps: Tensor) -> float:
    """Where a scale of ratios ends: the power of 2 that one cell in a hundred goes above, 2 to 16.

    One value at the edge of a map would otherwise make all others pale.
    """
    if not maps.numel():
        return 2.0
    ordered = maps.flatten().sort().values
    high = float(ordered[int(0.99 * (len(ordered) - 1))])
    return float(2 ** min(max(math.ceil(math.log2(max(high, 1.0))), 1), 4))


def _notes(
    caption: Caption, num_maps: int, limit: float | None, show_end: bool, cropped: bool
) -> list[str]:
    """What a reader has to know, a line each."""
    if limit is None:
        cells = max(caption.attention.shape[1:].numel(), 1)
        notes = [
            "colour: attention weight, each panel on its own scale from 0 to its maximum; uniform: "
            f"{1 / cells:.2g}, the same for all {cells} cells"
        ]
    else:
        all_maps = "words and the end" if num_maps > len(caption.words) else "words"
        notes = [
            f"colour: attention weight divided by its mean over the {all_maps}, one logarithmic "
            "scale for all panels; 1: as much as the average word"
        ]
    pieces = any(len(word.tokens) > 1 for word in caption.words)
    notes.append(
        "beside a word: its probability, given the picture and the words before it"
        + ("; of word-pieces: the product, and the mean of their maps" if pieces else "")
    )
    if caption.end_log_prob is None:
        notes.append("the caption was cut at its greatest length, it did not end by itself")
    elif show_end and caption.end_attention is None:
        notes.append("the end of the sentence was not read, and has no map")
    if cropped:
        notes.append("veiled: outside of what the captioner saw")
    return notes


def _write_title(figure: Figure, x: float, y: float, title: _Title, room: float) -> None:
    size = 10.0 if room >= 2.2 else 9.0 if room >= 1.5 else 8.0
    write_lines(figure, x, y, title.largest, room, 7, above=True)
    line = f"{title.name} {title.probability}"
    write_lines(figure, x, y - line_height(7), line, room, size, above=True)


def _name(titles: list[_Title], room: float) -> list[str]:
    """Lines that name the words for which there is no panel."""
    if not titles:
        return []
    names = " ".join(title.name for title in titles)
    return wrap_lines(
        f"{len(titles)} more {'words' if len(titles) > 1 else 'word'}: {names}", room, 9, 4
    )


def _write_footer(
    figure: Figure,
    top: float,
    legend: float,
    left_out: list[str],
    notes: list[str],
    limit: float | None,
) -> None:
    """What has no panel from `top` on, colours and notes from `legend` on, in inches."""
    width = figure.get_figwidth()
    write_lines(figure, width / 2, top, "\n".join(left_out), width - 2 * MARGIN, 9)
    room = width - 2 * MARGIN - _NOTES
    write_lines(figure, MARGIN + _NOTES, legend, "\n".join(notes), room, 8, align="left")
    slot = (MARGIN, legend + 0.07, _SCALE, 0.13)
    if limit is None:
        add_scale(figure, slot, {0: "0", 1: "maximum"})
        return
    steps = round(math.log2(limit))
    labels = {0.0: f"≤ 1/{limit:.0f}", 0.5: "1", 1.0: f"≥ {limit:.0f}"}
    if between := steps // 2:
        share = between / steps / 2
        labels |= {0.5 - share: f"1/{2**between}", 0.5 + share: f"{2**between}"}
    add_scale(figure, slot, labels, colour_map=DIVERGING_MAP)
