"""Figures of training runs: curves, of one or of several, and what the class token looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from minivit.fields import renamed_arguments
from minivit.viz.page import (
    DPI,
    MARGIN,
    NOTE_SIZE,
    PAGE_WIDTH,
    TITLE_SIZE,
    Page,
    Slot,
    line_height,
    one_line,
    stack_rows,
    text_width,
    wrap_lines,
)
from minivit.viz.panels import add_scale, overlay, show_photo, whole_box


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
    best_by: Literal["loss", "accuracy"] | None = None,
    loss: str = "Loss of the class",
    accuracy: str = "right answers (%)",
    heading: str = "",
) -> Figure:
    """Loss of both splits on the left, validation accuracy on the right.

    The axis of the accuracy runs to 100 %; where nothing reaches half of that, to a quarter above
    the highest value.

    Args:
        epochs: Epochs in order, at least one.
        chance: Accuracy of guessing, drawn as a line; None: no line.
        best_by: What the best epoch has the best of; that epoch is marked. None: no mark.
        loss: Title on the left.
        accuracy: Label of the axis on the right.
        heading: Text above the figure, at most three lines.
    """
    figure = Figure(figsize=(9, 3.9 if heading else 3.6), dpi=DPI, layout="constrained")
    if heading:
        lines = wrap_lines(heading, 8.6, TITLE_SIZE, 3)
        figure.suptitle("\n".join(lines), fontsize=TITLE_SIZE, parse_math=False)
    left, right = figure.subplots(1, 2)
    numbers = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) < 3 else None
    left.plot(numbers, [epoch.train_loss for epoch in epochs], label="training", marker=marker)
    left.plot(numbers, [epoch.val_loss for epoch in epochs], label="validation", marker=marker)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", title=loss, ylim=(0, None))
    accuracies = [100 * epoch.val_accuracy for epoch in epochs]
    highest = max(value for value in (*accuracies, 100 * (chance or 0)) if math.isfinite(value))
    top = 100.0 if highest >= 50 else max(1.25 * highest, 1.0)
    right.plot(numbers, accuracies, color="tab:green", marker=marker)
    right.annotate(
        f"{accuracies[-1]:.1f} %",
        (numbers[-1], accuracies[-1]),
        xytext=(-4, -14 if accuracies[-1] > top / 5 else 6),  # near the bottom above
        textcoords="offset points",
        ha="right",
    )
    right.set(xlabel="epoch", ylabel=accuracy, title="Validation", ylim=(0, top))
    if chance is not None:
        label = f"chance {100 * chance:.1f} %"
        right.axhline(100 * chance, color="grey", linestyle=":", label=label)
    if best_by is not None:
        scores = [-epoch.val_loss if best_by == "loss" else epoch.val_accuracy for epoch in epochs]
        best = max(index for index, score in enumerate(scores) if score == max(scores))
        curve = {"loss": (left, epochs[best].val_loss), "accuracy": (right, accuracies[best])}
        axes, value = curve[best_by]
        label = f"best: epoch {numbers[best]}"
        axes.plot(numbers[best], value, "*", color="black", markersize=9, label=label)
    left.legend(frameon=False)
    if right.get_legend_handles_labels()[1]:
        right.legend(frameon=False, loc="best")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


# Lengths of dashes and gaps in widths of the line, of all but the first run's, which lies below.
_DASHES = ((4, 2), (2, 1), (1, 2), (6, 2, 1, 2), (6, 2, 1, 2, 1, 2), (1, 4))
_MARKS = "osD^vPX"
_LEGEND_SIZE = 9.0  # points
_LEGEND_STEP = 1.15 * line_height(_LEGEND_SIZE)  # inches


def comparison_figure(runs: Sequence[tuple[str, Sequence[EpochFigures]]]) -> Figure:
    """Validation loss and accuracy of several runs, and the best accuracy of each.

    The loss has a logarithmic axis where one value is more than twenty times another: a run that
    failed would press the others to the floor. Lines have dashes of their own, and marks at epochs
    of their own, so that of lines that coincide all are seen.

    Args:
        runs: Name and epochs of each run; one without an epoch is named below and has no line.
    """
    cols = min(2, max(1, len(runs)))
    rows = math.ceil(len(runs) / cols)
    legend, room = 4.3, (PAGE_WIDTH - 2 * MARGIN) / cols
    page = Page(PAGE_WIDTH, legend + rows * _LEGEND_STEP + 0.15)
    loss = page.axes(Slot(0.75, 0.35, 4.45, 3.3))
    accuracy = page.axes(Slot(6.1, 0.35, 4.6, 3.3))
    for index, (name, epochs) in enumerate(runs):
        at = (MARGIN + index // rows * room, legend + index % rows * _LEGEND_STEP)
        outcome = ": no epoch was finished"
        if epochs:
            best = max(epoch.val_accuracy for epoch in epochs)
            outcome = f": best {100 * best:.2f} %"
            numbers = [epoch.epoch for epoch in epochs]
            line = _legend_line(page, at, index, few=len(epochs) < 3)
            _plot_like(line, index, loss, numbers, [epoch.val_loss for epoch in epochs])
            _plot_like(
                line, index, accuracy, numbers, [100 * epoch.val_accuracy for epoch in epochs]
            )
        _write_legend(page, at, one_line(name), outcome, room)
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="Validation loss")
    accuracy.set(xlabel="epoch", ylabel="right answers (%)", title="Validation accuracy")
    losses = [epoch.val_loss for _, epochs in runs for epoch in epochs]
    finite = [value for value in losses if 0 < value < math.inf]
    if finite and max(finite) > 20 * min(finite):
        loss.set_yscale("log")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    return page.figure


def _legend_line(page: Page, at: tuple[float, float], index: int, *, few: bool) -> Line2D:
    """A sample of a run's line; of few points, whose line would hardly be seen, with a dot."""
    left, top = at
    line = Line2D(
        [(left + part) / page.width for part in (0, 0.2, 0.4)],
        [page.from_bottom(top + 0.45 * line_height(_LEGEND_SIZE))] * 3,
        color=f"C{index % 10}",
        linestyle=(0, _DASHES[index % len(_DASHES)]) if index else "-",
        linewidth=1.6 if index else 2.2,
        marker="o" if few else _MARKS[index % len(_MARKS)],
        markevery=[1],
        markersize=4,
    )
    page.figure.add_artist(line)
    return line


def _plot_like(
    sample: Line2D, index: int, axes: Axes, x: Sequence[int], y: Sequence[float]
) -> None:
    (curve,) = axes.plot(x, y, markersize=4)
    curve.update_from(sample)
    # Marks of lines that coincide stand at different epochs, as far as there are enough.
    curve.set_markevery((index % len(x), len(_MARKS)) if len(x) > 2 else None)
    curve.set_transform(axes.transData)


def _write_legend(
    page: Page, at: tuple[float, float], name: str, outcome: str, room: float
) -> None:
    """The name of a run, shortened where the outcome behind it needs the room."""
    left, top = at[0] + 0.5, at[1]
    name_room = room - 0.7 - text_width(outcome, _LEGEND_SIZE)
    (text,) = page.write(name, (left, top), room=name_room, size=_LEGEND_SIZE, align="left")
    end = text.get_window_extent().x1 / DPI
    page.write(outcome, (end, top), room=room, size=_LEGEND_SIZE, align="left")


_PAIRS_IN_ROW = 4
_PAIR_TITLE_SIZE = 8.0  # points
_GAP, _BETWEEN = 0.05, 0.2  # inches, between picture and overlay, and between pairs
_SCALE, _NOTES = 1.6, 2.2  # width of the bar of colours, and where the note beside it begins


@renamed_arguments(images="pictures")
def gallery_figure(
    pictures: Sequence[Image.Image], maps: Tensor, titles: Sequence[str], *, heading: str = ""
) -> Figure:
    """Pairs of pictures: what the model was given, and the same under its attention map.

    Panels are `figure.axes`, picture and overlay of the first pair first, the bar of colours last.

    Args:
        pictures: Pictures of one size, whole as the model saw them.
        maps: Maps (n, rows, cols), one a picture.
        titles: Titles, one a picture; at most two lines of each are shown.
        heading: Text above the figure, at most two lines.
    """
    pair = (PAGE_WIDTH - 2 * MARGIN + _BETWEEN) / _PAIRS_IN_ROW - _BETWEEN
    width = (pair - _GAP) / 2
    height = width * pictures[0].height / pictures[0].width
    lines = [wrap_lines(title, pair, _PAIR_TITLE_SIZE, 2) for title in titles]
    tops, bottom = stack_rows(
        [len(title) * line_height(_PAIR_TITLE_SIZE) for title in lines],
        [height] * len(pictures),
        columns=_PAIRS_IN_ROW,
        top=0.6,
        gap=0.1,
    )
    page = Page(PAGE_WIDTH, bottom + 0.55)
    page.write_heading(heading)
    for index, (picture, weights) in enumerate(zip(pictures, maps, strict=True)):
        left = MARGIN + index % _PAIRS_IN_ROW * (pair + _BETWEEN)
        top = tops[index // _PAIRS_IN_ROW]
        at, words = (left, top - 0.03), "\n".join(lines[index])
        page.write(words, at, room=pair, size=_PAIR_TITLE_SIZE, above=True, align="left")
        show_photo(page.axes(Slot(left, top, width, height)), picture, whole_box(picture))
        painted = page.axes(Slot(left + width + _GAP, top, width, height))
        show_photo(painted, picture, whole_box(picture), grey=True)
        overlay(painted, weights, whole_box(picture))
    note = "colour: attention weight, each picture from 0 to its own maximum"
    at = (MARGIN + _NOTES, bottom + 0.09)
    page.write(note, at, room=page.room - _NOTES, size=NOTE_SIZE, align="left")
    add_scale(page, Slot(MARGIN, bottom + 0.1, _SCALE, 0.13), {0: "0", 1: "maximum"})
    return page.figure
