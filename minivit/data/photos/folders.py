"""The files in a folder: which are photos, which are plainly none, and which cannot be told.

The ending of a name decides where it is a picture's. Otherwise the first bytes decide: a JPEG
without an ending, or called .txt, is a photo. What is neither is left aside if its ending is known
as that of something else; if not (no ending, .heic), it may be a photo that somebody counts on, so
that it is named later as one that cannot be opened.

Hidden files and those of other systems (`__MACOSX`, `Thumbs.db`) are not seen, links are followed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from minivit.data.errors import BadDataError
from minivit.data.photos.readers import natural

_PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".png", ".webp", ".avif"}
_PICTURES |= {".gif", ".tif", ".tiff", ".bmp", ".ico", ".ppm", ".pgm", ".pbm", ".pnm"}
_TEXTS = {".txt", ".md", ".rst", ".log", ".html", ".htm", ".py", ".ipynb", ".sh", ".lst", ".url"}
_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"}
_DOCUMENTS = {".pdf", ".doc", ".docx", ".xls", ".xlsx", ".aae", ".xmp", ".md5", ".sha256", ".db"}
_ARRAYS = {".mat", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".pkl", ".bin"}
_PACKED = {
    ".zip",
    ".tar",
    ".gz",
    ".tgz",
    ".bz2",
    ".xz",
    ".7z",
    ".mp4",
    ".mov",
    ".avi",
    ".mkv",
    ".mp3",
    ".wav",
}
_OTHER_THINGS = _TEXTS | _TABLES | _DOCUMENTS | _ARRAYS | _PACKED
_OF_SYSTEMS = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


class FolderFiles(NamedTuple):
    """The files in a folder, each group in natural order.

    Attributes:
        pictures: Files that are pictures by their ending or their content.
        unknown: Files that may be meant as photos, though nothing here can open them.
        num_others: Number of files that are plainly something else.
    """

    pictures: list[Path]
    unknown: list[Path]
    num_others: int

    def candidates(self, notes: Counter[str]) -> list[Path]:
        """Pictures and unknown files together; counts the others in `notes`."""
        notes["files that are no pictures"] += self.num_others
        return sorted(self.pictures + self.unknown, key=lambda path: natural(path.name))


def files_in(folder: Path) -> FolderFiles:
    """The files in a folder.

    A link that leads nowhere is a file too: the user hears then that it cannot be opened.

    Raises:
        BadDataError: The folder cannot be read.
    """
    files = FolderFiles([], [], 0)
    num_others = 0
    for path in _entries(folder):
        if not path.is_file() and (path.exists() or not path.is_symlink()):
            continue
        ending = path.suffix.lower()
        if ending in _PICTURES or _begins_as_picture(path):
            files.pictures.append(path)
        elif ending in _OTHER_THINGS:
            num_others += 1
        else:
            files.unknown.append(path)
    return files._replace(num_others=num_others)


def _begins_as_picture(path: Path) -> bool:
    from minivit.preprocess import is_picture  # here: it imports torch, and endings mostly decide

    return is_picture(path)


def pictures_in(folder: Path) -> list[Path]:
    """The files in a folder that are pictures, in natural order."""
    return files_in(folder).pictures


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, in natural order."""
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        problem = f"the folder cannot be read ({error.strerror})"
        raise BadDataError.about(folder, problem, "check the path and its permissions") from error
    seen = [n for n in names if not n.startswith(".") and n.casefold() not in _OF_SYSTEMS]
    return [folder / name for name in sorted(seen, key=natural)]
