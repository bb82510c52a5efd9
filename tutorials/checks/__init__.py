"""Checks of the exercises: what is wrong with an answer, and why.

`python -m tutorials.checks` prints which are solved. The lessons' checks are imported when the
first of them, or `EXERCISES`, is asked for, so that this command can say what is not installed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

_LESSONS = sorted(path.stem for path in Path(__file__).parent.glob("lesson_*.py"))


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        modules = [importlib.import_module(f"{__name__}.{lesson}") for lesson in _LESSONS]
        for module in [importlib.import_module(f"{__name__}.exercise"), *modules]:
            if name == "EXERCISES" or name in getattr(module, "__all__", ()):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
