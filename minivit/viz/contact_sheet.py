"""A contact sheet: many pictures on one page, each under its title, to be looked through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minivit.fields import renamed_arguments
from minivit.preprocess import to_rgb
from minivit.viz.page import DPI, PAGE_WIDTH, Page, Slot, line_height, stack_rows, wrap_lines
from minivit.viz.panels import show_pixels, whole_box

_MARGIN, _GAP = 0.25, 0.12  # inches
_NARROWEST, _WIDEST = 1.1, 3.0  # a picture's place
_TALLEST = 1.5  # times its width
_TITLE_LINES, _TITLE_SIZES = 2, (9.0, 8.0, 7.0)  # points; the first that breaks no word


@renamed_arguments(images="pictures")
def contact_sheet(pictures: Sequence[Image.Image], titles: Sequence[str], columns: int) -> Figure:
    """Pictures in rows, in the order given; none is squashed.

    Panels are `figure.axes`, in pixels of the pictures. The page is as wide as the columns need.

    Args:
        pictures: Pictures in any mode and of any sizes.
        titles: Titles, one a picture; at most two lines of each are shown.
        columns: Number of pictures in a row; where there are fewer, the page is narrower.

    Raises:
        ValueError: No picture, not as many titles, or fewer columns than one.
    """
    if not pictures or len(pictures) != len(titles) or columns < 1:
        raise ValueError(
            f"{len(pictures)} pictures, {len(titles)} titles, {columns} columns; expected as many "
            "pictures as titles, one or more, and one column or more"
        )
    cols = min(columns, len(pictures))
    place = min(max((PAGE_WIDTH - 2 * _MARGIN + _GAP) / cols - _GAP, _NARROWEST), _WIDEST)
    size, lines = _wrap_titles(titles, place)
    shapes = [_fit(picture, place) for picture in pictures]
    tops, bottom = stack_rows(
        [len(title) * line_height(size) for title in lines],
        [height for _, height in shapes],
        columns=cols,
        top=_MARGIN / 2,
        gap=_GAP,
    )
    page = Page(cols * (place + _GAP) - _GAP + 2 * _MARGIN, bottom + _MARGIN / 2)
    for index, (picture, (width, height)) in enumerate(zip(pictures, shapes, strict=True)):
        top, middle = tops[index // cols], _MARGIN + index % cols * (place + _GAP) + place / 2
        text, at = "\n".join(lines[index]), (middle, top - 0.04)
        page.write(text, at, room=place, size=size, above=True)
        small = to_rgb(picture).copy()
        small.thumbnail((round(2 * DPI * place), round(2 * DPI * _TALLEST * place)))
        axes = page.axes(Slot(middle - width / 2, top, width, height))
        show_pixels(axes, np.asarray(small), whole_box(picture))
    return page.figure


def _wrap_titles(titles: Sequence[str], room: float) -> tuple[float, list[list[str]]]:
    """The largest size of letters with which no word is broken, or the smallest, and all lines."""
    for size in _TITLE_SIZES:
        lines = [wrap_lines(title, room, size, _TITLE_LINES) for title in titles]
        whole = (" ".join(title.split()) for title in titles)
        if all(" ".join(broken) == title for broken, title in zip(lines, whole, strict=True)):
            break
    return size, lines


def _fit(picture: Image.Image, place: float) -> tuple[float, float]:
    """Width and height in inches of a picture in a place of that width."""
    width = min(place, _TALLEST * place * picture.width / picture.height)
    return width, width * picture.height / picture.width
