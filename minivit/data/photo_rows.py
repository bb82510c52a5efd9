"""Photos with labels, row by row: from a CSV file, from Oxford-IIIT Pets' lists, from folders.

Nothing that is read is trusted: what cannot be used is refused with the file and the line. Hidden
files and those of other systems (`__MACOSX`, `Thumbs.db`) are not seen, links are followed.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Literal, NamedTuple

from minivit.data.caption_rows import BadCaptionsError, lines_of, read_text, shown

Split = Literal["train", "validation", "test"]
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
PETS_LISTS: dict[Split, str] = {"train": "trainval.txt", "test": "test.txt"}

_JPEGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k"}
_PICTURES = _JPEGS | {".png", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp", ".ico"}
_PICTURES |= {".ppm", ".pgm", ".pbm", ".pnm"}
_OF_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini"}
_FILE_COLUMNS, _LABEL_COLUMNS = ("file", "filename"), ("label",)


class BadDataError(ValueError):
    """A data set that cannot be used; the message is one line: what was found, and what to do."""

    @classmethod
    def about(cls, source: Path, found: str, todo: str) -> BadDataError:
        """source: found; todo, the source quoted where it would break the line."""
        return cls(f"{shown(source)}: {found}; {todo}")


class PhotoRow(NamedTuple):
    """A photo and what is said about it.

    Attributes:
        path: Its file.
        name: As given: relative to the folder, or as the list writes it.
        label: Name of its class.
        split: The part that it belongs to; train where nothing is said.
    """

    path: Path
    name: str
    label: str
    split: Split = "train"


def natural(text: str) -> tuple[object, ...]:
    """A sorting key: 2 before 10, capitals beside their small letters."""
    parts: list[object] = re.split(r"([0-9]+)", text.casefold())
    for place in range(1, len(parts), 2):
        digits = str(parts[place]).lstrip("0")
        parts[place] = (len(digits), digits)
    return (parts, text)


# ---- folders -------------------------------------------------------------------------------------


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order."""
    return [path for path in _entries(folder) if path.is_dir()]


def pictures_in(folder: Path, notes: Counter[str]) -> list[Path]:
    """The files in a folder that are called like pictures, in natural order.

    Counts the other files in `notes`. A link that leads nowhere is listed: it cannot be opened
    then, which is worth a word.
    """
    pictures = []
    for path in _entries(folder):
        if path.is_file() or (path.is_symlink() and not path.exists()):
            if path.suffix.lower() in _PICTURES:
                pictures.append(path)
            else:
                notes["files that are no pictures"] += 1
    return pictures


def _entries(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        found = f"the folder cannot be read ({error.strerror})"
        raise BadDataError.about(folder, found, "check the path and its permissions") from error
    seen = [n for n in names if not n.startswith(".") and n.casefold() not in _OF_SYSTEMS]
    return [folder / name for name in sorted(seen, key=natural)]


# ---- files with labels ---------------------------------------------------------------------------


def csv_rows(source: Path, notes: Counter[str]) -> list[PhotoRow]:
    """The rows of a CSV file with a header: file (or filename), label, perhaps split.

    Columns may stand in any order, others are not read, blank lines are skipped. A row that is
    there twice counts once; `notes` gets the number of the others.

    Raises:
        BadDataError: No header, an empty cell, too few or too many cells, an unknown split, quotes
            that are not CSV's, a file that is not there, one file with two labels or splits.
    """
    rows = csv.reader(io.StringIO(_text(source), newline=""), strict=True)
    places: dict[str, int] | None = None
    found: list[tuple[int, PhotoRow]] = []
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if places is None:
                places = _header(source, cells)
                width = len(cells)
                continue
            line = rows.line_num
            if len(cells) != width or not all(cells[place] for place in places.values()):
                what = f"line {line} is {','.join(row)[:60]!r}"
                todo = f"expected {width} cells, {', '.join(places)} filled"
                raise BadDataError.about(source, what, todo)
            word = cells[places["split"]] if "split" in places else "train"
            if (split := SPLIT_WORDS.get(word.casefold())) is None:
                what = f"line {line} has the split {word[:60]!r}"
                raise BadDataError.about(source, what, f"expected {', '.join(SPLIT_WORDS)}")
            name = cells[places["file"]]
            path = source.parent / _inside(source, line, name)
            found.append((line, PhotoRow(path, name, cells[places["label"]], split)))
    except csv.Error as error:
        what = f"line {rows.line_num}: broken CSV ({error})"
        raise BadDataError.about(source, what, "save it as CSV again") from error
    return _once(source, found, notes)


def _header(source: Path, cells: list[str]) -> dict[str, int]:
    """Which column is file, label and, where there is one, split."""
    names = [cell.casefold() for cell in cells]
    places = {}
    for column, words in (
        ("file", _FILE_COLUMNS),
        ("label", _LABEL_COLUMNS),
        ("split", ("split",)),
    ):
        here = [place for place, name in enumerate(names) if name in words]
        if len(here) > 1 or (not here and column != "split"):
            what = f"the first line is {','.join(cells)[:60]!r}"
            raise BadDataError.about(source, what, "expected the header file,label")
        if here:
            places[column] = here[0]
    return places


def pets_rows(folder: Path, notes: Counter[str]) -> list[PhotoRow]:
    """Oxford-IIIT Pets (Parkhi et al. 2012): `images/` and the lists in `annotations/`.

    A line is `american_bulldog_12 2 2 1`: name of the photo, class from 1, cat or dog, breed; the
    class is called what stands before the last `_` of the name. `#` begins a comment.

    Raises:
        BadDataError: A line of another form, a class with two numbers or a number with two classes,
            a photo that is not there, one photo in both lists.
    """
    found: list[PhotoRow] = []
    numbers: dict[str, str] = {}
    for split, listing in PETS_LISTS.items():
        source = folder / "annotations" / listing
        if not source.is_file():
            continue
        lines: list[tuple[int, PhotoRow]] = []
        for line, text in enumerate(lines_of(_text(source)), start=1):
            words = text.split()
            if not words or words[0].startswith("#"):
                continue
            label, _, number = words[0].rpartition("_")
            good = len(words) >= 2 and label and number.isdecimal() and words[1].isdecimal()
            if not good or numbers.setdefault(label, words[1]) != words[1]:
                first = numbers.get(label) if good else None
                also = f", where {label} had the number {first}" if first else ""
                todo = "expected as in american_bulldog_12 2 2 1"
                raise BadDataError.about(source, f"line {line} is {text[:60]!r}{also}", todo)
            name = _inside(source, line, f"{words[0]}.jpg")
            lines.append((line, PhotoRow(folder / "images" / name, name, label, split)))
        found += _once(source, lines, notes)
    for number, count in Counter(numbers.values()).items():
        if count > 1:
            labels = [label for label, other in numbers.items() if other == number]
            what = f"class number {number} is {' and '.join(labels[:2])}"
            raise BadDataError.about(folder / "annotations", what, "expected one class a number")
    splits: dict[Path, Split] = {}
    for row in found:
        if splits.setdefault(row.path, row.split) != row.split:
            lists = " and in ".join(PETS_LISTS.values())
            raise BadDataError.about(row.path, f"it is in {lists}", "remove it from one")
    return found


def _text(source: Path) -> str:
    try:
        return read_text(source)
    except BadCaptionsError as error:
        raise BadDataError(str(error)) from error


def _once(
    source: Path, found: Iterable[tuple[int, PhotoRow]], notes: Counter[str]
) -> list[PhotoRow]:
    """Each photo once; refuses one with two labels, and photos that are not there."""
    known: dict[Path, tuple[int, PhotoRow]] = {}
    for line, row in found:
        first, other = known.setdefault(row.path, (line, row))
        if other[2:] != row[2:]:
            old, new = (f"{each.label!r} ({each.split})" for each in (other, row))
            both = f"line {line} gives {row.name[:80]!r} {new}, line {first} gave {old}"
            raise BadDataError.about(source, both, "remove one of the two lines")
        notes["repeated rows"] += first != line
    missing = [(line, row) for line, row in known.values() if not row.path.is_file()]
    if missing:
        line, row = missing[0]
        what = (
            f"{len(missing)} of {len(known)} photos are not there, the first is {shown(row.path)}"
        )
        raise BadDataError.about(source, f"{what} (line {line})", "copy them there")
    return [row for _, row in known.values()]


def _inside(source: Path, line: int, name: str) -> str:
    """The name of a photo as a plain relative path, which stays in the folder."""
    windows = PureWindowsPath(name)  # knows both slashes, drives and shares
    if windows.anchor or ".." in windows.parts or "\0" in name or not windows.parts:
        what = f"line {line} names the photo {name[:80]!r}"
        raise BadDataError.about(source, what, "expected a path within the folder of the file")
    return os.path.normpath(name)
