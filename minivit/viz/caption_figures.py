"""Word by word: a photo, the caption, and where the captioner looked for each word.

The figure is that of Xu et al. 2015, "Show, Attend and Tell" (arXiv:1502.03044), with two
differences: cells are drawn as cells, not blurred, and each title says how likely the word was and
how far its map is from looking everywhere alike. A scale of its own makes every map look sharp.

`minivit.viz.caption_pages` decides which panel stands where, `caption_words` writes around them,
`page` and `panels` have what they are made from.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.preprocess import to_rgb
from minivit.viz.caption_pages import arrange, fit_photo
from minivit.viz.caption_words import Colours, Footer, Sentence, Title
from minivit.viz.page import Page, one_line
from minivit.viz.panels import (
    COLOUR_MAP,
    Box,
    aspect_ratio,
    is_cropped,
    overlay,
    region_pixels,
    require_finite,
    show_pixels,
    show_veiled,
    whole_box,
)
from minivit.word_maps import Caption, relative_attention

_MOST_CELLS = 20  # on a side of a layout


def caption_figure(
    photo: Image.Image,
    caption: Caption,
    *,
    layout: tuple[int, int] | None = None,
    relative: bool = False,
    shared_scale: bool = False,
    show_end: bool = False,
    colour_map: str = COLOUR_MAP,
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
        caption: Caption of the photo, from `Captioner.caption`.
        layout: Rows and columns of a page with this many places, the first for the photo, whether
            there are words for all or not. Words that do not fit are named below the panels. None:
            as many as it takes.
        relative: Whether to draw `relative_attention`, on one scale for all panels around 1,
            instead of the weights, each on its own scale from 0 to its maximum.
        shared_scale: Whether the colours of all words run to the highest value of them all;
            relative maps have one scale in any case.
        show_end: Whether to add a panel for the end of the sentence, if it came to one.
        colour_map: Name of matplotlib's colour map; relative maps have one with a middle.
        heading: Text above the figure, at most two lines.

    Raises:
        ValueError: A layout that is not 1 to 20 places high and wide, or attention that is not
            finite.
    """
    if layout is not None and not all(1 <= side <= _MOST_CELLS for side in layout):
        raise ValueError(
            f"layout {layout[0]}x{layout[1]}: expected 1x1 to {_MOST_CELLS}x{_MOST_CELLS}"
        )
    photo = to_rgb(photo)
    maps, titles = _describe(caption, relative, show_end)
    limit = _limit(maps) if relative else None
    maximum = float(maps.max()) if shared_scale and not relative and len(maps) else None
    maps, box = _reach_the_edges(maps, caption.box, photo.size)
    seen = _part_inside(box, photo)

    grid = arrange(len(maps), aspect_ratio(seen), layout)
    sentence = Sentence(caption.text or "(no word)", grid.photo.width)
    grid = fit_photo(grid, photo.width / photo.height, sentence.height)
    notes = _notes(caption, len(maps), limit, maximum, show_end, is_cropped(photo, seen))
    colours = Colours(limit, maximum, colour_map)
    footer = Footer.below(grid, titles[len(grid.slots) :], notes, colours)
    page = Page(grid.width, footer.bottom)

    page.write_heading(heading)
    show_veiled(page.axes(grid.photo), photo, seen)
    sentence.write(page, grid.photo)
    ground = region_pixels(photo, seen, grey=True)
    for slot, title, weights in zip(grid.slots, titles, maps, strict=False):
        axes = page.axes(slot)
        show_pixels(axes, ground, seen)
        overlay(axes, weights, box, **colours._asdict())
        title.write(page, slot, grid.room)
    footer.draw(page)
    return page.figure


# ---- maps and words ------------------------------------------------------------------------------


def _describe(caption: Caption, relative: bool, show_end: bool) -> tuple[Tensor, list[Title]]:
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
        times_unit = f"{largest:.1f}" if largest < 10 else f"{largest:.0f}"
        probability = f"{math.exp(log_prob):.2f}" if log_prob > math.log(0.005) else "<0.01"
        titles.append(Title(one_line(name), probability, f"max {times_unit} × {unit}"))
    return maps, titles


def _limit(maps: Tensor) -> float:
    """The end of a scale of ratios: the power of 2 that one cell in a hundred exceeds, 2 to 16.

    One value at the edge of a map would otherwise make all others pale.
    """
    if not maps.numel():
        return 2.0
    ordered = maps.flatten().sort().values
    high = float(ordered[int(0.99 * (len(ordered) - 1))])
    return float(2 ** min(max(math.ceil(math.log2(max(high, 1.0))), 1), 4))


def _notes(
    caption: Caption,
    num_maps: int,
    limit: float | None,
    maximum: float | None,
    show_end: bool,
    cropped: bool,
) -> list[str]:
    """Notes on colours, probabilities and the end of the sentence, one sentence each."""
    if limit is None:
        cells = max(caption.attention.shape[1:].numel(), 1)
        scale = "each panel on its own scale from 0 to its maximum"
        if maximum is not None:
            scale = f"all panels on one scale, from 0 to {maximum:#.2g}"
        notes = [
            f"colour: attention weight, {scale}; uniform: {1 / cells:.2g}, the same for all "
            f"{cells} cells"
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


# ---- boxes ---------------------------------------------------------------------------------------


def _reach_the_edges(maps: Tensor, box: Box, photo_size: tuple[int, int]) -> tuple[Tensor, Box]:
    """Gives the strips that a ResNet's grid leaves free to their nearest cells.

    Its cells are centred on pixels: the first ones reach over the photo's left and upper edge by
    half of their size, and the last ones end that much before the others. The network saw it all.
    """
    (left, top, right, bottom), (rows, cols) = box, maps.shape[1:]
    width, height = (right - left) / cols, (bottom - top) / rows
    more_cols = int(left < -width / 4 and 0 < photo_size[0] - right < width / 2)
    more_rows = int(top < -height / 4 and 0 < photo_size[1] - bottom < height / 2)
    if len(maps):
        maps = F.pad(maps, (0, more_cols, 0, more_rows), mode="replicate")
    return maps, (left, top, right + more_cols * width, bottom + more_rows * height)


def _part_inside(box: Box, photo: Image.Image) -> Box:
    """The part of a box that lies on the photo."""
    _, _, width, height = whole_box(photo)
    return (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
