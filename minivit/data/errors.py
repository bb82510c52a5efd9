"""How a data set is refused: in one line that names the file, what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

Error = TypeVar("Error", bound="BadDataError")


class BadDataError(ValueError):
    """A data set that cannot be used; the message is one line: what is wrong, and what to do."""

    @classmethod
    def about(cls: type[Error], source: Path, problem: str, advice: str) -> Error:
        """The error "source: problem; advice", the source quoted where it would break the line."""
        return cls(f"{shown(source)}: {problem}; {advice}")


def shown(path: str | Path) -> str:
    """A path for a message of one line."""
    name = str(path)
    return name if name.isprintable() else repr(name)
