"""Confusions and mistakes: nothing clipped, nothing squashed, right numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from minivit.viz import confusion_figure, mistakes_figure
from tests.viz.rendered import (
    assert_all_words_are_on_the_page,
    assert_apart,
    assert_words_fit,
    pixels,
)

LONG = "wheaten american staffordshire bull terrier of the north"


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("number", [2, 10, 37, 300])
def test_names_of_classes_do_not_overlap(number: int, long: bool) -> None:
    names = [f"{2 * LONG * long}{index}" for index in range(number)]
    figure = confusion_figure(torch.zeros(number, number), names)
    assert_apart(figure)
    shown = {text.get_text() for text in figure.texts}
    assert (names[0] in shown) != long  # a long one is shortened
    assert (
        figure.axes[0].get_window_extent().width > (0.4 if number > 9 else 0.1) * figure.bbox.width
    )


def test_numbers_are_light_on_dark_and_dark_on_light() -> None:
    figure = confusion_figure(torch.tensor([[9, 1], [5, 5]]), ["a", "b"])
    colours = [(text.get_text(), text.get_color()) for text in figure.axes[0].texts]
    assert colours == [("9", "white"), ("1", "black"), ("5", "white"), ("5", "white")]


@pytest.mark.parametrize("number", [2, 10, 37, 100])
def test_confusions_of_few_and_many_classes(number: int) -> None:
    names = [f"{LONG} {index}" if index % 3 == 0 else f"pug {index}" for index in range(number)]
    confusion = torch.eye(number, dtype=torch.int64) * 40
    confusion[0, 1], confusion[1] = 7, 0  # a class without photos
    figure = confusion_figure(confusion, names)
    assert_all_words_are_on_the_page(figure)
    words = [text.get_text() for text in figure.findobj(Text)]
    assert "truth" in words and "said" in words
    if number <= 10:
        assert "40" in words and "7" in words
    width, height = figure.get_size_inches()
    assert 3 < width < 20 and 3 < height < 20


def test_numbers_are_left_out_where_the_largest_does_not_fit() -> None:
    for count, written in ((40, True), (123456, False)):
        confusion = torch.eye(37, dtype=torch.int64) * count
        figure = confusion_figure(confusion, [f"class {index}" for index in range(37)])
        assert [text.get_text() for text in figure.axes[0].texts] == [f"{count}"] * 37 * written
        assert any("numbers: photos" in text.get_text() for text in figure.texts) == written


def test_names_stand_at_their_own_rows_and_columns() -> None:
    names = ["$x$ first", "second\nline", "third"]
    figure = confusion_figure(torch.eye(3), names)
    frame = figure.axes[0].get_window_extent()
    for index, name in enumerate(names):
        labels = [text for text in figure.texts if text.get_text() == name.replace("\n", " ")]
        row, column = (text.get_window_extent() for text in labels)
        middle = frame.y1 - (index + 0.5) * frame.height / 3
        assert (row.y0 + row.y1) / 2 == pytest.approx(middle, abs=2) and row.x1 < frame.x0
        middle = frame.x0 + (index + 0.5) * frame.width / 3
        assert (column.x0 + column.x1) / 2 == pytest.approx(middle, abs=2)
        assert column.y1 < frame.y0


def test_colours_are_shares_of_a_row_and_a_row_without_photos_has_none() -> None:
    figure = confusion_figure(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 2, 6]]), ["a", "b", "c"])
    (image,) = figure.axes[0].images
    drawn = np.ma.filled(np.ma.masked_invalid(image.get_array()), -1)
    assert drawn.tolist() == [[0.75, 0.25, 0], [-1, -1, -1], [0, 0.25, 0.75]]
    assert image.get_clim() == (0, 1)
    assert any("grey: no photos" in text.get_text() for text in figure.texts)


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


@pytest.mark.parametrize("number", [2, 10])
@pytest.mark.parametrize("long", [True, False])
def test_headings_stand_above_the_figure_and_overlap_nothing(number: int, long: bool) -> None:
    heading = f"validation photos; weights: {LONG * long} pets/best.safetensors"
    names = [f"class {index}" for index in range(number)]
    confusions = confusion_figure(torch.eye(number), names, heading=heading)
    pictures = [Image.new("RGB", (60, 40))] * number
    mistakes = mistakes_figure(pictures, torch.rand(number, 2, 3), [LONG] * number, heading=heading)
    for figure in (confusions, mistakes):
        assert_words_fit(figure)
        top = max(figure.texts, key=lambda text: text.get_window_extent().y1)
        assert top.get_text().startswith("validation photos; weights: ")


@pytest.mark.parametrize("number", [1, 5, 12])
def test_mistakes_keep_their_shape_and_their_titles(number: int) -> None:
    sizes = [(60, 40), (40, 60), (50, 50)]
    images = [Image.new("RGB", sizes[index % 3], "red") for index in range(number)]
    maps = torch.rand(number, 4, 6, generator=torch.Generator().manual_seed(0))
    titles = [f"says {LONG} 97 %, is {LONG}"] * number
    figure = mistakes_figure(images, maps, titles)
    assert_words_fit(figure)
    photos = [axes for axes in figure.axes if axes.images][: 2 * number]
    for index, axes in enumerate(photos):
        box = axes.get_window_extent()
        width, height = sizes[index // 2 % 3]
        assert box.width / box.height == pytest.approx(width / height, rel=0.03)


def test_each_photo_stands_beside_its_own_map_and_below_its_own_title() -> None:
    images = [Image.new("RGB", (60, 40), (50 * index, 0, 0)) for index in range(5)]
    maps = torch.zeros(5, 2, 3)
    for index in range(5):
        maps[index, index % 2, index % 3] = 1 + index
    titles = [f"title {index}" for index in range(5)]
    figure = mistakes_figure(images, maps, titles)
    assert len(figure.axes) == 2 * 5 + 1
    for index in range(5):
        plain, overlay = figure.axes[2 * index : 2 * index + 2]
        assert int(np.asarray(plain.images[0].get_array())[0, 0, 0]) == 50 * index
        assert torch.equal(torch.as_tensor(overlay.images[-1].get_array()), maps[index])
        assert overlay.images[-1].get_clim() == (0, 1 + index)
        left, right = plain.get_window_extent(), overlay.get_window_extent()
        assert (left.y0, left.y1) == pytest.approx((right.y0, right.y1))
        assert 0 < right.x0 - left.x1 < 20
        (title,) = [text for text in figure.texts if text.get_text() == titles[index]]
        place = title.get_window_extent()
        assert place.x0 == pytest.approx(left.x0, abs=2) and 0 < place.y0 - left.y1 < 20


def test_slim_photos_stay_on_the_page_and_titles_have_three_lines() -> None:
    images = [Image.new("RGB", size) for size in ((10, 400), (400, 10), (1, 1))]
    title = f"says {LONG} 97 %, is {LONG}"
    figure = mistakes_figure(images, torch.ones(3, 2, 2), [title] * 3)
    assert figure.get_size_inches()[1] < 6
    lines = [text.get_text() for text in figure.texts][:9]
    assert {lines.count(line) for line in lines} == {3}
    assert " ".join(reversed(lines[:3])) == title
    assert_apart(figure)


def test_mistakes_that_do_not_fit_together_are_refused() -> None:
    image = Image.new("RGB", (6, 4))
    with pytest.raises(ValueError, match="1 pictures, 2 maps and 1 titles"):
        mistakes_figure([image], torch.zeros(2, 2, 3), ["a"])
    with pytest.raises(ValueError, match="one or more"):
        mistakes_figure([], torch.zeros(0, 2, 3), [])
    with pytest.raises(ValueError, match="not finite"):
        mistakes_figure([image], torch.full((1, 2, 3), torch.nan), ["a"])
