"""Names of classes from outside: what outputs of weights mean, and what labels of photos mean.

Weights may not name their outputs, and photos may be labelled by numbers where a file beside them,
`classes.json` or `classes.txt`, says that 29 is Samoyed.

Two orders of numbered folders are in use. Here "2" comes before "10"; torchvision's ImageFolder
sorts names as text, 1, 10, 11, 2, so that output 1 of a model that it fed means "10". Which of the
two holds cannot be seen in the weights: somebody has to say it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minivit.data.errors import BadDataError
from minivit.data.photos.layouts import class_folder
from minivit.data.photos.sets import listed, many
from minivit.data.text_files import lines_of, read_text

ORDER_OF_FOLDERS = "imagefolder"
NUMBERS = "numbers"
AS_THEY_ARE = "folders"
BESIDE_PHOTOS = ("classes.json", "classes.txt")


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


def names_of_labels(
    location: Path, labels: Sequence[str], *, source: str = ""
) -> tuple[tuple[str, ...], Path | None]:
    """What the labels of photos are called, and the file that says it.

    A file holds names by label, {"29": "Samoyed", …} in JSON, for these labels or for more. Or it
    counts them from 0, as a list in JSON, a name a line, or {"0": …, "1": …}: then label 29 is name
    29; labels that are other numbers or words take as many names one after the other.

    Args:
        location: Place of the photos.
        labels: Names of folders, or what else tells the classes apart, in natural order.
        source: File with names; "folders": the labels stay what they are; "": the file
            classes.json or classes.txt beside the photos, where there is one.

    Returns:
        A name for each label; and the file, None where nothing but the labels is known.

    Raises:
        BadDataError: Two files beside the photos; a file that cannot be read, lacks a name for a
            label, or calls two labels the same.
    """
    path = Path(source) if source else _beside(location)
    if source == AS_THEY_ARE or path is None:
        return tuple(labels), None
    names = _entries(path)
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    counted = all(str(number) in names for number in range(len(labels)))
    if len(names) == len(labels) and counted and not set(labels) <= names.keys():
        called = [names[str(number)] for number in range(len(labels))]  # one after the other
    else:
        called = [names.get(label) or names.get(label.lstrip("0"), "") for label in labels]
    advice = f"expected one for each of {listed(labels)}; give another --labels"
    if "" in called:
        problem = f"{many(len(names), 'name')}, none for class {labels[called.index('')]!r}"
        raise BadDataError.about(path, problem, advice)
    if twice := [name for name in called if called.count(name) > 1]:
        raise BadDataError.about(path, f"two classes are called {twice[0]!r}", advice)
    return tuple(called), path


def _beside(location: Path) -> Path | None:
    """The file of names beside photos; of a CSV file, in its folder."""
    folder = location if location.is_dir() else location.parent
    there = [folder / name for name in BESIDE_PHOTOS if (folder / name).is_file()]
    if len(there) > 1:
        problem = f"{' and '.join(BESIDE_PHOTOS)} both name the classes"
        raise BadDataError.about(folder, problem, "remove one, or give --labels FILE")
    return there[0] if there else None


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
    names = _entries(path)
    if isinstance(names, dict):
        missing = [number for number in range(len(names)) if str(number) not in names]
        if missing:
            problem = f"no name for class {missing[0]}"
            raise BadDataError.about(path, problem, "expected keys that count from 0")
        return tuple(names[str(number)] for number in range(len(names)))
    return tuple(names)


def names_labels_only(source: str) -> bool:
    """Whether this is a file that names labels of photos which are no numbers of outputs."""
    if not Path(source).is_file():
        return False
    names = _entries(Path(source))
    return isinstance(names, dict) and any(str(number) not in names for number in range(len(names)))


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


def _entries(path: Path) -> list[str] | dict[str, str]:
    """The names in a file: a list, or by label.

    Raises:
        BadDataError: The file cannot be read so; a name is blank or no text; there are none.
    """
    text = read_text(path)
    values: Any = lines_of(text)
    if text.lstrip()[:1] in ("[", "{"):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # no JSON, a number without end, or too deep
            problem = f"begins as JSON and is none ({error})"
            raise BadDataError.about(path, problem, "expected a list, or a name a line") from error
    else:
        while not values[-1].strip():  # blank lines at the end
            values.pop()
    places = values if isinstance(values, dict) else range(1, len(values) + 1)
    names = values.values() if isinstance(values, dict) else values
    for place, name in zip(places, names, strict=True):
        if type(name) not in (str, int, float):
            problem = f"name {place} is {json.dumps(name)[:40]}"
            raise BadDataError.about(path, problem, "expected a text for each class")
        if not str(name).strip():
            advice = "expected a name a line, in the order of outputs"
            raise BadDataError.about(path, f"name {place} is blank", advice)
    if not values:
        raise BadDataError.about(path, "no names", "expected a name for each class")
    if isinstance(values, dict):
        return {label.strip(): str(name).strip() for label, name in values.items()}
    return [str(name).strip() for name in values]
