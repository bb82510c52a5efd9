"""Figures of a run: the numbers that they show, and pictures of their own shape."""

import io

import pytest
import torch
from PIL import Image

from minivit.training.task import Epoch
from minivit.viz import curves_figure, gallery_figure

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


@pytest.mark.parametrize("count", [1, 4, 5])
def test_gallery_keeps_the_shape_of_the_pictures_and_the_order_of_the_maps(count: int) -> None:
    images = [Image.new("RGB", (90, 60), (40 * index, 0, 0)) for index in range(count)]
    maps = torch.zeros(count, 2, 3)
    for index in range(count):
        maps[index, index % 2, index % 3] = 1.0
    figure = gallery_figure(images, maps, [f"picture {index}" for index in range(count)])
    figure.savefig(io.BytesIO())  # lays the page out
    used = [axes for axes in figure.axes if axes.images]
    assert len(used) == 2 * count
    for index in range(count):
        plain, overlay = used[2 * index], used[2 * index + 1]
        assert plain.get_title(loc="left") == f"picture {index}"
        for axes in (plain, overlay):
            box = axes.get_window_extent()
            assert box.width / box.height == pytest.approx(1.5, rel=0.03)
        shown = torch.as_tensor(overlay.images[-1].get_array())
        assert torch.equal(shown, maps[index])
