"""Several runs side by side: every combination of settings, and one line for each."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minivit.training.recipe_toml import RecipeError, read_recipe, split_setting, values_of
from minivit.training.recipes import CaptionRecipe, ClassifyRecipe, make_recipe

if TYPE_CHECKING:
    from minivit.training.run_folder import RunFolder
    from minivit.training.task import Epoch


def combinations(
    names: Sequence[str], vary: Sequence[str], given: Mapping[str, Any]
) -> list[tuple[str, ClassifyRecipe | CaptionRecipe]]:
    """Every recipe with every combination of settings, each with a name that fits a folder.

    Args:
        names: Names of the recipes.
        vary: Texts KEY=V1,V2,…, one a key.
        given: Values of the command line, see `make_recipe`.

    Raises:
        RecipeError: As `make_recipe`; a key that is varied twice; fewer than two runs.
    """
    varied = [(key, values_of(text)) for key, text in map(split_setting, vary)]
    keys = [key for key, _ in varied]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise RecipeError(f"{twice[0]} is varied twice: give all its values at once")
    runs: dict[str, ClassifyRecipe | CaptionRecipe] = {}
    for name in names:
        captions = read_recipe(name).get("task") == CaptionRecipe.task
        for values in itertools.product(*(choices for _, choices in varied)):
            chosen = dict(zip(keys, values, strict=True))
            words = [Path(name).stem] if len(names) > 1 or not chosen else []
            words += [f"{key}={_short(value)}" for key, value in chosen.items()]
            title = re.sub(r"[^\w.=+,-]+", "_", ",".join(words))
            title += f",{len(runs) + 1}" if title in runs else ""
            merged = {**given, **chosen}
            runs[title] = (
                make_recipe(CaptionRecipe, name, merged)
                if captions
                else make_recipe(ClassifyRecipe, name, merged)
            )
    if len(runs) < 2:
        raise RecipeError("one run is no comparison: give two recipes or more, or --vary KEY=V1,V2")
    return list(runs.items())


def _short(value: Any) -> Any:
    """A value in the name of a folder: of a path its stem, "none" for an empty text."""
    return (Path(value).stem or "none") if isinstance(value, str) else value


class Outcome(NamedTuple):
    """The end of a run.

    Attributes:
        name: Name of its folder.
        epochs: Figures of the finished epochs.
        problem: Reason for which it stopped early; "": it did not.
        parameters: Number of parameters of its model; 0: it left no checkpoint.
        start: Checkpoint that it started from; "": none was given.
    """

    name: str
    epochs: list[Epoch]
    problem: str = ""
    parameters: int = 0
    start: str = ""


def read_metrics(path: Path) -> list[Epoch]:
    """The epochs of a metrics.csv; an empty list where there is no such file."""
    from minivit.training.task import Epoch  # here: it imports torch, and `combinations` does not

    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return [Epoch(int(number), *map(float, figures)) for number, *figures in rows]


def read_outcome(name: str, folder: RunFolder, *, problem: str = "") -> Outcome:
    """What a run has come to, from the files in its folder.

    Args:
        name: Name of the run in the table.
        folder: Folder of the run.
        problem: Reason for which it stopped early; "": it did not.

    Raises:
        RecipeError: Its recipe cannot be read.
        CheckpointError: Its checkpoint cannot be read.
    """
    from minivit.checkpoint import load_model  # here: it imports torch

    parameters = 0
    if folder.last.exists():
        parameters = sum(each.numel() for each in load_model(folder.last).parameters())
    start = read_recipe(str(folder.recipe)).get("weights", "")
    epochs = read_metrics(folder.path / "metrics.csv")
    return Outcome(name, epochs, problem, parameters, start)


def comparison_table(outcomes: Sequence[Outcome]) -> str:
    """A table of all runs as markdown: the best accuracy first, runs without an epoch last.

    Where the models have different sizes, or started from different weights, two columns say so:
    the accuracies then compare more than the settings.
    """
    ordered = sorted(
        outcomes, key=lambda each: -_best(each.epochs).val_accuracy if each.epochs else 1
    )
    sizes = {each.parameters for each in outcomes if each.parameters}
    differ = len(sizes) > 1 or len({each.start for each in outcomes}) > 1
    models = ("parameters", "start") if differ else ()
    figures_of = ("best val. accuracy", "its epoch", "its val. loss", "last training loss", "time")
    rows = [("run", *models, *figures_of)]
    for name, epochs, problem, parameters, start in ordered:
        size = f"{parameters:,}" if parameters else "–"
        model = (size, start.replace("|", "\\|") or "none given") if differ else ()
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
        rows.append((f"{name} ({problem})" if problem else name, *model, *figures))
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
