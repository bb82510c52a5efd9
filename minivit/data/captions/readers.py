"""The lines and entries of caption files, one reader a format; nothing in them is trusted.

Each reader yields rows (line or entry, name of the picture, caption) with the text as it is
written. It refuses what it cannot read, and names the file and the line or entry.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minivit.data.errors import BadDataError
from minivit.data.text_files import lines_of, read_text

FLICKR_TEXTS = ("captions.txt", "Flickr8k.token.txt")
_COCO = "expected images with id and file_name, annotations with image_id and caption"
_FLICKR_STRAY = "2258277193_586949ec62.jpg.1"  # its captions were published without a picture


class BadCaptionsError(BadDataError):
    """Captions that cannot be used."""


class Row(NamedTuple):
    """One caption.

    Attributes:
        place: Line or entry of the file, for messages.
        name: Name of the picture as written.
        caption: Text as written; it may be blank.
        mark: Mark by which this caption differs from another one of the same picture that has the
            same words.
    """

    place: str
    name: str
    caption: str
    mark: object = None


def coco_rows(source: Path, notes: Counter[str]) -> Iterator[Row]:
    """The annotations of a COCO file; counts in `notes` the pictures that none of them names.

    Raises:
        BadCaptionsError: No JSON, another structure, or an image_id that "images" does not have.
    """
    text = read_text(source, error=BadCaptionsError)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: broken JSON ({error.msg})"
        raise BadCaptionsError.about(source, problem, "copy or download it again") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of too many digits
        raise BadCaptionsError.about(source, "JSON that is no data set", _COCO) from error
    files: dict[int | str, str] = {}
    for place, (index, name), _ in _entries(source, content, "images", "id", "file_name"):
        if files.setdefault(index, name) != name:
            problem = f"{place} gives the id {index!r} a second file, {name[:80]!r}"
            raise BadCaptionsError.about(source, problem, "expected one file an id")
    named = set()
    for place, (index, caption), entry in _entries(
        source, content, "annotations", "image_id", "caption"
    ):
        if index not in files:
            problem = f"{place} is about image_id {index!r}, which is not in images"
            raise BadCaptionsError.about(source, problem, "copy or download it again")
        named.add(index)
        mark = entry.get("id")
        yield Row(place, files[index], caption, mark if isinstance(mark, int | str) else None)
    notes["picture without a caption"] += len(files) - len(named)


def _entries(
    source: Path, content: object, name: str, index: str, text: str
) -> Iterator[tuple[str, tuple[Any, str], Mapping[str, Any]]]:
    """(place, the two fields, the whole entry) for each entry of a list of a COCO file."""
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BadCaptionsError.about(source, f'there is no list "{name}"', _COCO)
    for number, entry in enumerate(entries):
        place = f"{name}[{number}]"
        for key, types in ((index, (int, str)), (text, (str,))):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
                raise BadCaptionsError.about(source, f'{place} has no usable "{key}"', _COCO)
        yield place, (entry[index], entry[text]), entry


def flickr_rows(source: Path, listing: Path | None, notes: Counter[str]) -> Iterator[Row]:
    """The lines of Flickr8k's captions, of all pictures or of those in a list of names.

    Counts in `notes` the pictures of the list that no line names.

    Raises:
        BadCaptionsError: A line without a name or a caption's separator.
    """
    used: dict[str, bool] = {}
    if listing:
        names = lines_of(read_text(listing, error=BadCaptionsError))
        used = {name.strip(): False for name in names if name.strip()}
    tabs = source.name != FLICKR_TEXTS[0]
    lines = lines_of(read_text(source, error=BadCaptionsError))
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.strip().lower() == "image,caption"):
            continue
        name, separator, caption = line.partition("\t" if tabs else ",")
        name, _, mark = name.rpartition("#") if tabs else (name, "", "")
        name = name.strip()
        if not separator or not name:
            problem = f"line {number} is {line[:60]!r}"
            form = "name.jpg#0, a tab, the caption" if tabs else "name.jpg,caption"
            raise BadCaptionsError.about(source, problem, f"expected {form}")
        if not tabs and (quoted := re.fullmatch(r'\s*"((?:[^"]|"")*)"\s*', caption)):
            caption = quoted[1].replace('""', '"')
        if name == _FLICKR_STRAY:
            notes["caption that was published without its picture"] += not listing
        elif not listing or name in used:
            used[name] = True
            yield Row(f"line {number}", name, caption, mark)
    notes["picture without a caption"] += sum(not value for value in used.values())


def csv_rows(source: Path) -> Iterator[Row]:
    """The rows of a CSV file; the first is a header when its first cell is no file's name.

    Raises:
        BadCaptionsError: Another number of columns than two, or quotes that are not CSV's.
    """
    text = read_text(source, error=BadCaptionsError)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = True
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != 2:
                columns = f"{len(row)} column{'s' * (len(row) != 1)}"
                problem = f"line {rows.line_num} has {columns}, expected file,caption"
                advice = "put quotes around a caption with commas"
                raise BadCaptionsError.about(source, problem, advice)
            name = row[0].strip()
            header = first and "." not in name and not os.path.isfile(source.parent / name)
            first = False
            if not header:
                yield Row(f"line {rows.line_num}", name, row[1])
    except csv.Error as error:
        problem = f"line {rows.line_num}: broken CSV ({error})"
        advice = "double the quotes within a caption in quotes"
        raise BadCaptionsError.about(source, problem, advice) from error
