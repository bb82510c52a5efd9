"""Figures of training runs: curves, of one or of several, and what the class token looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from minivit.viz.page import (
    DPI,
    axes_at,
    blank_page,
    line_height,
    one_line,
    text_width,
    write_lines,
)
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
    figure = Figure(figsize=(9, 3.6), dpi=DPI, layout="constrained")
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
        xytext=(-4, -14 if accuracies[-1] > 20 else 6),  # near the bottom above the line
        textcoords="offset points",
        ha="right",
    )
    right.set(xlabel="epoch", ylabel=accuracy, title="Validation", ylim=(0, 100))
    if chance is not None:
        label = f"chance {100 * chance:.1f} %"
        right.axhline(100 * chance, color="grey", linestyle=":", label=label)
        right.legend(frameon=False, loc="best")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


_MARGIN, _PAGE = 0.3, 11.0  # inches
_LEGEND_SIZE = 9.0  # points


def comparison_figure(runs: Sequence[tuple[str, Sequence[EpochFigures]]]) -> Figure:
    """Validation loss and accuracy of several runs, and the best accuracy of each.

    The loss has a logarithmic axis where one value is more than twenty times another: a run that
    failed would press the others to the floor.

    Args:
        runs: (name, epochs); one without an epoch is named below and has no line.
    """
    cols = min(2, max(1, len(runs)))
    rows = math.ceil(len(runs) / cols)
    step, room = 1.15 * line_height(_LEGEND_SIZE), (_PAGE - 2 * _MARGIN) / cols
    wide, high = _PAGE, 4.3 + rows * step + 0.15
    figure = blank_page(wide, high)
    loss = axes_at(figure, (0.75, 0.35, 4.45, 3.3))
    accuracy = axes_at(figure, (6.1, 0.35, 4.6, 3.3))
    for index, (name, epochs) in enumerate(runs):
        left, top = _MARGIN + index // rows * room, 4.3 + index % rows * step
        outcome = ": no epoch was finished"
        if epochs:
            line = Line2D(
                [left / wide, (left + 0.4) / wide],
                [1 - (top + 0.45 * line_height(_LEGEND_SIZE)) / high] * 2,
                color=f"C{index % 10}",
                linestyle=("-", "--", ":")[index // 10 % 3],
                marker="o" if len(epochs) < 3 else "",  # a line of one point would not be seen
                markersize=4,
            )
            figure.add_artist(line)
            for axes, values in (
                (loss, [epoch.val_loss for epoch in epochs]),
                (accuracy, [100 * epoch.val_accuracy for epoch in epochs]),
            ):
                (curve,) = axes.plot([epoch.epoch for epoch in epochs], values, markersize=4)
                curve.set(color=line.get_color(), linestyle=line.get_linestyle())
                curve.set(marker=line.get_marker())
            outcome = f": best {100 * max(epoch.val_accuracy for epoch in epochs):.2f} %"
        for text, place in (
            (one_line(name), room - 0.7 - text_width(outcome, _LEGEND_SIZE)),
            (outcome, room),
        ):
            write_lines(figure, left + 0.5, top, text, place, _LEGEND_SIZE, align="left")
            left = figure.texts[-1].get_window_extent().x1 / figure.dpi - 0.5
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Validation loss")
    accuracy.set(xlabel="epoch", ylabel="right answers (%)", title="Validation accuracy")
    losses = [epoch.val_loss for _, epochs in runs for epoch in epochs]
    finite = [value for value in losses if 0 < value < math.inf]
    if finite and max(finite) > 20 * min(finite):
        loss.set_yscale("log")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
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
        dpi=DPI,
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
