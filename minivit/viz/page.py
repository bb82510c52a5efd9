"""Pages: measured in inches from their top left, with words that fit.

No layout engine decides: every panel has the shape of what it shows, and neither a long title nor a
slim photo moves another one. Words are foreign text, names of files or what a model said: dollar
signs stay what they are, and characters that cannot be drawn become boxes without a warning.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 140


def blank_page(width: float, height: float) -> Figure:
    """An empty white page of a size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, slot: Sequence[float]) -> Axes:
    """Axes at (left, top, width, height) inches from the page's top left."""
    left, top, width, height = slot
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write_lines(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    room: float,
    size: float,
    *,
    above: bool = False,
    align: str = "center",
) -> None:
    """Writes lines below (or above) a point in inches, each shortened in its middle to fit."""
    wide, high = figure.get_size_inches()
    lines = text.split("\n")
    step = line_height(size)
    with _boxes_without_warning():
        for index, line in enumerate(reversed(lines) if above else lines):
            line = _printable(line)
            height = 1 - (y - index * step if above else y + index * step) / high
            artist = figure.text(
                x / wide,
                height,
                line,
                size=size,
                ha=align,
                va="bottom" if above else "top",
                parse_math=False,
            )
            keep = len(line)
            while keep > 1:
                excess = artist.get_window_extent().width / (room * figure.dpi)
                if excess <= 1:
                    break
                keep = min(keep - 1, int(keep / excess))
                artist.set_text(line[: (keep + 1) // 2] + "…" + line[len(line) - keep // 2 :])


def wrap_lines(text: str, room: float, size: float, most: int) -> list[str]:
    """Breaks a text into lines that fit: at spaces, and inside words that are wider than the room.

    Args:
        text: The text; all that is space in it parts words.
        room: Inches.
        size: Points.
        most: Lines; what is left over stays in the last one, for `write_lines` to shorten.
    """
    ruler = blank_page(1, 1).text(0, 0, "", size=size, parse_math=False)

    def fits(line: str) -> bool:
        ruler.set_text(line)
        return bool(ruler.get_window_extent().width <= room * DPI)

    lines: list[str] = []
    words = _printable(one_line(text)).split(" ")
    with _boxes_without_warning():
        while words and len(lines) < most - 1:
            line = words.pop(0)
            if len(line) > 1 and not fits(line):
                # At least one character, however small the room; never more than 250.
                fitting = (line[:count] for count in range(min(len(line) - 1, 250), 1, -1))
                start = next(filter(fits, fitting), line[0])
                words.insert(0, line[len(start) :])
                line = start
            while words and fits(f"{line} {words[0]}"):
                line = f"{line} {words.pop(0)}"
            lines.append(line)
    return [*lines, " ".join(words)] if words else lines


def one_line(text: str) -> str:
    """The same words with single spaces between them."""
    return " ".join(text.split())


def text_width(text: str, size: float) -> float:
    """Of a line, in inches."""
    page = blank_page(1, 1)
    write_lines(page, 0, 0, text, math.inf, size)
    return float(page.texts[0].get_window_extent().width) / page.dpi


def line_height(size: float) -> float:
    """From one line to the next, in inches, for letters of a size in points."""
    return 1.3 * size / 72


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


@contextlib.contextmanager
def _boxes_without_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
