"""What stands where on the page of a caption: a photo, a panel for each word, and their titles.

All lengths are inches from the page's top left, as in `minivit.viz.page`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MARGIN, GAP = 0.3, 0.15
HEADING, TITLE = 0.6, 0.42  # height of two lines above the page, above a panel
_PAGE, _NARROWEST_PAGE = 11.0, 8.0
_TALLEST = 3.4  # a word's panel
_NARROWEST = 1.17  # a title has this much room, however slim the photo; eight fit on a page
_PAGES = (8.5, 11.0, 14.0, 18.0, 24.0)  # heights that are tried until panels are large enough:
_READABLE, _READABLE_LAYOUT = 1.25, 1.7  # the root of their area
_LEGEND = 1.0  # about

Slot = tuple[float, float, float, float]
"""(left, top, width, height)"""


@dataclass(frozen=True)
class Grid:
    """Places on a page.

    Attributes:
        width: Of the page.
        bottom: Where the last row of panels ends.
        photo: The place of the photo, which it may not fill.
        slots: A panel for each word that has one.
        room: Width for the title of each.
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
        count: Of words.
        aspect: Width / height of their panels.
        layout: (rows, cols), or None to choose.
    """
    full = _PAGE - 2 * MARGIN
    if layout:
        shapes = [(*layout, 1)]
    else:
        shapes = [(math.ceil((count + 1) / cols), cols, 1) for cols in (1, 2, 3)]
        shapes += [(max(2, math.ceil((count + 4) / cols)), cols, 2) for cols in range(4, 9)]

    def panel_height(rows: int, cols: int, page: float) -> float:
        room = max((full + GAP) / cols - GAP, _NARROWEST)
        share = (page - HEADING - _LEGEND) / rows - TITLE - GAP
        return min(room / aspect, _TALLEST, max(share, 0.3))

    for page in _PAGES:
        rows, cols, span = max(
            shapes, key=lambda shape: (round(panel_height(shape[0], shape[1], page), 2), -shape[0])
        )
        height = panel_height(rows, cols, page)
        if height * math.sqrt(aspect) >= (_READABLE_LAYOUT if layout else _READABLE):
            break

    width = aspect * height
    room = max(width, _NARROWEST, (_NARROWEST_PAGE - 2 * MARGIN + GAP) / cols - GAP)
    down, across = TITLE + height + GAP, room + GAP
    top = HEADING + TITLE
    places = [
        (row, col) for row in range(rows) for col in range(cols) if row >= span or col >= span
    ]
    return Grid(
        width=cols * across - GAP + 2 * MARGIN,
        bottom=HEADING + rows * down,
        photo=(MARGIN, top, span * across - GAP, span * down - TITLE - GAP),
        slots=[
            (MARGIN + col * across + (room - width) / 2, top + row * down, width, height)
            for row, col in places[:count]
        ],
        room=room,
    )


def fit_photo(grid: Grid, aspect: float, title: float) -> Grid:
    """Puts the photo at the bottom of its place, with its title above.

    What it leaves free of its place is room for the title; where that is not enough, all rows move
    down.

    Args:
        grid: From `arrange`.
        aspect: Width / height of the photo.
        title: Height of its title.
    """
    left, top, width, height = grid.photo
    wide = min(width, aspect * height)
    high = wide / aspect
    lower = max(0.0, title - TITLE - (height - high))
    return replace(
        grid,
        bottom=grid.bottom + lower,
        photo=(left + (width - wide) / 2, top + lower + height - high, wide, high),
        slots=[(x, y + lower, w, h) for x, y, w, h in grid.slots],
    )
