"""Confusions, mistakes and comparisons: nothing clipped, nothing squashed, right numbers."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minivit.training.task import Epoch
from minivit.viz import comparison_figure, confusion_figure, contact_sheet, mistakes_figure
from tests.viz.rendered import pixels

LONG = "wheaten american staffordshire bull terrier of the north"


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
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text() and text not in hidden:
            box = text.get_window_extent()
            inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
            inside = inside and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
            assert inside, text.get_text()


@pytest.mark.parametrize("number", [2, 10, 37, 100])
def test_confusions_of_few_and_many_classes(number: int) -> None:
    names = [f"{LONG} {index}" if index % 3 == 0 else f"pug {index}" for index in range(number)]
    confusion = torch.eye(number, dtype=torch.int64) * 40
    confusion[0, 1], confusion[1] = 7, 0  # a class without photos
    figure = confusion_figure(confusion, names)
    assert_all_words_are_on_the_page(figure)
    words = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert "truth" in words and "said" in words
    if number <= 10:
        assert "40" in words and "7" in words
    width, height = figure.get_size_inches()
    assert 3 < width < 20 and 3 < height < 20


def test_rows_are_the_truth() -> None:
    """A photo of class 0 that was called 2 is drawn in the first row, third column."""
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    plain = pixels(confusion_figure(confusion, ["a", "b", "c"]))
    confusion[0, 2] = 5
    figure = confusion_figure(confusion, ["a", "b", "c"])
    differs = abs(pixels(figure) - plain).max(axis=2) > 8
    frame = figure.axes[0].get_window_extent()
    height = differs.shape[0]
    x = int(frame.x0 + frame.width * 5 / 6 - frame.width / 12)  # beside the number
    y = int(height - frame.y1 + frame.height / 12)
    assert differs[y, x]


def test_confusions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="names"):
        confusion_figure(torch.zeros(3, 3), ["a", "b"])


@pytest.mark.parametrize("number", [1, 5, 12])
def test_mistakes_keep_their_shape_and_their_titles(number: int) -> None:
    sizes = [(60, 40), (40, 60), (50, 50)]
    images = [Image.new("RGB", sizes[index % 3], "red") for index in range(number)]
    maps = torch.rand(number, 4, 6, generator=torch.Generator().manual_seed(0))
    titles = [f"says {LONG} 97 %, is {LONG}"] * number
    figure = mistakes_figure(images, maps, titles)
    assert_all_words_are_on_the_page(figure)
    photos = [axes for axes in figure.axes if axes.images][: 2 * number]
    for index, axes in enumerate(photos):
        box = axes.get_window_extent()
        width, height = sizes[index // 2 % 3]
        assert box.width / box.height == pytest.approx(width / height, rel=0.03)


def epochs(number: int, start: float) -> list[Epoch]:
    return [Epoch(n + 1, 0.1, 1 / (n + 1), 1.1 / (n + 1), start + n / 50, n) for n in range(number)]


@pytest.mark.parametrize("number", [2, 8])
def test_runs_are_compared_with_a_legend_that_fits(number: int) -> None:
    runs = [
        (f"weights={LONG},lr={index}e-4", epochs(1 + 4 * index, index / 10))
        for index in range(number)
    ]
    figure = comparison_figure(runs)
    assert_all_words_are_on_the_page(figure)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(lines) >= number


@pytest.mark.parametrize("number", [1, 7, 64])
def test_a_contact_sheet_shows_every_picture_with_its_title(number: int) -> None:
    images = [Image.new("RGB", (60, 40) if index % 2 else (30, 60)) for index in range(number)]
    titles = [f"{LONG} {index}" for index in range(number)]
    figure = contact_sheet(images, titles, 6)
    assert_all_words_are_on_the_page(figure)
    assert len([axes for axes in figure.axes if axes.images]) == number
