"""How a data set is refused: in one line that names the file, what was found, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

Error = TypeVar("Error", bound="BadDataError")


class BadDataError(ValueError):
    """A data set that cannot be used; the message is one line: what was found, and what to do."""

    @classmethod
    def about(cls: type[Error], source: Path, found: str, todo: str) -> Error:
        """source: found; todo, the source quoted where it would break the line."""
        return cls(f"{shown(source)}: {found}; {todo}")


def shown(path: str | Path) -> str:
    """A path for a message of one line."""
    name = str(path)
    return name if name.isprintable() else repr(name)
