"""What a command may write: its own drawing again, never an input, and others only if told to.

A figure or page keeps a mark: a digest of the command, its flags and the picture. Where a file is
there already, the mark says whether it is the same drawing, which is drawn anew, or anything else,
which stays unless --overwrite is given. A file that the user names one by one, such as that of
--predictions, is replaced: naming it is asking for it.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minivit.files import is_passed_on, refuse_inputs

KEPT = (
    "A file that is there is drawn anew where it is the same drawing, by the same flags; any other "
    "is kept, unless --overwrite is given."
)
"""The rule, for the --help of each command that draws."""

_INDIFFERENT = ("out", "overwrite", "pictures", "debug", "device", "threads", "workers")


def add_overwrite(command: argparse.ArgumentParser) -> None:
    """Adds --overwrite, and the rule to the description."""
    command.description = f"{command.description} {KEPT}"
    command.add_argument(
        "--overwrite", action="store_true", help="replace files that are there, whatever they show"
    )


class ExistingFileError(ValueError):
    """A file that is there and stays."""


class Outputs:
    """The files that a command is about to write.

    Args:
        settings: Everything that chooses what is drawn; flags that choose only where or how fast
            are passed over.
        inputs: Files that the command reads, and folders that it reads files of.
        overwrite: Whether files that are there are replaced, whatever they are.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        inputs: Iterable[str | os.PathLike[str]],
        overwrite: bool,
    ) -> None:
        self._settings = {key: value for key, value in settings.items() if key not in _INDIFFERENT}
        self._inputs, self._overwrite = list(inputs), overwrite

    def mark(self, *pictures: str | os.PathLike[str]) -> str:
        """The mark of a drawing of these pictures, one word of ASCII."""
        settings = {key: _plain(value) for key, value in sorted(self._settings.items())}
        text = json.dumps([settings, [_plain(Path(each)) for each in pictures]])
        return f"minivit:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def claim(self, marks: Mapping[Path, str], *, beside: Iterable[Path] = ()) -> None:
        """Refuses files that may not be replaced; nothing is written before this.

        Args:
            marks: Files that will be written, with the marks that they will have.
            beside: Further files, which have no room for a mark. One that is there belongs to the
                drawing where all of `marks` are there and have their marks.

        Raises:
            OutputIsInputError: One of them is an input.
            ExistingFileError: One is there and is another drawing, and `overwrite` is false.
            OSError: One is a folder, or something else that is no file.
        """
        beside = list(beside)
        refuse_inputs([*marks, *beside], self._inputs)
        if self._overwrite:
            return
        for path, mark in marks.items():
            if _is_file(path) and mark.encode() not in path.read_bytes():
                raise _other(path)
        if not all(path.exists() for path in marks):
            for path in beside:
                if _is_file(path):
                    raise _other(path)


def outputs_of(arguments: argparse.Namespace) -> Outputs:
    """The outputs of a command of visualize.py, by its flags."""
    given = vars(arguments)
    named = [given.get(name) for name in ("weights", "scores", "data", "masks")]
    inputs = [str(place) for place in named if place is not None and place != "scenes"]
    return Outputs(
        given, inputs=[*given.get("pictures", ()), *inputs], overwrite=arguments.overwrite
    )


def _is_file(path: Path) -> bool:
    try:
        return not is_passed_on(path) and path.exists()
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OSError:
    """The error of a file that cannot be written, with what to do."""
    return OSError(f"{path}: cannot be written ({error.strerror or error}); choose another --out")


def _other(path: Path) -> ExistingFileError:
    return ExistingFileError(
        f"{path}: is there and is no drawing by the same flags; replace it (--overwrite), or "
        "choose another --out"
    )


def _plain(value: Any) -> Any:
    """A value as JSON has it; a path as its full name."""
    if isinstance(value, os.PathLike):
        return os.path.realpath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)
