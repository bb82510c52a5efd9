"""Where the IDX files of a folder are, by their names alone; `idx` reads what is in them.

Nothing here imports torch: `train.py` picks a recipe by it.
"""

from __future__ import annotations

from pathlib import Path

PARTS = {"train": "train", "test": "t10k"}
"""How the names of files begin, by the part of the data that is in them."""


def has_idx(folder: Path) -> bool:
    """Whether one of the files that `read_idx` reads is there."""
    return any(find_idx(folder, part, what) for part in PARTS for what in ("images", "labels"))


def find_idx(folder: Path, part: str, what: str) -> Path | None:
    """The file with the images or the labels of a part, plain or as .gz; None: there is none."""
    name = file_name(part, what)
    names = (name, name.replace("-idx", ".idx"))
    paths = (folder / f"{stem}{ending}" for stem in names for ending in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def file_name(part: str, what: str) -> str:
    """The usual name of the file with the images or the labels of a part."""
    return f"{PARTS[part]}-{what}-idx{3 if what == 'images' else 1}-ubyte"
