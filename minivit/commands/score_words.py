"""What visualize.py score found out, in a few words a method, for where a method is named."""

from __future__ import annotations

import csv
from pathlib import Path

from minivit.files import not_a_file

# The figure that says most, where there were masks and where there were none.
_FIGURES = {"pointing": "points {:.0f} %", "insertion": "insertion {:.0f} %"}


def read_scores(path: Path) -> dict[str, str]:
    """Reads a scores.csv that `visualize.py score` wrote.

    Args:
        path: The table.

    Returns:
        A few words a map's name: "points 87 % (chance 24 %)", or "insertion 61 %" where the scores
        were made without masks.

    Raises:
        ValueError: The file cannot be read, or is another table.
    """
    try:
        if kind := not_a_file(path):
            raise OSError(0, kind)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["map"]: _words(row) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no table in UTF-8"
        raise ValueError(f"--scores {path}: cannot be read ({reason})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--scores {path}: is no table of scores; give the scores.csv that visualize.py score "
            "writes"
        ) from error


def _words(row: dict[str, str]) -> str:
    name = "pointing" if row.get("pointing") else "insertion"
    words = _FIGURES[name].format(100 * float(row[name]))
    chance = row.get(f"{name}_chance")
    return f"{words} (chance {100 * float(chance):.0f} %)" if chance else words
