"""What stands where on the page of a caption: a photo, a panel for each word, and their titles.

All lengths are inches from the page's top left, as in `minivit.viz.page`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from minivit.viz.page import MARGIN, PAGE_WIDTH, Slot

_GAP = 0.15
_HEADING, _TITLE = 0.6, 0.42  # height of two lines above the page, above a panel
_NARROWEST_PAGE = 8.0
_TALLEST = 3.4  # a word's panel
_NARROWEST = 1.17  # a title has this much room, however slim the photo; eight fit on a page
_PAGES = (8.5, 11.0, 14.0, 18.0, 24.0)  # heights that are tried until panels are large enough:
_READABLE, _READABLE_LAYOUT = 1.25, 1.7  # the root of their area
_NEARLY = 0.85  # part of the largest panels that others may have which fill their page better
_LEGEND = 1.0  # about, of what stands below the panels


@dataclass(frozen=True)
class Grid:
    """Places on a page.

    Attributes:
        width: Width of the page.
        bottom: End of the last row of panels.
        photo: Place of the photo, which it may not fill.
        slots: Places of the panels, one for each word that has a panel.
        room: Width for the title of each panel.
    """

    width: float
    bottom: float
    photo: Slot
    slots: list[Slot]
    room: float


def arrange(count: int, aspect: float, layout: tuple[int, int] | None) -> Grid:
    """Places for a photo and so many words: as large as a page that is not too high allows.

    From four columns on the photo takes two by two places, unless the layout is given.

    Args:
        count: Number of words.
        aspect: Width / height of their panels.
        layout: Rows and columns of the page, or None to choose.
    """
    full = PAGE_WIDTH - 2 * MARGIN
    if layout:
        shapes = [(*layout, 1)]
    else:
        shapes = [(math.ceil((count + 1) / cols), cols, 1) for cols in (1, 2, 3)]
        shapes += [(max(2, math.ceil((count + 4) / cols)), cols, 2) for cols in range(4, 9)]

    def panel_height(rows: int, cols: int, page: float) -> float:
        room = max((full + _GAP) / cols - _GAP, _NARROWEST)
        left_for_row = (page - _HEADING - _LEGEND) / rows - _TITLE - _GAP
        return min(room / aspect, _TALLEST, max(left_for_row, 0.3))

    for page in _PAGES:
        heights = {shape: panel_height(shape[0], shape[1], page) for shape in shapes}
        highest = max(heights.values())
        rows, cols, span = min(
            (shape for shape in shapes if heights[shape] >= _NEARLY * highest),
            key=lambda shape: (_free_places(shape, count), -round(heights[shape], 2), shape[0]),
        )
        height = heights[rows, cols, span]
        if height * math.sqrt(aspect) >= (_READABLE_LAYOUT if layout else _READABLE):
            break

    width = aspect * height
    room = max(width, _NARROWEST, (_NARROWEST_PAGE - 2 * MARGIN + _GAP) / cols - _GAP)
    down, across = _TITLE + height + _GAP, room + _GAP
    top = _HEADING + _TITLE
    places = [
        (row, col) for row in range(rows) for col in range(cols) if row >= span or col >= span
    ]
    return Grid(
        width=cols * across - _GAP + 2 * MARGIN,
        bottom=_HEADING + rows * down,
        photo=Slot(MARGIN, top, span * across - _GAP, span * down - _TITLE - _GAP),
        slots=[
            Slot(MARGIN + col * across + (room - width) / 2, top + row * down, width, height)
            for row, col in places[:count]
        ],
        room=room,
    )


def _free_places(shape: tuple[int, int, int], count: int) -> int:
    """Places of (rows, cols, span) that neither the photo nor a word takes."""
    rows, cols, span = shape
    return rows * cols - span * span - count


def fit_photo(grid: Grid, aspect: float, title: float) -> Grid:
    """Puts the photo at the bottom of its place, with its title above.

    The title takes what the photo leaves free of its place; where that is not enough, all rows move
    down.

    Args:
        grid: Places from `arrange`.
        aspect: Width / height of the photo.
        title: Height of the photo's title.
    """
    place = grid.photo
    width = min(place.width, aspect * place.height)
    height = width / aspect
    lower = max(0.0, title - _TITLE - (place.height - height))
    left = place.left + (place.width - width) / 2
    return replace(
        grid,
        bottom=grid.bottom + lower,
        photo=Slot(left, place.top + lower + place.height - height, width, height),
        slots=[replace(slot, top=slot.top + lower) for slot in grid.slots],
    )
