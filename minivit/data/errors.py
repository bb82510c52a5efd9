"""How a data set is refused: in one line that names the file, what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from minivit.plain_text import visible

Error = TypeVar("Error", bound="BadDataError")


class BadDataError(ValueError):
    """A data set that cannot be used; the message is one line: what is wrong, and what to do."""

    @classmethod
    def about(cls: type[Error], source: Path, problem: str, advice: str) -> Error:
        """The error "source: problem; advice", the source as `visible` shows it."""
        return cls(f"{shown(source)}: {problem}; {advice}")


def shown(path: str | Path) -> str:
    """A path for a message of one line."""
    return visible(str(path))
