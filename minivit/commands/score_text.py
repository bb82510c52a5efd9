"""Rows of scores as text: Markdown for readers, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minivit.explain.scoring.bootstrap import Estimate
    from minivit.explain.scoring.score_rows import MethodScores

FIGURES = ("pointing", "mass", "precision")
BELOW = "▼"

NOTES = """\
- **In parentheses**: 95 % of 2,000 resamples of the pictures, and of the draws of random weights.
  **{below}**: below chance by its whole interval, of six pictures or more. Such a map points away:
  a finding, not noise.
- **Pointing**: part of the pictures whose strongest cell, of equal ones the first, is at least half
  object. **Mass**: part of the map on the object, each cell counted by its share of object, values
  below 0 counted as 0. **Average precision**: of the map as a ranking of pixels. Pixels that a mask
  says nothing of are left out of all three.
- **Random weights**: the same method and class, the model before its training, {draws}. Position
  alone points. A map has to be ahead of this and of the blob in the centre to say anything.
- **Chance**: any cell; a map of one value. By chance, average precision is a little higher, the
  more so the fewer the cells: see `random`.
- **Deletion, insertion**: mean probability of the predicted class while patch tokens are removed,
  or come back, the most important first, in 20 steps; a removed token is not there, nothing is
  painted over it. Of equal values the patch with the lower number, row by row, comes first. Below
  chance is here: worse than the random map.
- **Rank correlation** of the map with itself after the weights of the head, then of each block from
  the last, at the end of the embeddings were set back to starting weights (arXiv:1810.03292). Near
  1 for all weights: the map does not show what the model has learned.
- **The head chosen on the other half**: the pictures are halved by the seed; the head of most mass
  on one half is scored on the other."""


def markdown(rows: Sequence[MethodScores], *, heading: str, draws: int) -> str:
    """The tables, with a heading above and what the figures mean below.

    Args:
        rows: Rows of all methods.
        heading: Text above the tables.
        draws: Number of draws of random weights.
    """
    first = rows[0]
    parts = ["# Scores of explanations", heading]
    if first.pointing is not None:
        parts += [f"## Beside masks: {many(first.pictures, 'picture')}", _truth_table(rows)]
    parts += [f"## Without masks: {many(first.probed, 'picture')}", _probe_table(rows)]
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    cells = [
        [f"{number} {row.name}", *(f"{value:.2f}" for value in row.agreement.values())]
        for number, row in zip(numbers, rows, strict=True)
    ]
    title = f"## Agreement, rank correlation of maps: {many(first.pictures, 'picture')}"
    parts += [title, _table(["map", *numbers], cells)]
    parts.append(NOTES.format(below=BELOW, draws=many(draws, "draw")))
    return "\n\n".join(parts) + "\n"


def _truth_table(rows: Sequence[MethodScores]) -> str:
    columns = ["pointing, %", "mass on the object, %", "average precision, %"]
    columns = ["map", *columns, *(f"random weights: {column}" for column in columns)]
    lines = []
    for row in rows:
        cells = [_cell(getattr(row, name), below=name in row.below_chance) for name in FIGURES]
        lines.append([row.name, *cells, *(_cell(row.untrained[name]) for name in FIGURES)])
    chance = [_cell(rows[0].chance[name]) for name in FIGURES]
    return _table(columns, [*lines, ["chance", *chance, "", "", ""]])


def _probe_table(rows: Sequence[MethodScores]) -> str:
    ways = [way for way in ("deletion", "insertion") if getattr(rows[0], way) is not None]
    titles = {
        "deletion": "deletion, % (small is good)",
        "insertion": "insertion, % (large is good)",
    }
    all_steps = list(rows[0].steps)
    steps = list(dict.fromkeys([*all_steps[:2], all_steps[-1]]))
    lines = []
    for row in rows:
        areas = [_cell(getattr(row, way), below=way in row.below_chance) for way in ways]
        lines.append([row.name, *areas, *(f"{row.steps[step].value:.2f}" for step in steps)])
    names = [_step_title(step, last=step == all_steps[-1]) for step in steps]
    return _table(["map", *(titles[way] for way in ways), *names], lines)


def _step_title(step: str, *, last: bool) -> str:
    what = "all weights" if last else "head" if step == "head" else f"{step} too"
    return f"rank correlation, {what} random"


def _cell(estimate: Estimate, *, below: bool = False) -> str:
    """A mean and its interval in per cent, in bold where it is below chance."""
    value, low, high = (f"{100 * part:.1f}" for part in estimate)
    text = f"{value} ({low} to {high})"
    return f"**{text} {BELOW}**" if below else text


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def many(count: int, noun: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


# ---- CSV -----------------------------------------------------------------------------------------


def scores_csv(rows: Sequence[MethodScores]) -> str:
    """A line a method, all figures as fractions with their intervals; empty where there is none."""
    first = rows[0]
    with_truth = FIGURES if first.pointing is not None else ()
    columns = [*with_truth, *(f"{name}_untrained" for name in with_truth)]
    columns += [f"{name}_chance" for name in with_truth] + ["deletion", "insertion"]
    columns += [f"after {step}" for step in first.steps]
    lines: list[list[str]] = []
    for row in rows:
        estimates = [
            *(getattr(row, name) for name in with_truth),
            *(row.untrained[name] for name in with_truth),
            *(row.chance[name] for name in with_truth),
            row.deletion,
            row.insertion,
            *row.steps.values(),
        ]
        numbers = [text for each in estimates for text in _numbers(each)]
        below = " ".join(row.below_chance)
        lines.append([row.name, str(row.pictures), str(row.probed), *numbers, below])
    parts = [f"{column}{end}" for column in columns for end in ("", "_low", "_high")]
    return _csv(["map", "pictures", "probed", *parts, "below_chance"], lines)


def _numbers(estimate: Estimate | None) -> list[str]:
    return [""] * 3 if estimate is None else [f"{part:.5f}" for part in estimate]


def curves_csv(rows: Sequence[MethodScores]) -> str:
    """The numbers of the figure, one a line: map, curve, place on the curve, value."""
    lines = []
    for row in rows:
        for name in ("deletion", "insertion"):
            curve = getattr(row, f"{name}_curve")
            for index, value in enumerate(curve):
                lines.append([row.name, name, f"{index / (len(curve) - 1):.5f}", f"{value:.5f}"])
        for step, estimate in row.steps.items():
            lines.append([row.name, "random weights", step, f"{estimate.value:.5f}"])
        for other, value in row.agreement.items():
            lines.append([row.name, "agreement", other, f"{value:.5f}"])
    return _csv(["map", "curve", "at", "value"], lines)


def _csv(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([columns, *lines])
    return file.getvalue()
