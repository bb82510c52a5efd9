"""Which way of keeping captions a folder or a file follows, and what its files say then.

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

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from minivit.data.captions.readers import (
    FLICKR_TEXTS,
    BadCaptionsError,
    Row,
    coco_rows,
    csv_rows,
    flickr_rows,
)
from minivit.data.errors import shown

Part = Literal["train", "val"]
"""The two parts of a published data set, as the names of COCO's files say them."""

_FLICKR_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images")
_FLICKR_LISTS: dict[Part, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
}


class NoSplitError(BadCaptionsError):
    """There are captions and nothing is wrong with them, but they are not split."""

    @classmethod
    def to_hold_out(cls, source: Path, problem: str) -> NoSplitError:
        """The error whose advice is to hold a part of the others out."""
        return cls.about(source, problem, "read split train and hold a part of it out")


class Layout(NamedTuple):
    """What a data set says about its pictures.

    Attributes:
        title: Name of the layout, for the description.
        source: File with the captions.
        folder: Folder from which the names of the pictures start.
        rows: Captions of the part that was wanted, read as they are taken.
    """

    title: str
    source: Path
    folder: Path
    rows: Iterable[Row]


def read_layout(location: Path, part: Part, notes: Counter[str]) -> Layout:
    """The captions of one part of a data set; counts in `notes` what the files leave out.

    Raises:
        NoSplitError: The files have no "val".
        BadCaptionsError: Nothing that is recognised, or another part than this; and, once the rows
            are taken, what `coco_rows`, `flickr_rows` and `csv_rows` refuse.
    """
    source = _in_folder(location, part) if location.is_dir() else location
    if location.is_dir() and source.suffix == ".json":
        return Layout("COCO", source, location / f"{part}2017", coco_rows(source, notes))
    if not source.is_file():
        raise BadCaptionsError.about(source, "no such file or folder", "check the path")
    if source.name in FLICKR_TEXTS:
        folders = [source.parent / name for name in _FLICKR_FOLDERS]
        folder = next((path for path in folders if path.is_dir()), source.parent)
        rows = flickr_rows(source, _flickr_list(source, part), notes)
        return Layout("Flickr8k", source, folder, rows)
    if source.suffix.lower() == ".csv":
        if part == "val":
            raise NoSplitError.to_hold_out(source, "a CSV file has no val split")
        return Layout("CSV", source, source.parent, csv_rows(source))
    raise BadCaptionsError.about(source, "not recognised", _expected(part))


def _in_folder(folder: Path, part: Part) -> Path:
    """The file with the captions of a folder."""
    coco = {name: folder / "annotations" / f"captions_{name}2017.json" for name in _FLICKR_LISTS}
    if coco[part].is_file():
        return coco[part]
    if others := [path for path in coco.values() if path.is_file()]:
        problem = f"no annotations/{coco[part].name} beside {others[0].name}"
        if part == "val":
            raise NoSplitError.to_hold_out(folder, problem)
        raise BadCaptionsError.about(folder, problem, "read split val")
    texts = [path for name in FLICKR_TEXTS if (path := folder / name).is_file()]
    tables = sorted(folder.glob("*.[cC][sS][vV]"))
    if texts or len(tables) == 1:
        return (texts or tables)[0]
    if tables:
        problem = f"{len(tables)} CSV files, {shown(tables[0].name)} and {shown(tables[1].name)}"
        raise BadCaptionsError.about(folder, problem, "name the file that you mean")
    raise BadCaptionsError.about(folder, "no captions in this folder", _expected(part))


def _expected(part: Part) -> str:
    flickr = " or ".join(FLICKR_TEXTS)
    coco = f"annotations/captions_{part}2017.json"
    return f"expected {coco} (COCO), {flickr} (Flickr8k), or a .csv file of lines file,caption"


def _flickr_list(source: Path, part: Part) -> Path | None:
    """The file with the names of a part; None: all of the captions, for training."""
    lists = {name: source.parent / file for name, file in _FLICKR_LISTS.items()}
    if lists[part].is_file():
        return lists[part]
    if part == "train" and not lists["val"].is_file():
        return None
    problem = f"no {lists[part].name} beside it"
    if any(path.is_file() for path in lists.values()):
        raise BadCaptionsError.about(source, problem, "copy it there")
    raise NoSplitError.to_hold_out(source, problem)
