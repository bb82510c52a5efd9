"""Pages: measured in inches from their top left, with words that fit.

No layout engine decides: every panel has the shape of what it shows, and neither a long title nor a
slim photo moves another one. Words are foreign text, names of files or a model's sentences: dollar
signs stay what they are, and characters that cannot be drawn become boxes without a warning.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 140
PAGE_WIDTH, MARGIN = 11.0, 0.3  # inches
HEADING_SIZE, TITLE_SIZE, NOTE_SIZE = 12.0, 10.0, 8.0  # points
_HEADING = 0.45  # inches that a heading of two lines takes


@dataclass(frozen=True)
class Slot:
    """A rectangle on a page, in inches from the page's top left.

    Attributes:
        left: Distance of its left edge.
        top: Distance of its upper edge.
        width: Width of the rectangle.
        height: Height of the rectangle.
    """

    left: float
    top: float
    width: float
    height: float

    @property
    def center(self) -> float:
        """Distance of its middle from the page's left edge."""
        return self.left + self.width / 2


class Page:
    """A white page for panels and words.

    Attributes:
        figure: The page as a matplotlib figure that pyplot does not know.
        width: Width in inches.
        height: Height in inches, the room for a heading counted.
        room: Width between the margins, in inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.width, self.height = width, height
        self.room = width - 2 * MARGIN
        self._cut = 0.0

    def axes(self, slot: Slot) -> Axes:
        """New axes that fill a slot."""
        bottom, top = self.from_bottom(slot.top + slot.height), self.from_bottom(slot.top)
        left, width = slot.left / self.width, slot.width / self.width
        return self.figure.add_axes((left, bottom, width, top - bottom))

    def from_bottom(self, y: float) -> float:
        """A distance in inches from the page's top as matplotlib has it: part of the figure."""
        return 1 - (y - self._cut) / (self.height - self._cut)

    def write(
        self,
        text: str,
        at: tuple[float, float],
        *,
        room: float,
        size: float,
        above: bool = False,
        align: str = "center",
    ) -> list[Text]:
        """Writes lines below (or above) a point, each shortened in its middle to fit.

        Args:
            text: One line or several.
            at: (x, y) of the point, in inches from the page's top left.
            room: Width for a line, in inches.
            size: Size of the letters, in points.
            above: Whether the last line stands on the point, instead of the first one below it.
            align: Part of the lines that stands at x: "left", "center" or "right".

        Returns:
            The lines as matplotlib texts, from the point outwards.
        """
        x, y = at
        step = line_height(size) * (-1 if above else 1)
        lines = text.split("\n")
        texts = []
        with _boxes_without_warning():
            for index, line in enumerate(reversed(lines) if above else lines):
                drawn = self.figure.text(
                    x / self.width,
                    self.from_bottom(y + index * step),
                    _printable(line),
                    size=size,
                    ha=align,
                    va="bottom" if above else "top",
                    parse_math=False,
                )
                _shorten(drawn, room)
                texts.append(drawn)
        return texts

    def write_heading(self, text: str) -> None:
        """Writes at most two lines at the top of the page, before all else.

        Of no text the room is cut off: what stands below comes nearer to the edge of the paper.
        """
        if text:
            self.write(text, (self.width / 2, 0.1), room=self.room, size=HEADING_SIZE)
        else:
            self._cut = _HEADING
            self.figure.set_size_inches(self.width, self.height - self._cut)


def wrap_lines(text: str, room: float, size: float, most: int) -> list[str]:
    """Breaks a text into lines that fit: at spaces, and inside words that are wider than the room.

    Args:
        text: The text; any white space in it parts words.
        room: Width of a line in inches.
        size: Size of the letters in points.
        most: Number of lines; the last one takes the rest, for `Page.write` to shorten.
    """
    ruler = Page(1, 1).figure.text(0, 0, "", size=size, parse_math=False)

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
                beginnings = (line[:count] for count in range(min(len(line) - 1, 250), 1, -1))
                start = next(filter(fits, beginnings), line[0])
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
    """Width of a line in inches, for letters of a size in points."""
    (line,) = Page(1, 1).write(text, (0, 0), room=math.inf, size=size)
    return float(line.get_window_extent().width) / DPI


def line_height(size: float) -> float:
    """Distance from one line to the next in inches, for letters of a size in points."""
    return 1.3 * size / 72


def stack_rows(
    titles: Sequence[float], panels: Sequence[float], *, columns: int, top: float, gap: float
) -> tuple[list[float], float]:
    """Stacks rows of panels with a title above each, as high as the highest of the row needs.

    Args:
        titles: Heights of the titles, panel by panel.
        panels: Heights of the panels.
        columns: Number of panels in a row.
        top: Place of the first row's upper edge.
        gap: Space below each row.

    Returns:
        The upper edge of each row's panels, and the end of the last gap.
    """
    tops = []
    for first in range(0, len(panels), columns):
        top += max(titles[first : first + columns]) + 0.06
        tops.append(top)
        top += max(panels[first : first + columns]) + gap
    return tops, top


def _shorten(text: Text, room: float) -> None:
    """Replaces the middle of a text by an ellipsis until it is no wider than `room` inches."""
    line = text.get_text()
    keep = len(line)
    while keep > 1:
        excess = text.get_window_extent().width / (room * DPI)
        if excess <= 1:
            break
        keep = min(keep - 1, int(keep / excess))
        text.set_text(line[: (keep + 1) // 2] + "…" + line[len(line) - keep // 2 :])


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


@contextlib.contextmanager
def _boxes_without_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
