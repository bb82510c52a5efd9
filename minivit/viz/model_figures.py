"""The figure of a model itself: its filters, its positions, how far and how broadly its heads look.

Three of the panels are those of figures 7 and 11 of the ViT paper (arXiv:2010.11929).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from minivit.viz.page import DPI, MARGIN, NOTE_SIZE, TITLE_SIZE, Page, Slot, line_height, wrap_lines
from minivit.viz.panels import COLOUR_MAP, require_finite
from minivit.viz.position_figures import draw_tiles, position_tiles

_WIDTH = 13.2
_LEFT, _RIGHT = 0.75, 7.05  # left edges of the two columns of panels, in inches as all lengths here
_TOP, _PANEL, _LOW_PANEL = 1.05, 5.1, 3.4  # heading above, a panel of the upper row, of the lower
_BETWEEN = 1.2
_BAR = 1.5  # least height of the bar of colours, so that its label has room beside it
_FILTER_COLUMNS = 7
_EMPTY = (4, 7)  # shape of the panel where there is no mosaic
_COLOURS = (1, 3)  # channels that can be seen: grey, or red, green and blue


def model_figure(
    filters: Tensor,
    similarity: Tensor,
    distances: Tensor | None,
    entropies: Tensor | None,
    *,
    shares: Tensor,
    uniform_distance: float,
    num_tokens: int,
    positions: str = "learned",
    colour_map: str = COLOUR_MAP,
    heading: str = "",
    notes: str = "",
) -> Figure:
    """Four panels: filters, positions, mean attention distance and entropy of each head.

    Filters are drawn about grey, each to the full contrast that its value farthest from 0 has room
    for. Panels are `figure.axes` in this order, a bar of colours in between.

    Args:
        filters: Principal components (K, C, height, width), from `explain.filter_components`. Those
            of other than 1 or 3 channels have no colours, and the panel says so.
        similarity: (rows, cols, rows, cols), from `explain.position_similarity`.
        distances: (blocks, H) in pixels, from `explain.attention_distance`; None: not measured.
        entropies: (blocks, H) in nats, from `explain.attention_entropy`; None: not measured.
        shares: (K,) part of the filters' variance that lies along each component.
        uniform_distance: Distance of a head that looks at all patches alike.
        num_tokens: Number N of tokens; log N is the entropy of a head that looks at all alike.
        positions: Kind of the position embeddings, for the title.
        colour_map: Name of matplotlib's colour map for the positions.
        heading: Text above the figure, at most two lines.
        notes: Lines below the figure.

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    require_finite("filters", filters, "(components, channels, height, width)", 4)
    tiles = position_tiles(similarity)
    mosaic = _filter_mosaic(filters) if filters.shape[1] in _COLOURS else None
    filter_slot = _fit(_EMPTY if mosaic is None else mosaic.shape[:2], _LEFT)
    slot = _fit(tiles.values.shape, _RIGHT)
    if slot.height < _BAR:  # the words beside it are higher than the panel
        slot = replace(slot, top=_TOP + (_BAR - slot.height) / 2)
    second = _TOP + max(filter_slot.height, slot.height, _BAR) + _BETWEEN
    end = second + _LOW_PANEL + 0.65
    page = Page(_WIDTH, end + (1 + notes.count("\n")) * line_height(NOTE_SIZE) + 0.1)
    page.write_heading(heading)

    title = f"Patch filters: first {len(filters)} principal components"
    _write_title(page, f"{title}, {float(shares.sum()):.0%} of their variance", _LEFT, _TOP)
    axes = page.axes(filter_slot)
    if mosaic is not None:
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        at = (_LEFT, _TOP + filter_slot.height + 0.08)
        about = "strongest first, row by row; each about grey and to its own full contrast"
        page.write(about, at, room=_PANEL, size=NOTE_SIZE, align="left")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    else:
        _say_why(axes, f"not drawn: {filters.shape[1]} channels have no colours")

    rows, cols = tiles.grid_size
    title = f"Position embeddings ({positions}), {rows} × {cols} patches: similarity of each to all"
    _write_title(page, title, _RIGHT, _TOP)
    drawn = draw_tiles(page.axes(slot), tiles, colour_map=colour_map)
    scale = page.axes(Slot(slot.left + slot.width + 0.15, _TOP, 0.15, max(slot.height, _BAR)))
    page.figure.colorbar(drawn, cax=scale, label="cosine similarity")
    at = (slot.left, _TOP + max(slot.height, _BAR) + 0.47)
    lines = "\n".join(wrap_lines(tiles.note, _PANEL, NOTE_SIZE, 2))
    page.write(lines, at, room=_PANEL, size=NOTE_SIZE, align="left")

    _write_title(page, "How far each head looks: mean attention distance", _LEFT, second)
    axes = page.axes(Slot(_LEFT, second, _PANEL, _LOW_PANEL))
    words = f"all patches alike, {uniform_distance:.0f} pixels"
    _draw_heads(axes, "distance in pixels that the model sees", distances, uniform_distance, words)
    _write_title(page, "How broadly each head looks: entropy of attention", _RIGHT, second)
    axes = page.axes(Slot(_RIGHT, second, _PANEL, _LOW_PANEL))
    most = math.log(num_tokens)
    words = f"all {num_tokens} tokens alike, {most:.1f} nats"
    _draw_heads(axes, "entropy in nats", entropies, most, words)
    page.write(notes, (MARGIN, end), room=page.room, size=NOTE_SIZE, align="left")
    return page.figure


def _write_title(page: Page, text: str, left: float, top: float) -> None:
    page.write(
        text, (left, top - 0.06), room=_PANEL + 0.6, size=TITLE_SIZE, above=True, align="left"
    )


def _fit(shape: Sequence[int], left: float) -> Slot:
    """A place in the upper row where a cell is a whole number of pixels high and wide."""
    pixels = max(1, int(_PANEL * DPI / max(shape)))
    height, width = (side * pixels / DPI for side in shape)
    return Slot(left, _TOP, width, height)


def _filter_mosaic(filters: Tensor) -> NDArray[np.float32]:
    """All filters (K, C, height, width) in one picture (…, …, 3), white between neighbours."""
    values = filters.detach().float().cpu()
    values = values / values.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    colours = (0.5 + 0.5 * values).expand(-1, 3, -1, -1)  # (K, C, h, w) -> (K, 3, h, w)
    count, _, height, width = colours.shape
    cols = min(count, _FILTER_COLUMNS)
    rows = math.ceil(count / cols)
    mosaic = np.ones((rows * (height + 1) - 1, cols * (width + 1) - 1, 3), dtype=np.float32)
    for index, filter_ in enumerate(colours.permute(0, 2, 3, 1).numpy()):  # -> (K, h, w, 3)
        top, left = (height + 1) * (index // cols), (width + 1) * (index % cols)
        mosaic[top : top + height, left : left + width] = filter_
    return mosaic


def _say_why(axes: Axes, reason: str) -> None:
    """Words in the middle of a panel that stays empty."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _draw_heads(axes: Axes, label: str, values: Tensor | None, uniform: float, words: str) -> None:
    """A dot for each head above the number of its block, and a line at what uniform rows have."""
    if values is None:
        _say_why(axes, "not measured: photos do not have the channels of this model")
        return
    require_finite(label, values, "(blocks, heads)", 2)
    depth, heads = values.shape
    blocks = np.repeat(np.arange(depth), heads)  # (blocks, H) row by row
    axes.scatter(blocks, values.detach().float().cpu().flatten().numpy(), s=22, alpha=0.7)
    axes.axhline(uniform, color="0.4", linestyle="--", linewidth=1)
    highest = max(float(values.max()), uniform)
    axes.set_xticks(np.arange(0, depth, math.ceil(depth / 16)))
    axes.set(xlim=(-0.6, depth - 0.4), ylim=(0, 1.06 * highest or 1))
    axes.set(xlabel=f"block (dashed: {words})", ylabel=label)
    axes.grid(alpha=0.3)
