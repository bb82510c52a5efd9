"""Names of classes from outside: what the outputs of weights mean that do not say it themselves.

Two orders of numbered folders are in use. Here "2" comes before "10"; torchvision's ImageFolder
sorts names as text, 1, 10, 11, 2, so that output 1 of a model that it fed means "10". Which of the
two holds cannot be seen in the weights: somebody has to say it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from minivit.data.errors import BadDataError
from minivit.data.photos.layouts import class_folder
from minivit.data.text_files import lines_of, read_text

ORDER_OF_FOLDERS = "imagefolder"
NUMBERS = "numbers"


def names_of_classes(source: str, *, location: Path, num_classes: int) -> tuple[str, ...]:
    """Names of classes as a user gives them, one for each output.

    Args:
        source: "imagefolder": the class folders of the data in torchvision's order; "numbers": 0,
            1, 2 and so on; else a file or a folder as in `read_class_names`.
        location: Place of the data.
        num_classes: Number of outputs that want a name.

    Raises:
        BadDataError: Another number of names; data that has no folder a class. The rest as
            `read_class_names` says.
    """
    if source == NUMBERS:
        return tuple(str(number) for number in range(num_classes))
    place = class_folder(location) if source == ORDER_OF_FOLDERS else Path(source)
    names = read_class_names(place)
    if len(names) != num_classes:
        problem = f"{len(names)} names of classes for {num_classes} outputs of the weights"
        raise BadDataError.about(place, problem, "expected a name for each, in their order")
    return names


def read_class_names(source: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of classes from a file or from folders, in the order of a model's outputs.

    Args:
        source: A file: a name a line, or a JSON list, or a JSON object {"0": "cat", …}. A folder
            with a folder a class: their names as torchvision's ImageFolder sorts them.

    Raises:
        BadDataError: Nothing there, a file that cannot be read so, a blank name, no names.
    """
    path = Path(source)
    if path.is_dir():
        return folder_order(path)
    if not path.exists():
        raise BadDataError.about(path, "no such file or folder", "expected names of classes")
    text = read_text(path)
    names = _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else lines_of(text)
    names = [str(name).strip() for name in names]
    while names and not names[-1]:  # blank lines at the end
        names.pop()
    if "" in names or not names:
        problem = f"name {names.index('') + 1} is blank" if names else "no names"
        raise BadDataError.about(path, problem, "expected a name a line, in the order of outputs")
    return tuple(names)


def folder_order(folder: Path) -> tuple[str, ...]:
    """The folders in a folder as torchvision's ImageFolder numbers them: all of them, as text.

    Raises:
        BadDataError: The folder has none, or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        problem = f"the folder cannot be read ({error.strerror})"
        raise BadDataError.about(folder, problem, "check its permissions") from error
    if not names:
        raise BadDataError.about(folder, "no class folders in it", "expected CLASS/photo.jpg")
    return tuple(names)


def _from_json(path: Path, text: str) -> list[object]:
    """The values of a JSON list, or of an object whose keys count from 0."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number without end, or too deep
        problem = f"begins as JSON and is none ({error})"
        raise BadDataError.about(path, problem, "expected a list, or a name a line") from error
    if isinstance(values, dict):
        missing = [number for number in range(len(values)) if str(number) not in values]
        if missing:
            problem = f"no name for class {missing[0]}"
            raise BadDataError.about(path, problem, "expected keys that count from 0")
        return [values[str(number)] for number in range(len(values))]
    return list(values)
