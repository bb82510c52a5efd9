"""Pictures with captions as they lie on a disk: COCO, Flickr8k, or a CSV file of one's own.

=====================================  ====================================  ======================
in the folder                          a line or an entry                    pictures
=====================================  ====================================  ======================
`annotations/captions_train2017.json`  COCO's "images" and "annotations"     `train2017/`
`annotations/captions_val2017.json`    the same                              `val2017/`
`captions.txt`                         Flickr8k: `name.jpg,caption`; it may  see below
                                       hold commas, quotes, be in quotes
`Flickr8k.token.txt`                   Flickr8k: `name.jpg#0<TAB>caption`    see below
one file `*.csv`                       `file,caption`, quoted as CSV is      named from the CSV's
                                                                             folder
=====================================  ====================================  ======================

Flickr8k's pictures lie in `Images/`, `Flicker8k_Dataset/`, `Flickr8k_Dataset/` or `images/`, else
beside the text; `Flickr_8k.trainImages.txt` and `Flickr_8k.devImages.txt` give its split.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from minivit.data.captions.readers import (
    FLICKR_TEXTS,
    Row,
    coco_rows,
    csv_rows,
    flickr_rows,
    inside,
)
from minivit.data.captions.readers import BadCaptionsError as BadCaptionsError
from minivit.data.errors import shown

Split = Literal["train", "val"]

_FLICKR_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images")
_FLICKR_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt"}


class NoSplitError(BadCaptionsError):
    """There are captions and nothing is wrong with them, but they are not split."""

    @classmethod
    def to_hold_out(cls, source: Path, found: str) -> NoSplitError:
        """Says that a part of the others can be held out."""
        return cls.about(source, found, "read split train and hold a part of it out")


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture's file and what people wrote about it, one caption or more."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionSet:
    """Pictures in the order in which the captions name them first.

    Attributes:
        pictures: Each once, with captions that are not blank.
        description: One line: what was recognised, how much of it there is, what was left out.
    """

    pictures: tuple[CaptionedPicture, ...]
    description: str


def read_captions(
    location: str | os.PathLike[str], split: Split = "train", *, skip_missing: bool = False
) -> CaptionSet:
    """Reads one of the layouts in the module's docstring.

    Spaces and line breaks within a caption become single spaces. Left out, counted and said in the
    description: blank captions; rows, and annotations of one id, that are there twice; pictures
    without a caption; Flickr8k's captions of a picture that was never published. Whether a picture
    can be opened shows when it is opened.

    Args:
        location: The folder, or a CSV file, or the text file of Flickr8k.
        split: "val" is refused where the files do not have it: see `hold_out`.
        skip_missing: Leave out pictures that are not there instead of refusing, and say how many.

    Raises:
        NoSplitError: the files have no "val".
        BadCaptionsError: nothing to recognise; a file that is empty, no UTF-8, broken or of another
            structure; a missing picture (unless skipped); a name that leads out of the folder;
            nothing left.
        ValueError: another split than "train" or "val".
    """
    if split not in _FLICKR_LISTS:
        raise ValueError(f"split is {split!r}, expected train or val")
    place = Path(location)
    source = _in_folder(place, split) if place.is_dir() else place
    notes: Counter[str] = Counter()
    if place.is_dir() and source.suffix == ".json":
        kind, folder, rows = "COCO", place / f"{split}2017", coco_rows(source, notes)
    elif not source.is_file():
        raise BadCaptionsError.about(source, "no such file or folder", "check the path")
    elif source.name in FLICKR_TEXTS:
        folders = [source.parent / name for name in _FLICKR_FOLDERS]
        folder = next((path for path in folders if path.is_dir()), source.parent)
        kind, rows = "Flickr8k", flickr_rows(source, _flickr_list(source, split), notes)
    elif source.suffix.lower() == ".csv":
        if split == "val":
            raise NoSplitError.to_hold_out(source, "a CSV file has no val split")
        kind, folder, rows = "CSV", source.parent, csv_rows(source)
    else:
        raise BadCaptionsError.about(source, "not recognised", _expected(split))
    pictures = _gather(source, rows, folder, skip_missing, notes)
    left_out = ", ".join(_count(number, what) for what, number in sorted(notes.items()) if number)
    ending = f"; left out: {left_out}" if left_out else ""
    return CaptionSet(pictures, f"{kind}, {shown(source.name)}: {_size(pictures)}{ending}")


def hold_out(captions: CaptionSet, share: float, seed: int = 0) -> tuple[CaptionSet, CaptionSet]:
    """Splits by picture, so that no picture is seen in both parts; each keeps the order.

    Args:
        captions: What to split.
        share: Of the pictures, how many go into the second part, in (0, 1); at least one on each
            side.
        seed: The same seed and the same pictures give the same split.

    Returns:
        (the rest, what is held out).

    Raises:
        ValueError: a share outside of (0, 1), or fewer than two pictures.
    """
    number = len(captions.pictures)
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, expected a number between 0 and 1")
    if number < 2:
        raise ValueError(f"{captions.description}: cannot be split; expected 2 pictures or more")
    count = min(max(round(share * number), 1), number - 1)
    held = set(np.random.default_rng(seed).permutation(number)[:count].tolist())

    def part(out: bool, what: str) -> CaptionSet:
        chosen = tuple(p for i, p in enumerate(captions.pictures) if (i in held) == out)
        return CaptionSet(chosen, f"{captions.description}; {what}, seed {seed}: {_size(chosen)}")

    return part(False, "not held out"), part(True, "held out")


def _in_folder(folder: Path, split: str) -> Path:
    """The file with the captions of a folder."""
    coco = {name: folder / "annotations" / f"captions_{name}2017.json" for name in _FLICKR_LISTS}
    if coco[split].is_file():
        return coco[split]
    if other := [path for path in coco.values() if path.is_file()]:
        found = f"no annotations/{coco[split].name} beside {other[0].name}"
        if split == "val":
            raise NoSplitError.to_hold_out(folder, found)
        raise BadCaptionsError.about(folder, found, "read split val")
    texts = [path for name in FLICKR_TEXTS if (path := folder / name).is_file()]
    tables = sorted(folder.glob("*.[cC][sS][vV]"))
    if texts or len(tables) == 1:
        return (texts or tables)[0]
    if tables:
        found = f"{len(tables)} CSV files, {shown(tables[0].name)} and {shown(tables[1].name)}"
        raise BadCaptionsError.about(folder, found, "name the file that you mean")
    raise BadCaptionsError.about(folder, "no captions in this folder", _expected(split))


def _expected(split: str) -> str:
    flickr = " or ".join(FLICKR_TEXTS)
    coco = f"annotations/captions_{split}2017.json"
    return f"expected {coco} (COCO), {flickr} (Flickr8k), or a .csv file of lines file,caption"


def _flickr_list(source: Path, split: str) -> Path | None:
    """The file with the names of a split; None: all of it, for training."""
    lists = {name: source.parent / file for name, file in _FLICKR_LISTS.items()}
    if lists[split].is_file():
        return lists[split]
    if split == "train" and not lists["val"].is_file():
        return None
    found = f"no {lists[split].name} beside it"
    if any(path.is_file() for path in lists.values()):
        raise BadCaptionsError.about(source, found, "copy it there")
    raise NoSplitError.to_hold_out(source, found)


def _gather(
    source: Path, rows: Iterable[Row], folder: Path, skip_missing: bool, notes: Counter[str]
) -> tuple[CaptionedPicture, ...]:
    """Rows, picture by picture; counts in `notes` what is left out."""
    names: dict[str, str] = {}  # as written -> a plain relative path
    first: dict[str, str] = {}  # where a picture is named first
    captions: dict[str, dict[tuple[str, object], None]] = {}  # in order, each once
    for row in rows:
        if (name := names.get(row.name)) is None:
            name = names[row.name] = inside(source, row.place, row.name)
        text = " ".join(row.caption.split())
        if not text:
            notes["blank caption"] += 1
            continue
        first.setdefault(name, row.place)
        known = captions.setdefault(name, {})
        notes["repeated caption"] += (text, row.mark) in known
        known[text, row.mark] = None
    if not captions:
        blank = f", {notes['blank caption']} blank" if notes["blank caption"] else ""
        raise BadCaptionsError.about(source, f"no captions{blank}", "expected one or more")
    missing = [name for name in captions if not os.path.isfile(folder / name)]
    if missing and (not skip_missing or len(missing) == len(captions)):
        example = f"{shown(folder / missing[0])} ({first[missing[0]]})"
        found = f"{len(missing)} of {len(captions)} pictures are missing, the first is {example}"
        todo = "copy them there" + ("" if skip_missing else ", or leave them out (skip_missing)")
        raise BadCaptionsError.about(source, found, todo)
    notes["missing picture"] += len(missing)
    for name in missing:
        del captions[name]
    return tuple(
        CaptionedPicture(folder / name, tuple(text for text, _ in texts))
        for name, texts in captions.items()
    )


def _count(number: int, what: str) -> str:
    """1 blank caption, 2 blank captions; of "picture without …" the first word is counted."""
    noun, *rest = re.split(r"(?= without | that )", what, maxsplit=1)
    return f"{number:,} {noun}{'s' * (number != 1)}{''.join(rest)}"


def _size(pictures: tuple[CaptionedPicture, ...]) -> str:
    captions = sum(len(picture.captions) for picture in pictures)
    return f"{_count(len(pictures), 'picture')}, {_count(captions, 'caption')}"
