"""What visualize.py score found out, in a few words a method, read from the file of a flag."""

from __future__ import annotations

import csv
from pathlib import Path

from minivit.files import not_a_file


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
    from minivit.explorer.method_scores import score_words

    try:
        if kind := not_a_file(path):
            raise OSError(0, kind)
        with path.open(encoding="utf-8", newline="") as file:
            return score_words(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no table in UTF-8"
        raise ValueError(f"--scores {path}: cannot be read ({reason})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--scores {path}: is no table of scores; give the scores.csv that visualize.py score "
            "writes"
        ) from error
