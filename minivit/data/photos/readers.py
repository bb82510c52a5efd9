"""Photos with labels, row by row: from a CSV file, from Oxford-IIIT Pets' lists.

Nothing that is read is trusted: what cannot be used is refused with the file and the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minivit.data.errors import BadDataError
from minivit.data.text_files import SPLIT_WORDS, Split, inside, lines_of, read_text
from minivit.plain_text import from_cell

PETS_LISTS: dict[Split, str] = {"train": "trainval.txt", "test": "test.txt"}
PETS_WHOLE_LIST = "list.txt"  # all photos, not split

_COLUMNS = {"file": ("file", "filename"), "label": ("label",), "split": ("split",)}


class PhotoRow(NamedTuple):
    """A photo, its class and its split.

    Attributes:
        path: File of the photo.
        name: Name as given: relative to the folder, or as the list writes it.
        label: Name of the class.
        split: Split that the photo belongs to; train where nothing is said.
    """

    path: Path
    name: str
    label: str
    split: Split = "train"


def natural(text: str) -> tuple[object, ...]:
    """The key of natural order: 2 before 10, capitals beside their small letters."""
    parts: list[object] = re.split(r"([0-9]+)", text.casefold())
    for place in range(1, len(parts), 2):
        digits = str(parts[place]).lstrip("0")
        parts[place] = (len(digits), digits)
    return (parts, text)


# ---- files with labels ---------------------------------------------------------------------------


def csv_rows(source: Path, notes: Counter[str]) -> list[PhotoRow]:
    """The rows of a CSV file with a header: file (or filename), label, perhaps split.

    Columns may stand in any order, others are not read, blank lines are skipped. A cell that
    `plain_text.cell` wrote means what it was written for. A row that is
    there twice counts once; `notes` gets the number of the others.

    Raises:
        BadDataError: No header, an empty cell, too few or too many cells, an unknown split, quotes
            that are not CSV's, one file with two labels or splits, no rows.
    """
    rows = csv.reader(io.StringIO(read_text(source), newline=""), strict=True)
    columns: dict[str, int] = {}
    width = 0
    photos: list[tuple[str, PhotoRow]] = []  # (line of the file, photo)
    try:
        for row in rows:
            cells = [from_cell(text.strip()) for text in row]
            if not any(cells):
                continue
            if not columns:
                columns, width = _header(source, cells), len(cells)
                continue
            place = f"line {rows.line_num}"
            if len(cells) != width or not all(cells[column] for column in columns.values()):
                problem = f"{place} is {','.join(row)[:60]!r}"
                advice = f"expected {width} cells, {', '.join(columns)} filled"
                raise BadDataError.about(source, problem, advice)
            word = cells[columns["split"]] if "split" in columns else "train"
            if (split := SPLIT_WORDS.get(word.casefold())) is None:
                problem = f"{place} has the split {word[:60]!r}"
                raise BadDataError.about(source, problem, f"expected {', '.join(SPLIT_WORDS)}")
            name = cells[columns["file"]]
            path = source.parent / inside(source, place, name)
            photos.append((place, PhotoRow(path, name, cells[columns["label"]], split)))
    except csv.Error as error:
        problem = f"line {rows.line_num}: broken CSV ({error})"
        raise BadDataError.about(source, problem, "save it as CSV again") from error
    return _once(source, photos, notes)


def _header(source: Path, cells: list[str]) -> dict[str, int]:
    """The numbers of the columns file, label and, where there is one, split."""
    names = [cell.casefold() for cell in cells]
    columns = {}
    for column, words in _COLUMNS.items():
        here = [place for place, name in enumerate(names) if name in words]
        if len(here) > 1 or (not here and column != "split"):
            problem = f"the first line is {','.join(cells)[:60]!r}"
            raise BadDataError.about(source, problem, "expected the header file,label")
        if here:
            columns[column] = here[0]
    return columns


def pets_lists(folder: Path) -> dict[Split, str]:
    """The lists of Oxford-IIIT Pets that are there, by split; `list.txt` only where no other is."""
    there = {
        split: listing
        for split, listing in PETS_LISTS.items()
        if (folder / "annotations" / listing).is_file()
    }
    if not there and (folder / "annotations" / PETS_WHOLE_LIST).is_file():
        return {"train": PETS_WHOLE_LIST}
    return there


def pets_rows(folder: Path, notes: Counter[str]) -> list[PhotoRow]:
    """Oxford-IIIT Pets (Parkhi et al. 2012): `images/` and the lists in `annotations/`.

    A line is `american_bulldog_12 2 2 1`: name of the photo, class from 1, cat or dog, breed. The
    name of the class is what stands before the last `_`; its number, which follows from the names,
    is not used. `#` begins a comment. Where neither `trainval.txt` nor `test.txt` is there,
    `list.txt` is read, which has all photos.

    Raises:
        BadDataError: A line of another form, no lines, one photo in both lists.
    """
    photos: list[tuple[str, PhotoRow]] = []  # (line of the file, photo)
    for split, listing in pets_lists(folder).items():
        source = folder / "annotations" / listing
        for line, text in enumerate(lines_of(read_text(source)), start=1):
            words = text.split()
            if not words or words[0].startswith("#"):
                continue
            label, _, number = words[0].rpartition("_")
            if not label or not all(word.isdecimal() for word in (number, *words[1:])):
                advice = "expected as in american_bulldog_12 2 2 1"
                raise BadDataError.about(source, f"line {line} is {text[:60]!r}", advice)
            place = f"{listing} line {line}"
            name = inside(source, place, f"{words[0]}.jpg")
            photos.append((place, PhotoRow(folder / "images" / name, name, label, split)))
    return _once(folder / "annotations", photos, notes)


def _once(
    source: Path, photos: Iterable[tuple[str, PhotoRow]], notes: Counter[str]
) -> list[PhotoRow]:
    """Each photo once, the others counted in `notes`; refuses one that has two labels or splits."""
    known: dict[Path, tuple[str, PhotoRow]] = {}
    for place, row in photos:
        first, other = known.setdefault(row.path, (place, row))
        if (other.label, other.split) != (row.label, row.split):
            old, new = (f"{each.label!r} ({each.split})" for each in (other, row))
            problem = f"{place} gives {row.name[:80]!r} {new}, {first} gave {old}"
            raise BadDataError.about(source, problem, "remove one of the two lines")
        notes["repeated rows"] += first != place
    if not known:
        raise BadDataError.about(source, "no photos are listed", "expected one a line")
    return [row for _, row in known.values()]
