"""A table of scores: bootstrap intervals, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

RESAMPLES = 2000


class Line(NamedTuple):
    """A line of the table: value, lower and upper end, as fractions."""

    name: str
    pointing: tuple[float, float, float]
    mass: tuple[float, float, float]


def bootstrap(count: int, seed: int) -> Callable[[Tensor], tuple[float, float, float]]:
    """Gives (mean, lower, upper) of values (photos, draws).

    All rows meet the same resamples of the photos; of several draws, draws are drawn as well.
    """
    photos = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))

    def interval(values: Tensor) -> tuple[float, float, float]:
        array = values.numpy()
        means = array[photos].mean(axis=1)  # (photos, draws) -> (resamples, draws)
        draws = np.random.default_rng(seed).integers(means.shape[1], size=means.shape)
        means = np.take_along_axis(means, draws, axis=1).mean(axis=1)  # (resamples,)
        low, high = np.percentile(means, (2.5, 97.5))
        return float(array.mean()), float(low), float(high)

    return interval


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
