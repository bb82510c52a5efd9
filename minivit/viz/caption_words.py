"""Words on the page of a caption: the sentence, a title for each word, colours and notes below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from minivit.viz.caption_pages import Grid
from minivit.viz.page import MARGIN, NOTE_SIZE, TITLE_SIZE, Page, Slot, line_height, wrap_lines
from minivit.viz.panels import DIVERGING_MAP, add_scale

_MOST_LINES = 12  # of a caption above its photo
_SCALE, _NOTES = 2.0, 2.4  # inches: width of the colour bar, and where the notes beside it begin
_LEFT_OUT_SIZE, _LARGEST_SIZE = 9.0, 7.0  # points: words without a panel, second line of a title
# Pairs of a room in inches and the size in points that it takes; the first that fits counts.
_CAPTION_SIZES = ((3.0, 11.0), (2.2, 10.0), (0.0, 8.5))
_WORD_SIZES = ((2.2, TITLE_SIZE), (1.5, 9.0), (0.0, 8.0))

# ---- above the panels ----------------------------------------------------------------------------


class Sentence:
    """The caption above its photo.

    Attributes:
        height: Height of its lines with some air.
    """

    def __init__(self, text: str, room: float) -> None:
        self._room, self._size = room, _fitting_size(room, _CAPTION_SIZES)
        self._lines = wrap_lines(text, room, self._size, _MOST_LINES)
        self.height = len(self._lines) * line_height(self._size) + 0.1

    def write(self, page: Page, photo: Slot) -> None:
        """Writes the lines above the photo's slot."""
        foot = (photo.center, photo.top - 0.05)
        text = "\n".join(self._lines)
        page.write(text, foot, room=self._room, size=self._size, above=True)


@dataclass(frozen=True)
class Title:
    """Two lines above a word's panel.

    Attributes:
        name: The word.
        probability: Its probability, as it is written.
        largest: Second line: the highest value of its map.
    """

    name: str
    probability: str
    largest: str

    def write(self, page: Page, slot: Slot, room: float) -> None:
        """Writes both lines above the panel's slot."""
        x, y = slot.center, slot.top - 0.04
        size = _fitting_size(room, _WORD_SIZES)
        page.write(self.largest, (x, y), room=room, size=_LARGEST_SIZE, above=True)
        y -= line_height(_LARGEST_SIZE)
        page.write(f"{self.name} {self.probability}", (x, y), room=room, size=size, above=True)


def _fitting_size(room: float, sizes: tuple[tuple[float, float], ...]) -> float:
    """The first size of letters for which there is room."""
    return next(size for least, size in sizes if room >= least)


# ---- below the panels ----------------------------------------------------------------------------


class Colours(NamedTuple):
    """How the maps are coloured: arguments of `overlay`, the same for all words.

    Attributes:
        ratios_to: End of a scale of ratios; None: the scale is that of weights.
        maximum: End of a scale of weights that all words share; None: each has its own.
        colour_map: Name of matplotlib's colour map for weights.
    """

    ratios_to: float | None
    maximum: float | None
    colour_map: str


@dataclass(frozen=True)
class Footer:
    """Words that have no panel, the bar of colours, and beside it what a reader has to know.

    Attributes:
        top: Place of the words that have no panel, in inches from the page's top.
        legend: Place of the colours and the notes.
        left_out: Lines that name the words that have no panel.
        notes: Lines beside the bar of colours.
        colours: Colours that the bar shows.
    """

    top: float
    legend: float
    left_out: list[str]
    notes: list[str]
    colours: Colours

    @classmethod
    def below(cls, grid: Grid, left_out: list[Title], notes: list[str], colours: Colours) -> Footer:
        """Breaks the words into lines that fit below the panels."""
        room = grid.width - 2 * MARGIN
        names = _name(left_out, room)
        lines = [line for note in notes for line in wrap_lines(note, room - _NOTES, NOTE_SIZE, 3)]
        height = 0.16 + len(names) * line_height(_LEFT_OUT_SIZE) if names else 0
        return cls(grid.bottom + 0.08, grid.bottom + 0.12 + height, names, lines, colours)

    @property
    def bottom(self) -> float:
        """Height of the page that ends with this footer."""
        return self.legend + max(len(self.notes) * line_height(NOTE_SIZE), 0.4) + 0.15

    def draw(self, page: Page) -> None:
        """Writes the lines and draws the colours."""
        at = (page.width / 2, self.top)
        page.write("\n".join(self.left_out), at, room=page.room, size=_LEFT_OUT_SIZE)
        at, room = (MARGIN + _NOTES, self.legend), page.room - _NOTES
        page.write("\n".join(self.notes), at, room=room, size=NOTE_SIZE, align="left")
        slot = Slot(MARGIN, self.legend + 0.07, _SCALE, 0.13)
        limit, maximum, colour_map = self.colours
        if limit is None:
            end = "maximum" if maximum is None else f"{maximum:#.2g}"
            add_scale(page, slot, {0: "0", 1: end}, colour_map=colour_map)
        else:
            add_scale(page, slot, _ratio_labels(limit), colour_map=DIVERGING_MAP)


def _ratio_labels(limit: float) -> dict[float, str]:
    """Labels of a logarithmic scale from 1/limit to limit, by their place from 0 to 1."""
    labels = {0.0: f"≤ 1/{limit:.0f}", 0.5: "1", 1.0: f"≥ {limit:.0f}"}
    steps = round(math.log2(limit))
    if between := steps // 2:
        offset = between / steps / 2
        labels |= {0.5 - offset: f"1/{2**between}", 0.5 + offset: f"{2**between}"}
    return labels


def _name(titles: list[Title], room: float) -> list[str]:
    """Lines that name the words for which there is no panel."""
    if not titles:
        return []
    names = " ".join(title.name for title in titles)
    words = "words" if len(titles) > 1 else "word"
    return wrap_lines(f"{len(titles)} more {words}: {names}", room, _LEFT_OUT_SIZE, 4)
