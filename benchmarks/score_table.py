"""A table of scores as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple


class Line(NamedTuple):
    """A line of the table: value, lower and upper end, as fractions."""

    name: str
    pointing: tuple[float, float, float]
    mass: tuple[float, float, float]


def markdown(lines: Sequence[Line]) -> str:
    """A Markdown table, in per cent."""
    rows = ["| map | pointing, % | mass on the object, % |", "| --- | --- | --- |"]
    for line in lines:
        cells = [
            f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
            for value, low, high in (line.pointing, line.mass)
        ]
        rows.append(f"| {line.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def csv_text(lines: Sequence[Line]) -> str:
    """The same as CSV, as fractions."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ("pointing", "mass")
    writer.writerow(["map", *(f"{c}{end}" for c in columns for end in ("", "_low", "_high"))])
    for line in lines:
        writer.writerow([line.name, *(f"{value:.5f}" for value in (*line.pointing, *line.mass))])
    return file.getvalue()
