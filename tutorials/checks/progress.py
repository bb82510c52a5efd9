"""Which exercises a reader has solved: one JSON file in the user's data folder.

`XDG_DATA_HOME` moves it. A file that cannot be read or written never stands in a lesson's way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from minivit.files import replacing


def progress_file() -> Path:
    """The file of what is solved; it need not be there."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "minivit" / "exercises.json"


def solved() -> dict[str, str]:
    """Titles of the solved exercises by number; empty where nothing is known."""
    try:
        known = json.loads(progress_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {str(number): str(title) for number, title in known.items()}
        if isinstance(known, dict)
        else {}
    )


def remember(number: str, title: str) -> None:
    """Note that exercise `number` is solved."""
    known = solved() | {number: title}
    try:
        progress_file().parent.mkdir(parents=True, exist_ok=True)
        with replacing(progress_file()) as temporary:
            temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except OSError:
        pass
