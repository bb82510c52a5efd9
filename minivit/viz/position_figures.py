"""How similar the position embeddings of a grid are: a small map for each patch, where it stands.

Figure 7 of the ViT paper (arXiv:2010.11929) draws it for 7 × 7 patches. The 37 × 37 of DINOv2 would
be 1,369 maps that nobody can read: of a larger grid only 14 rows and columns have maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from minivit.viz.page import DPI, NOTE_SIZE, Page, Slot, line_height, text_width
from minivit.viz.panels import COLOUR_MAP, require_finite

_MOST = 14  # rows, and columns, of patches that get a map
_ITSELF = 2.0  # above all cosines


def positions_figure(
    similarity: Tensor,
    *,
    colour_map: str = COLOUR_MAP,
    heading: str = "",
    all_patches: bool = False,
) -> Figure:
    """How similar the position embedding of each patch is to all others (ViT paper, figure 7).

    The map in place (r, c) shows the cosine similarity of patch (r, c) to every patch, laid out as
    the grid is. Of more than 14 rows or columns, 14 have maps: they run from border to border, the
    same on either side, and as evenly as whole numbers allow; a note below says so. Colours run
    from the least to the most similar pair of the whole grid, out to the next tenths. A patch
    itself, whose similarity is 1, is no pair: it is black, or the others would share the lower half
    of the colours.

    Args:
        similarity: Similarities (rows, cols, rows, cols), from `explain.position_similarity`.
        colour_map: Name of matplotlib's colour map.
        heading: Text above the figure, at most two lines.
        all_patches: Whether every patch of a large grid has its map, in a figure to zoom into.

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    tiles = position_tiles(similarity, all_patches=all_patches)

    # A whole number of pixels a cell: otherwise some cells and gaps would be drawn wider.
    pixels = math.ceil(7 * DPI / max(tiles.values.shape))
    height, width = (side * pixels / DPI for side in tiles.values.shape)
    left, top, bar = 0.75, 0.65, 1.2
    scale_height = max(height, 1.4)  # room for its label
    page = Page(max(left + width + bar, 5.0), top + scale_height + 0.85)
    page.write_heading(heading)
    at = (page.width / 2, page.height - 0.3)
    page.write(tiles.note, at, room=page.room, size=NOTE_SIZE)
    slot = Slot(left, top + (scale_height - height) / 2, width, height)
    drawn = draw_tiles(page.axes(slot), tiles, colour_map=colour_map)
    scale = page.axes(Slot(left + width + 0.2, top, 0.18, scale_height))
    page.figure.colorbar(drawn, cax=scale, label="cosine similarity", extend="neither")
    return page.figure


@dataclass(frozen=True)
class Tiles:
    """The maps of a grid's patches side by side, as they are drawn.

    Attributes:
        values: The maps, with a line of nothing between neighbours; a patch itself is above 1.
        grid_size: (rows, cols) of the grid, and so of each map.
        shown: Numbers of the rows, and of the columns, of patches that have maps.
        limits: Similarities where the colours begin and end.
    """

    values: NDArray[np.float32]
    grid_size: tuple[int, int]
    shown: tuple[NDArray[np.intp], NDArray[np.intp]]
    limits: tuple[float, float]

    @property
    def note(self) -> str:
        """A line on the patches that have a map, where not all have, and on the black ones."""
        (rows, cols), (shown_rows, shown_cols) = self.grid_size, self.shown
        black = "black: the patch itself"
        if (len(shown_rows), len(shown_cols)) == (rows, cols):
            return black
        return (
            f"maps of {len(shown_rows)} of {rows} rows × {len(shown_cols)} of {cols} columns, "
            f"each of all {rows} × {cols} patches; {black}"
        )


def position_tiles(similarity: Tensor, *, all_patches: bool = False) -> Tiles:
    """What `positions_figure` draws of similarities, as its docstring says; the same arguments.

    Raises:
        ValueError: Another shape, or values that are not finite.
    """
    require_finite("similarity", similarity, "(rows, cols, rows, cols)", 4)
    rows, cols = similarity.shape[:2]
    most = max(rows, cols) if all_patches else _MOST
    shown_rows, shown_cols = _spread(rows, most), _spread(cols, most)
    table = similarity.detach().float().cpu().reshape(rows * cols, rows * cols).clone()
    table.fill_diagonal_(_ITSELF)
    maps = table.view(rows, cols, rows, cols)
    return Tiles(
        values=_mosaic(maps[shown_rows][:, shown_cols]),
        grid_size=(rows, cols),
        shown=(shown_rows, shown_cols),
        limits=_limits(table[table < _ITSELF]),
    )


def _limits(similarities: Tensor) -> tuple[float, float]:
    """The lowest and the highest value out to the next tenths, a tenth apart or more."""
    if not len(similarities):
        return 0.9, 1.0
    # A hundred-thousandth is rounding: 0.6 in float32 is more than 0.6.
    highest = math.ceil(10 * float(similarities.max()) - 1e-4) / 10
    lowest = math.floor(10 * float(similarities.min()) + 1e-4) / 10
    return (lowest, highest) if lowest < highest else (highest - 0.1, highest)


def draw_tiles(axes: Axes, tiles: Tiles, *, colour_map: str = COLOUR_MAP) -> AxesImage:
    """Fills empty axes, whose shape is that of the tiles; returns what a bar of colours is for."""
    drawn = axes.imshow(
        tiles.values,
        cmap=matplotlib.colormaps[colour_map].with_extremes(over="black"),
        vmin=tiles.limits[0],
        vmax=tiles.limits[1],
        interpolation="nearest",
        aspect="auto",
        origin="upper",
    )
    (rows, cols), (shown_rows, shown_cols) = tiles.grid_size, tiles.shown
    across, down = (side / axes.figure.dpi for side in (axes.bbox.width, axes.bbox.height))
    for axis, count, shown, length, room in (
        (axes.xaxis, cols, shown_cols, across, text_width(f"{cols} ", NOTE_SIZE)),
        (axes.yaxis, rows, shown_rows, down, line_height(NOTE_SIZE)),
    ):
        fitting = min(16, max(1, int(length / room)))
        places = np.arange(0, len(shown), math.ceil(len(shown) / fitting))
        middles = places * (count + 1) + (count - 1) / 2
        axis.set_ticks(middles.tolist(), shown[places].astype(str).tolist())
    axes.tick_params(length=0, labelsize=NOTE_SIZE)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="input patch column", ylabel="input patch row")
    return drawn


def _spread(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` of the numbers below `count`, both ends among them.

    13 steps, an odd number, never end halfway between two numbers. There rounding goes to the even
    one, and the two sides would differ.
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)


def _mosaic(maps: Tensor) -> NDArray[np.float32]:
    """All maps (R, C, rows, cols) in one, with a line of nothing between neighbours."""
    rows, cols = maps.shape[2:]
    tiles = np.full((*maps.shape[:2], rows + 1, cols + 1), np.nan, dtype=np.float32)
    tiles[:, :, :rows, :cols] = maps.detach().float().cpu().numpy()
    # (R, C, rows + 1, cols + 1) -> (R · (rows + 1) - 1, C · (cols + 1) - 1)
    return rearrange(tiles, "r1 c1 r2 c2 -> (r1 r2) (c1 c2)")[:-1, :-1]
