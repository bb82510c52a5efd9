"""Photos, in an order that does not depend on the file system, and a line that describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minivit.data.photos.readers import PhotoRow, natural


@dataclass(frozen=True)
class PhotoSet:
    """Photos in natural order of their names.

    Attributes:
        paths: Their files.
        labels: Indices into the class names, as many as paths; or none at all.
        names: As given, relative to the folder or as the list writes them.
        description: One line, where the set was read by itself.
        unreadable: "path: reason" of each photo that was left out, where it was read by itself.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    description: str = ""
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class PhotoSplits:
    """Photos to learn from and to judge by.

    Attributes:
        train: Photos of every class.
        validation: Other photos of some of these classes.
        class_names: In natural order.
        description: One line: what was recognised, how much, where the split comes from, what was
            left out.
        test: Where there is a part for it beside the one for validation.
        unreadable: "path: reason" of each photo that was left out.
    """

    train: PhotoSet
    validation: PhotoSet
    class_names: tuple[str, ...]
    description: str
    test: PhotoSet | None = None
    unreadable: tuple[str, ...] = ()


def photo_set(
    rows: Iterable[PhotoRow],
    index: Mapping[str, int] | None,
    description: str = "",
    unreadable: Iterable[str] = (),
) -> PhotoSet:
    """Rows in order, their labels looked up in `index`; None: without labels."""
    ordered = sorted(rows, key=lambda row: natural(row.name))
    return PhotoSet(
        paths=tuple(row.path for row in ordered),
        labels=() if index is None else tuple(index[row.label] for row in ordered),
        names=tuple(row.name for row in ordered),
        description=description,
        unreadable=tuple(unreadable),
    )


def listed(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    ordered = [repr(name) for name in sorted(names, key=natural)]
    return ", ".join(ordered[:5]) + (" …" if len(ordered) > 5 else "")


def many(number: int, what: str) -> str:
    """1 photo, 2,000 photos, 3 classes."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{ending}"


def left_out(notes: Counter[str], num_unreadable: int) -> str:
    """The end of a description: what was left out, and how often."""
    notes = notes + Counter({"unreadable photos": num_unreadable})
    counts = ", ".join(f"{what} ({count:,})" for what, count in notes.items())
    return f"; left out: {counts}" if counts else ""
