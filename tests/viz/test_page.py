"""Pages: a panel or a line stands exactly where its inches say, and lines fit their room."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from minivit.viz.page import DPI, Page, Slot, line_height, stack_rows, text_width, wrap_lines
from tests.viz.rendered import pixels

THIRTY = (
    "a young girl with hair sits at a table in front of a large window and is eating a piece of "
    "chocolate cake with a silver fork while smiling happily"
)


def test_a_slot_is_measured_in_inches_from_the_top_left() -> None:
    page = Page(3.0, 2.0)
    axes = page.axes(Slot(left=0.5, top=0.25, width=2.0, height=1.0))
    axes.set(xticks=[], yticks=[], facecolor="black")
    rows, cols = np.nonzero(pixels(page.figure).max(axis=2) < 100)
    assert (cols.min() / DPI, rows.min() / DPI) == pytest.approx((0.5, 0.25), abs=1.5 / DPI)
    assert (cols.max() / DPI, rows.max() / DPI) == pytest.approx((2.5, 1.25), abs=1.5 / DPI)


def test_lines_stand_below_or_above_a_point_and_come_back_from_it_outwards() -> None:
    page = Page(4.0, 2.0)
    below = page.write("one\ntwo", (2.0, 1.0), room=2, size=9)
    above = page.write("three\nfour", (2.0, 1.0), room=2, size=9, above=True)
    assert [line.get_text() for line in below + above] == ["one", "two", "four", "three"]
    for lines, sign in ((below, 1), (above, -1)):
        near, far = (page.height - line.get_position()[1] * page.height for line in lines)
        assert (near, far) == pytest.approx((1.0, 1.0 + sign * line_height(9)))
    assert below[0].get_window_extent().y1 <= DPI <= above[0].get_window_extent().y0


@pytest.mark.parametrize(("align", "side"), [("left", "x0"), ("right", "x1")])
def test_a_line_ends_at_its_point_on_the_side_that_is_asked_for(align: str, side: str) -> None:
    (line,) = Page(4.0, 1.0).write("word", (2.0, 0.5), room=1, size=9, align=align)
    assert getattr(line.get_window_extent(), side) == pytest.approx(2.0 * DPI, abs=1.5)


def test_a_long_line_is_shortened_in_its_middle_until_it_fits() -> None:
    (line,) = Page(4.0, 1.0).write(THIRTY, (0, 0), room=1.5, size=9)
    start, end = line.get_text().split("…")
    assert THIRTY.startswith(start) and THIRTY.endswith(end) and abs(len(start) - len(end)) <= 1
    width = text_width(line.get_text(), 9)
    assert 1.3 < width <= 1.5


def test_a_row_is_as_high_as_its_highest_title_and_panel() -> None:
    tops, bottom = stack_rows([1, 3, 2], [10, 20, 5], columns=2, top=0.5, gap=0.25)
    assert tops == pytest.approx([0.5 + 3 + 0.06, 23.56 + 0.25 + 2 + 0.06])
    assert bottom == pytest.approx(tops[1] + 5 + 0.25)


@pytest.mark.parametrize("text", [THIRTY, "猫" * 60, "x" * 90 + " y", "a", "", "two " + "w" * 40])
@pytest.mark.parametrize("room", [0.1, 1.2, 4.0])
def test_wrapped_lines_fit_and_nothing_is_lost(text: str, room: float) -> None:
    lines = wrap_lines(text, room, 9, 1000)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    ruler = Page(1, 1).figure
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for line in lines:
            label = ruler.text(0, 0, line, size=9)
            assert label.get_window_extent().width <= room * ruler.dpi or len(line) == 1
    if room == 4.0 and text == THIRTY:
        assert " ".join(lines) == text and len(lines) <= 4
    short = wrap_lines(text, room, 9, 2)
    assert len(short) <= 2 and "".join(short).replace(" ", "") == text.replace(" ", "")


def test_without_a_heading_its_room_is_cut_off_and_the_rest_stays_as_large() -> None:
    boxes = []
    for heading in ("one line\nand another", ""):
        page = Page(4.0, 3.0)
        page.write_heading(heading)
        axes = page.axes(Slot(0.5, 1.0, 2.0, 1.5))
        (below,) = page.write("word", (1.0, 2.6), room=2, size=9)
        frame = axes.get_window_extent()
        boxes.append((page.figure.bbox.height / DPI, frame, below.get_window_extent()))
    (high, frame, word), (low, same_frame, same_word) = boxes
    assert high == 3.0 and low == pytest.approx(2.55)
    for one, other in ((frame, same_frame), (word, same_word)):
        assert one.bounds == pytest.approx(other.bounds)  # from the bottom: nothing moved
