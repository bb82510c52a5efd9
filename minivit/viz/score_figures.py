"""A figure of scores: what the predicted class loses with patches, what maps lose with training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minivit.viz.page import MARGIN, NOTE_SIZE, PAGE_WIDTH, Page, Slot, line_height

BASELINES = ("random", "centre", "edges")  # drawn grey: they know nothing of the model

_LEGEND_SIZE = 9.0  # points
_LEGEND_STEP = 1.2 * line_height(_LEGEND_SIZE)  # inches
_LEGEND_COLUMNS = 2
_PANEL = 3.3  # inches
_MOST_NUMBERED = 20  # rows whose agreement is written too: smaller numbers cannot be read


class Scored(Protocol):
    """A row that is drawn; `minivit.explain.MethodScores` has all of it."""

    @property
    def name(self) -> str: ...
    @property
    def probed(self) -> int: ...
    @property
    def deletion_curve(self) -> Sequence[float]: ...
    @property
    def insertion_curve(self) -> Sequence[float]: ...
    @property
    def steps(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def agreement(self) -> Mapping[str, float]: ...
    @property
    def below_chance(self) -> Sequence[str]: ...


def scores_figure(rows: Sequence[Scored], *, heading: str = "") -> Figure:
    """Four panels: deletion and insertion, training undone, agreement of the maps.

    Rows are numbered; one legend names them for all panels, and behind ▼ the figures that are below
    chance.

    Args:
        rows: Rows of all methods, at least one.
        heading: One line or two above the panels.
    """
    legend_rows = math.ceil(len(rows) / _LEGEND_COLUMNS)
    tops = (0.95, 0.95 + _PANEL + 0.95)
    legend = tops[1] + _PANEL + 0.75
    page = Page(PAGE_WIDTH, legend + legend_rows * _LEGEND_STEP + 0.15)
    page.write_heading(heading)
    width = 4.35
    slots = [Slot(left, top, width, _PANEL) for top in tops for left in (0.8, 6.3)]
    deletion, insertion, training, agreement = map(page.axes, slots)
    looks = [_look(rows, index) for index in range(len(rows))]

    of = f"{rows[0].probed} pictures" if rows[0].probed > 1 else "1 picture"
    for axes, name, label in (
        (deletion, "deletion", "part of the patches removed, most important first"),
        (insertion, "insertion", "part of the patches put back, most important first"),
    ):
        _draw_curves(axes, [getattr(row, f"{name}_curve") for row in rows], looks)
        axes.set(xlabel=label, xlim=(0, 1), ylim=(0, 1), ylabel="probability of the class")
        good = {"deletion": "low", "insertion": "high"}[name]
        axes.set_title(f"{name.capitalize()}: {good} is good ({of})", fontsize=10)
    _draw_training(training, rows, looks)
    training.set_title(f"Training undone, from head to all ({of})", fontsize=10)
    _draw_agreement(agreement, rows)
    agreement.set_title("Agreement of maps (rank correlation)", fontsize=10)
    _write_legend(page, legend, rows, looks)
    return page.figure


def _look(rows: Sequence[Scored], index: int) -> dict[str, Any]:
    """Colour and line of a row: baselines grey, heads thin, the chosen one black over its head."""
    name = rows[index].name
    if name in BASELINES:
        style = ("-", "--", ":")[BASELINES.index(name)]
        return {"color": "0.45", "linestyle": style, "linewidth": 1.8}
    if name.endswith("the head chosen on the other half"):
        return {"color": "black", "linestyle": (0, (1, 2)), "linewidth": 1.8}
    thin = ", head " in name
    style = ("-", "--", ":")[index // 10 % 3]
    return {"color": f"C{index % 10}", "linestyle": style, "linewidth": 0.9 if thin else 1.8}


def _draw_curves(
    axes: Axes, curves: Sequence[Sequence[float]], looks: Sequence[Mapping[str, Any]]
) -> None:
    if not curves[0]:
        axes.text(0.5, 0.5, "no head: no class to follow", ha="center", transform=axes.transAxes)
        return
    for curve, look in zip(curves, looks, strict=True):
        axes.plot([index / (len(curve) - 1) for index in range(len(curve))], curve, **look)
    axes.grid(alpha=0.3)


def _draw_training(axes: Axes, rows: Sequence[Scored], looks: Sequence[Mapping[str, Any]]) -> None:
    names = list(rows[0].steps)
    for row, look in zip(rows, looks, strict=True):
        values = [1.0, *(estimate[0] for estimate in row.steps.values())]
        axes.plot(range(len(values)), values, marker="o", markersize=2.5, **look)
    labels = ["–", *(name.replace("block ", "") for name in names[:-1]), "all"]
    axes.set_xticks(range(len(labels)), labels, fontsize=NOTE_SIZE)
    axes.set(ylim=(-1.05, 1.05), ylabel="rank correlation with the map itself")
    axes.set_xlabel("random weights so far: none, head, blocks from the last, all")
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.grid(alpha=0.3)


def _draw_agreement(axes: Axes, rows: Sequence[Scored]) -> None:
    values = [[row.agreement[other.name] for other in rows] for row in rows]
    axes.imshow(values, vmin=-1, vmax=1, cmap="RdBu", aspect="auto")
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    axes.set_xticks(range(len(rows)), numbers, fontsize=NOTE_SIZE)
    axes.set_yticks(range(len(rows)), numbers, fontsize=NOTE_SIZE)
    if len(rows) > _MOST_NUMBERED:
        return
    size = min(NOTE_SIZE, 110 / len(rows))
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            colour = "white" if abs(value) > 0.6 else "black"
            text = f"{value:.1f}".replace("-0.0", "0.0")
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)


def _write_legend(
    page: Page, top: float, rows: Sequence[Scored], looks: Sequence[Mapping[str, Any]]
) -> None:
    room = page.room / _LEGEND_COLUMNS
    legend_rows = math.ceil(len(rows) / _LEGEND_COLUMNS)
    if any(row.below_chance for row in rows):
        end = (page.width - MARGIN, top - _LEGEND_STEP)
        page.write("▼ below chance", end, room=room, size=_LEGEND_SIZE, align="right")
    for index, (row, look) in enumerate(zip(rows, looks, strict=True)):
        column, line = divmod(index, legend_rows)
        left, y = MARGIN + column * room, top + line * _LEGEND_STEP
        middle = page.from_bottom(y + 0.45 * line_height(_LEGEND_SIZE))
        sample = Line2D([left / page.width, (left + 0.4) / page.width], [middle] * 2, **look)
        page.figure.add_artist(sample)
        below = f"  ▼ {', '.join(row.below_chance)}" if row.below_chance else ""
        text = f"{index + 1}  {row.name}{below}"
        page.write(text, (left + 0.5, y), room=room - 0.6, size=_LEGEND_SIZE, align="left")
