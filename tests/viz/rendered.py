"""Measuring figures in the pixels that were drawn, and in the extents of their words."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text


def pixels(figure: Figure) -> np.ndarray:
    """(height, width, 3), whole numbers."""
    if figure.stale:
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def highlighted(with_cell: Figure, without: Figure, panel: int) -> tuple[float, ...]:
    """(left, top, right, bottom), in pixels of the photo, of what differs inside a panel."""
    differs = np.abs(pixels(with_cell) - pixels(without)).max(axis=2) > 8
    axes = with_cell.axes[panel]
    frame = axes.get_window_extent()
    height = differs.shape[0]
    y, x = np.nonzero(differs)
    inside = (x >= frame.x0) & (x < frame.x1) & (height - y > frame.y0) & (height - y <= frame.y1)
    x, y = x[inside], y[inside]
    back = axes.transData.inverted().transform
    left, top = back((x.min(), height - y.min()))
    right, bottom = back((x.max() + 1, height - y.max() - 1))
    return left, top, right, bottom


def screen_pixel(axes: Axes) -> float:
    """The size of a pixel of the figure in pixels of the photo."""
    left, right = axes.get_xlim()
    return (right - left) / axes.get_window_extent().width


def assert_words_fit(figure: Figure) -> None:
    """No text leaves the page, or overlaps another text or a panel."""
    assert_all_words_are_on_the_page(figure)
    assert_apart(figure)


def assert_all_words_are_on_the_page(figure: Figure) -> None:
    figure.canvas.draw()
    page = figure.bbox
    hidden = set()  # matplotlib keeps ticks beyond the limits, which are not drawn
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text not in hidden:
            box = text.get_window_extent()
            inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
            inside = inside and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
            assert inside, text.get_text()


def assert_apart(figure: Figure, slack: float = 1) -> None:
    """No text of the page overlaps another one, or a panel, its ticks and titles."""
    figure.canvas.draw()
    texts = [text for text in figure.texts if text.get_text()]
    boxes = [text.get_window_extent().padded(-slack) for text in texts]
    panels = [axes.get_tightbbox() for axes in figure.axes]
    for index, box in enumerate(boxes):
        for other in [*boxes[index + 1 :], *panels]:
            assert other is None or not box.overlaps(other), texts[index].get_text()
