"""How a training went, in words: what its report says, and how it compares with another run."""

from __future__ import annotations

import re
from pathlib import Path

from minivit.training.recipe_toml import read_recipe
from minivit.training.recipes import defaults, with_new_names
from minivit.training.run_folder import INDIFFERENT, RunFolder
from minivit.training.sweep import comparison_table, read_metrics, read_outcome


def run_text(path: Path, other: Path | None = None) -> str:
    """What report.md of a run says, without its pictures; and a comparison with another run.

    Args:
        path: Run folder.
        other: Run folder to compare with; None: none.

    Raises:
        RecipeError: A recipe that cannot be read.
        CheckpointError: A checkpoint that cannot be read.
    """
    text = _report_text(RunFolder(path))
    if other is None:
        return text
    runs = [RunFolder(path), RunFolder(other)]
    table = comparison_table([read_outcome(str(each.path), each) for each in runs])
    return f"{text}\n## {path} and {other}\n\n{table}\n{_differences(*runs)}"


def _report_text(folder: RunFolder) -> str:
    """The text of a report, or how far the run is that has none yet."""
    if folder.report.exists():
        text = folder.report.read_text(encoding="utf-8")
        without = re.sub(r"^!\[.*\]\(.*\)\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"\n{3,}", "\n\n", without).rstrip() + "\n"
    else:
        epochs = read_metrics(folder.path / "metrics.csv")
        text = f"# {folder.path}\n\n- no report yet; epochs that are done: {len(epochs)}\n"
        if epochs:
            last = epochs[-1]
            text += (
                f"- the last one: training loss {last.train_loss:.3f}, validation loss "
                f"{last.val_loss:.3f}, {100 * last.val_accuracy:.1f} % right\n"
            )
    if not folder.is_finished():
        text += f"\nThis run is unfinished: --resume --out {folder.path} goes on with it.\n"
    return text


def _differences(one: RunFolder, other: RunFolder) -> str:
    """The settings in which two runs differ, as a list of markdown."""
    recipes = []
    for folder in (one, other):
        recipe = with_new_names(read_recipe(str(folder.recipe)))
        known = {key: list(v) if isinstance(v, tuple) else v for key, v in defaults(recipe).items()}
        recipes.append({**known, **recipe})
    first, second = recipes
    keys = sorted({*first, *second} - INDIFFERENT)
    lines = [
        f"- {key}: {first.get(key, 'none')!r} and {second.get(key, 'none')!r}\n"
        for key in keys
        if first.get(key) != second.get(key)
    ]
    return "Settings that differ:\n\n" + "".join(lines) if lines else "The settings are the same.\n"
