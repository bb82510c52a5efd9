"""The files of a run folder, each written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from minivit.files import replacing
from minivit.training.caption_loop import CaptionEpoch
from minivit.training.loop import Epoch


def write_recipe(path: Path, values: Mapping[str, int | float | str | bool]) -> None:
    """Writes flat settings as TOML (https://toml.io): one `key = value` a line.

    Args:
        path: The file.
        values: Numbers, texts and booleans, of which JSON and TOML have the same notation.
    """
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def write_metrics(path: Path, epochs: Sequence[Epoch] | Sequence[CaptionEpoch]) -> None:
    """Writes one line an epoch; the columns are the fields of the epochs."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(epochs[0]))
        for epoch in epochs:
            writer.writerow(
                f"{value:.6g}" if isinstance(value, float) else value
                for value in dataclasses.astuple(epoch)
            )


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 100) -> None:
    """Writes a figure as PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
