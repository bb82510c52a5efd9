"""Measuring figures in the pixels that were drawn, and in the extents of their words."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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
    """No text leaves the page, or overlaps another text or a panel; the last axes are a scale."""
    page = figure.bbox
    texts = [text for text in figure.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    panels = [axes.get_window_extent() for axes in figure.axes[:-1]]
    scale = figure.axes[-1]
    labels = [label for label in scale.get_xticklabels() if label.get_text()]
    texts += labels
    boxes += [label.get_window_extent() for label in labels]
    for index, one in enumerate(boxes):
        assert page.x0 <= one.x0 and one.x1 <= page.x1, texts[index].get_text()
        assert page.y0 <= one.y0 and one.y1 <= page.y1, texts[index].get_text()
        for other in [*boxes[index + 1 :], *panels, scale.get_window_extent()]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0
            apart = apart or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
            assert apart, texts[index].get_text()
