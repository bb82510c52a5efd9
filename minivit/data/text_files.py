"""Text files that describe pictures: what the readers of photos and of captions share.

Nothing in such a file is trusted. A name that leads out of its folder is refused here, and so is
text that is not UTF-8.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Literal

from minivit.data.errors import BadDataError
from minivit.files import not_a_file

Split = Literal["train", "validation", "test"]
"""What a picture is for: to learn from, to choose the best epoch by, to judge the result by."""

SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""The names that data sets give to the splits, in small letters."""


def read_text(path: Path, *, error: type[BadDataError] = BadDataError) -> str:
    """A file in UTF-8 that is not empty, without a byte order mark.

    Args:
        path: File to read.
        error: Type of the error to raise.

    Raises:
        BadDataError: The file cannot be read, is no plain file, is empty, or is not UTF-8 (with
            the line).
    """
    try:
        if kind := not_a_file(path):
            raise error.about(path, kind, "write its content into a file and name that")
        data = path.read_bytes()
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as cause:
        problem = f"line {len(lines_of(data[: cause.start].decode()))} is not UTF-8 text"
        raise error.about(path, problem, "save the file as UTF-8") from cause
    except OSError as cause:
        raise error.about(path, cause.strerror or str(cause), "check it") from cause
    if not text.strip():
        raise error.about(path, "the file is empty", "copy or download it again")
    return text


def lines_of(text: str) -> list[str]:
    """Cut at line ends only; str.splitlines also cuts at characters that a caption may hold."""
    return re.split(r"\r\n|\r|\n", text)


def inside(source: Path, place: str, name: str, *, error: type[BadDataError] = BadDataError) -> str:
    """The name of a picture as a plain relative path, which stays in the folder.

    Args:
        source: File that names the picture, for messages.
        place: Line or entry of that file, for messages.
        name: Name of the picture as written there.
        error: Type of the error to raise.

    Raises:
        BadDataError: The name is absolute, leads outside, or is no name at all.
    """
    windows = PureWindowsPath(name)  # knows both slashes, drives and shares
    if windows.anchor or ".." in windows.parts or "\0" in name or not windows.parts:
        problem = f"{place} names the picture {name[:80]!r}"
        raise error.about(source, problem, "expected a file in the folder of pictures")
    return os.path.normpath(name)
