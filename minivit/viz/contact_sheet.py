"""A contact sheet: many pictures on one page, each under its title, to be looked through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minivit.preprocess import to_rgb
from minivit.viz.page import DPI, axes_at, blank_page, line_height, wrap_lines, write_lines
from minivit.viz.panels import show_pixels

_MARGIN, _GAP = 0.25, 0.12  # inches
_PAGE = 11.0
_NARROWEST, _WIDEST = 1.1, 3.0  # a picture's place
_TALLEST = 1.5  # times its width
_TITLE_LINES, _TITLE_SIZES = 2, (9.0, 8.0, 7.0)  # points; the first that breaks no word


def contact_sheet(images: Sequence[Image.Image], titles: Sequence[str], columns: int) -> Figure:
    """Pictures in rows, in the order given; none is squashed.

    Panels are `figure.axes`, in pixels of the pictures. The page is as wide as the columns need.

    Args:
        images: In any mode and of any sizes.
        titles: One a picture; at most two lines of it are shown.
        columns: Pictures a row; where there are fewer, a narrower page.

    Raises:
        ValueError: No picture, not as many titles, or fewer columns than one.
    """
    if not images or len(images) != len(titles) or columns < 1:
        raise ValueError(
            f"{len(images)} pictures, {len(titles)} titles, {columns} columns; expected as many "
            "pictures as titles, one or more, and one column or more"
        )
    cols = min(columns, len(images))
    place = min(max((_PAGE - 2 * _MARGIN + _GAP) / cols - _GAP, _NARROWEST), _WIDEST)
    for size in _TITLE_SIZES:
        lines = [wrap_lines(title, place, size, _TITLE_LINES) for title in titles]
        words = (" ".join(title.split()) for title in titles)
        if all(" ".join(two) == whole for two, whole in zip(lines, words, strict=True)):
            break  # at spaces only
    shapes = [_fit(image, place) for image in images]

    tops, down = [], _MARGIN / 2
    for first in range(0, len(images), cols):
        row = range(first, min(first + cols, len(images)))
        down += max(len(lines[index]) for index in row) * line_height(size) + 0.06
        tops.append(down)
        down += max(shapes[index][1] for index in row) + _GAP
    wide = cols * (place + _GAP) - _GAP + 2 * _MARGIN
    figure = blank_page(wide, down + _MARGIN / 2)
    for index, (image, (width, height)) in enumerate(zip(images, shapes, strict=True)):
        top, left = tops[index // cols], _MARGIN + index % cols * (place + _GAP)
        middle = left + place / 2
        write_lines(figure, middle, top - 0.04, "\n".join(lines[index]), place, size, above=True)
        small = to_rgb(image).copy()
        small.thumbnail((round(2 * DPI * place), round(2 * DPI * _TALLEST * place)))
        axes = axes_at(figure, (middle - width / 2, top, width, height))
        show_pixels(axes, np.asarray(small), (0.0, 0.0, float(image.width), float(image.height)))
    return figure


def _fit(image: Image.Image, place: float) -> tuple[float, float]:
    """(width, height) in inches of a picture in a place of that width."""
    width = min(place, _TALLEST * place * image.width / image.height)
    return width, width * image.height / image.width
