"""A contact sheet: every picture in its place and shape, each title whole above its own picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from minivit.viz import contact_sheet

LONG = "american staffordshire bull terrier of the north and the south"
SIZES = [(60, 40), (40, 60), (600, 80), (20, 400), (28, 28)]


@pytest.mark.parametrize(("number", "columns"), [(1, 6), (7, 6), (12, 3), (64, 8), (64, 16)])
def test_pictures_stand_in_rows_in_their_own_shape(number: int, columns: int) -> None:
    images = [Image.new("RGB", SIZES[n % 5], (3 * n, 0, 0)) for n in range(number)]
    figure = contact_sheet(images, [f"{n} {LONG}" for n in range(number)], columns)
    assert len(figure.axes) == number
    frames = [axes.get_window_extent() for axes in figure.axes]
    for n, (axes, frame) in enumerate(zip(figure.axes, frames, strict=True)):
        assert int(np.asarray(axes.images[0].get_array())[0, 0, 0]) == 3 * n
        width, height = SIZES[n % 5]
        assert frame.width / frame.height == pytest.approx(width / height, rel=0.01)
        assert axes.get_xlim() == (0, width) and axes.get_ylim() == (height, 0)
        if n % columns:
            assert frame.y1 == pytest.approx(frames[n - 1].y1) and frame.x0 > frames[n - 1].x1
        elif n:
            assert frame.y1 < min(before.y0 for before in frames[n - columns : n])


@pytest.mark.parametrize(("number", "columns"), [(1, 6), (7, 6), (64, 8), (64, 16)])
def test_titles_fit_and_stand_above_their_pictures(number: int, columns: int) -> None:
    images = [Image.new("RGB", SIZES[n % 5]) for n in range(number)]
    figure = contact_sheet(images, [f"{n}) {LONG} {LONG} $x$" for n in range(number)], columns)
    page, texts = figure.bbox, list(figure.texts)
    places = [text.get_window_extent() for text in texts]
    for n, axes in enumerate(figure.axes):
        frame = axes.get_window_extent()
        (index,) = [i for i, text in enumerate(texts) if text.get_text().startswith(f"{n}) ")]
        place = places[index]
        assert (place.x0 + place.x1) / 2 == pytest.approx((frame.x0 + frame.x1) / 2, abs=1)
        assert 0 < place.y0 - frame.y1 < 60
    for n, one in enumerate(places):
        assert page.x0 <= one.x0 and one.x1 <= page.x1 and page.y0 <= one.y0 and one.y1 <= page.y1
        for other in [*places[n + 1 :], *(axes.get_window_extent() for axes in figure.axes)]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1


@pytest.mark.parametrize(("number", "columns"), [(1, 1), (1, 9), (3, 9), (9, 9), (64, 64)])
def test_the_page_is_as_wide_as_its_pictures_need(number: int, columns: int) -> None:
    images = [Image.new("RGB", (30, 300))] + [Image.new("RGB", (60, 40))] * (number - 1)
    figure = contact_sheet(images, ["pug"] * number, columns)
    first, last = (axes.get_window_extent() for axes in (figure.axes[0], figure.axes[-1]))
    place = last.width if number > 1 else first.height / 1.5
    assert first.height == pytest.approx(1.5 * place, rel=0.01)  # however slim
    assert 1 <= place / figure.dpi <= 3.01
    spare = figure.bbox.width - number * place - (number - 1) * 0.12 * figure.dpi
    assert spare == pytest.approx(0.5 * figure.dpi, abs=2)


def test_letters_shrink_before_a_word_is_broken() -> None:
    def sheet(title: str) -> list[tuple[str, float]]:
        figure = contact_sheet([Image.new("RGB", (6, 4))] * 6, [title] * 6, 6)
        return [(text.get_text(), text.get_fontsize()) for text in figure.texts[:2]]

    assert sheet("pug") == [("pug", 9.0)] * 2
    ((name, size), _) = sheet("american_staffordshire_terrier")
    assert name == "american_staffordshire_terrier" and size in (7.0, 8.0)


def test_any_mode_is_shown_and_large_pictures_are_not_kept_whole() -> None:
    images = [Image.new(mode, (3000, 2000)) for mode in ("L", "RGBA", "P", "I;16")]
    figure = contact_sheet(images, ["a", "b", "c", "d"], 4)
    for axes in figure.axes:
        height, width, channels = np.asarray(axes.images[0].get_array()).shape
        assert channels == 3 and height < width < 1000


@pytest.mark.parametrize(("titles", "columns"), [([], 1), (["a", "b"], 1), (["a"], 0)])
def test_impossible_sheets_are_refused(titles: list[str], columns: int) -> None:
    images = [Image.new("RGB", (6, 4))] if titles else []
    with pytest.raises(ValueError, match=f"{len(titles)} titles, {columns} columns"):
        contact_sheet(images, titles, columns)
