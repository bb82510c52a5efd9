"""Figures of runs: the numbers that they show, and pictures of their own shape."""

import io
import itertools

import pytest
import torch
from matplotlib.lines import Line2D
from PIL import Image

from minivit.training.task import Epoch
from minivit.viz import comparison_figure, curves_figure, gallery_figure
from tests.viz.rendered import assert_all_words_are_on_the_page, assert_words_fit

LONG = "wheaten american staffordshire bull terrier of the north"
BEST = [(1, 2.0, 0.2), (2, 1.5, 0.6), (3, 1.7, 0.5), (4, 1.6, 0.6)]  # of equals the last counts
EPOCHS = [Epoch(1, 0.1, 3.0, 2.5, 0.25, 10.0), Epoch(2, 0.0, 2.0, 2.25, 0.5, 20.0)]


def test_curves_show_the_figures_of_the_epochs() -> None:
    loss, accuracy = curves_figure(EPOCHS, chance=0.125).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert drawn == {"training": [3.0, 2.0], "validation": [2.5, 2.25]}
    assert list(accuracy.lines[0].get_ydata()) == [25.0, 50.0]
    assert accuracy.lines[1].get_ydata()[0] == 12.5
    assert "chance 12.5 %" in accuracy.get_legend_handles_labels()[1]
    assert [text.get_text() for text in accuracy.texts] == ["50.0 %"]


def test_one_epoch_is_drawn_too() -> None:
    loss, _ = curves_figure(EPOCHS[:1], chance=0.5).axes
    assert loss.lines[0].get_marker() == "o"  # a line of one point would not be seen


@pytest.mark.parametrize("name", ["pets", LONG.replace(" ", "-") * 4, "a $x$_b"])
def test_curves_name_their_run_whatever_it_is_called(name: str) -> None:
    figure = curves_figure(EPOCHS, heading=f"run: {name}")
    figure.savefig(io.BytesIO())  # lays the page out
    heading = figure.get_suptitle()
    assert heading.replace("\n", "").replace(" ", "") == f"run:{name}".replace(" ", "")
    assert_all_words_are_on_the_page(figure)
    assert all(axes.get_window_extent().height > 150 for axes in figure.axes)


@pytest.mark.parametrize(("best", "top"), [(0.06, 7.5), (0.3, 37.5), (0.5, 100), (0.97, 100)])
def test_the_axis_of_accuracies_fits_a_run_that_learns_little(best: float, top: float) -> None:
    run = [Epoch(1, 0.1, 3.0, 3.0, best / 2, 1.0), Epoch(2, 0.0, 2.9, 3.0, best, 2.0)]
    assert curves_figure(run, chance=0.03).axes[1].get_ylim() == pytest.approx((0, top))


def test_the_best_epoch_is_marked_where_it_is_the_best() -> None:
    run = [Epoch(n, 0.1, 3.0, loss, accuracy, 1.0) for n, loss, accuracy in BEST]
    for best_by, epoch, value in (("loss", 2, 1.5), ("accuracy", 4, 60.0)):
        figure = curves_figure(run, best_by=best_by)
        marks = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "*"]
        assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == [(epoch, value)]
        assert marks[0].get_label() == f"best: epoch {epoch}"
    assert not any(line.get_marker() == "*" for line in curves_figure(run).axes[0].lines)


def test_lines_that_coincide_can_be_told_apart() -> None:
    figure = comparison_figure([(f"seed {number}", epochs(5, 0.5)) for number in range(12)])
    looks = {(str(line._dash_pattern), line.get_color()) for line in figure.axes[0].lines}
    assert len(looks) == 12
    for one, other in itertools.pairwise(figure.axes[0].lines):
        assert one._dash_pattern != other._dash_pattern  # the upper one has gaps of its own


@pytest.mark.parametrize("count", [1, 4, 5])
def test_gallery_keeps_the_shape_of_the_pictures_and_the_order_of_the_maps(count: int) -> None:
    images = [Image.new("RGB", (90, 60), (40 * index, 0, 0)) for index in range(count)]
    maps = torch.zeros(count, 2, 3)
    for index in range(count):
        maps[index, index % 2, index % 3] = 1.0
    figure = gallery_figure(images, maps, [f"picture {index}" for index in range(count)])
    figure.savefig(io.BytesIO())  # lays the page out
    *used, scale = figure.axes
    assert len(used) == 2 * count and all(axes.images for axes in used)
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "maximum"]
    assert_words_fit(figure)
    titles = {text.get_text(): text.get_window_extent() for text in figure.texts}
    for index in range(count):
        plain, overlay = used[2 * index], used[2 * index + 1]
        title, below = titles[f"picture {index}"], plain.get_window_extent()
        assert title.x0 == pytest.approx(below.x0, abs=2) and 0 < title.y0 - below.y1 < 12
        for axes in (plain, overlay):
            box = axes.get_window_extent()
            assert box.width / box.height == pytest.approx(1.5, rel=0.03)
        shown = torch.as_tensor(overlay.images[-1].get_array())
        assert torch.equal(shown, maps[index])


def epochs(number: int, start: float) -> list[Epoch]:
    return [Epoch(n + 1, 0.1, 1 / (n + 1), 1.1 / (n + 1), start + n / 50, n) for n in range(number)]


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_runs_are_compared_with_a_legend_that_fits(number: int) -> None:
    runs = [
        (f"weights={LONG},lr={index}e-4", epochs(1 + 4 * index, index / 10))
        for index in range(number)
    ]
    figure = comparison_figure(runs)
    assert_words_fit(figure)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    assert len(lines) >= number


def test_the_lines_are_the_figures_of_the_runs_and_the_legend_has_their_colours() -> None:
    runs = [("first", epochs(4, 0.25)), ("nothing", []), ("_last $x$", epochs(1, 0.5))]
    figure = comparison_figure(runs)
    loss, accuracy = figure.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [
        [epoch.val_loss for epoch in runs[index][1]] for index in (0, 2)
    ]
    assert [list(line.get_ydata()) for line in accuracy.lines] == [
        pytest.approx([25.0, 27.0, 29.0, 31.0]),
        [50.0],
    ]
    assert loss.lines[1].get_marker() == "o"  # a line of one point would not be seen
    samples = [artist for artist in figure.get_children() if isinstance(artist, Line2D)]
    for sample, *lines in zip(samples, loss.lines, accuracy.lines, strict=True):
        assert {sample.get_color()} == {line.get_color() for line in lines}
    assert len({sample.get_color() for sample in samples}) == 2
    words = [text.get_text() for text in figure.texts]
    assert words[0::2] == ["first", "nothing", "_last $x$"]
    assert words[1::2] == [": best 31.00 %", ": no epoch was finished", ": best 50.00 %"]


def test_a_run_that_failed_does_not_press_the_others_to_the_floor() -> None:
    good, bad = epochs(4, 0.5), [Epoch(1, 0.1, 9e3, 9e3, 0.1, 1.0)]
    lost = [Epoch(1, 0.1, 3.0, float("nan"), 0.1, 1.0), Epoch(2, 0.1, 9e3, 9e3, 0.1, 2.0)]
    for factor, scale in ((19.0, "linear"), (21.0, "log")):
        pair = [(str(loss), [Epoch(1, 0.1, loss, loss, 0.1, 1.0)]) for loss in (1.0, factor)]
        assert comparison_figure(pair).axes[0].get_yscale() == scale
    for worse in (bad, lost):
        figure = comparison_figure([("bad", worse), ("good", good)])
        assert figure.axes[0].get_yscale() == "log"
        assert_all_words_are_on_the_page(figure)
    assert_all_words_are_on_the_page(comparison_figure([]))
