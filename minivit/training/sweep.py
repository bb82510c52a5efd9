"""Several runs side by side: one line each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from minivit.training.task import Epoch


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        name: Of its folder.
        epochs: Those that were finished.
        problem: Why it stopped early; "": it did not.
    """

    name: str
    epochs: list[Epoch]
    problem: str = ""


def read_metrics(path: Path) -> list[Epoch]:
    """The epochs of a metrics.csv; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return [Epoch(int(number), *map(float, figures)) for number, *figures in rows]


def comparison_table(outcomes: Sequence[Outcome]) -> str:
    """A table of all runs as markdown, the best accuracy first, those without an epoch last."""
    ordered = sorted(
        outcomes, key=lambda each: -_best(each.epochs).val_accuracy if each.epochs else 1
    )
    rows = [
        ("run", "best val. accuracy", "its epoch", "its val. loss", "last training loss", "time")
    ]
    for name, epochs, problem in ordered:
        figures = ("–",) * 5
        if epochs:
            best, last = _best(epochs), epochs[-1]
            minutes, seconds = divmod(round(last.seconds), 60)
            figures = (
                f"{100 * best.val_accuracy:.2f} %",
                f"{best.epoch} of {len(epochs)}",
                f"{best.val_loss:.3f}",
                f"{last.train_loss:.3f}",
                f"{minutes} min {seconds:02d} s",
            )
        rows.append((f"{name} ({problem})" if problem else name, *figures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "| " + "-" * widths[0] + "".join(f" | {'-' * (width - 1)}:" for width in widths[1:])
    return "\n".join([lines[0], f"{rule} |", *lines[1:]]) + "\n"


def _best(epochs: Sequence[Epoch]) -> Epoch:
    return max(epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
