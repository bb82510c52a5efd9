"""Figures of a training run: its curves, and what the class token looks at afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from minivit.viz.panels import show_map, show_photo


class EpochFigures(Protocol):
    """The figures of one epoch that are drawn; `minivit.training.task.Epoch` has them."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def val_loss(self) -> float: ...
    @property
    def val_accuracy(self) -> float: ...


def curves_figure(
    epochs: Sequence[EpochFigures],
    *,
    chance: float | None = None,
    loss: str = "Loss of the class",
    accuracy: str = "right answers (%)",
) -> Figure:
    """Loss of both splits on the left, validation accuracy on the right.

    Args:
        epochs: At least one.
        chance: Accuracy of guessing, drawn as a line; None: no line.
        loss: Title on the left.
        accuracy: Label of the axis on the right.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) < 3 else None
    left.plot(numbers, [epoch.train_loss for epoch in epochs], label="training", marker=marker)
    left.plot(numbers, [epoch.val_loss for epoch in epochs], label="validation", marker=marker)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", title=loss, ylim=(0, None))
    left.legend(frameon=False)
    accuracies = [100 * epoch.val_accuracy for epoch in epochs]
    right.plot(numbers, accuracies, color="tab:green", marker=marker)
    right.annotate(
        f"{accuracies[-1]:.1f} %",
        (numbers[-1], accuracies[-1]),
        xytext=(-4, -14),
        textcoords="offset points",
        ha="right",
    )
    right.set(xlabel="epoch", ylabel=accuracy, title="Validation", ylim=(0, 100))
    if chance is not None:
        label = f"chance {100 * chance:.1f} %"
        right.axhline(100 * chance, color="grey", linestyle=":", label=label)
        right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def gallery_figure(
    images: Sequence[Image.Image], maps: Tensor, titles: Sequence[str], *, heading: str = ""
) -> Figure:
    """Pairs of pictures: what the model was given, and the same under its attention map.

    Args:
        images: All of one size, whole as the model saw them.
        maps: (n, rows, cols), one map a picture.
        titles: One short line a picture.
        heading: Above the figure.
    """
    pairs_a_row = 4
    rows = -(-len(images) // pairs_a_row)
    width, height = images[0].size
    figure = Figure(
        figsize=(2.6 * pairs_a_row, 0.4 + rows * (1.3 * height / width + 0.2)),
        layout="constrained",
    )
    figure.suptitle(heading, fontsize=10)
    grid = figure.subplots(rows, 2 * pairs_a_row, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    box = (0.0, 0.0, float(width), float(height))
    for index, (image, weights, title) in enumerate(zip(images, maps, titles, strict=True)):
        row, pair = divmod(index, pairs_a_row)
        plain, overlay = grid[row, 2 * pair], grid[row, 2 * pair + 1]
        show_photo(plain, image, box)
        plain.set_title(title, fontsize=7, loc="left")
        show_photo(overlay, image, box, grey=True)
        show_map(overlay, weights, box)
        for axes in (plain, overlay):
            axes.set_aspect("equal")
    return figure
