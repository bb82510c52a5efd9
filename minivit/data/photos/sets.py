"""Photos, in an order that does not depend on the file system, and a line that describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.data.photos.readers import PhotoRow, natural

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PhotoSet:
    """Photos in files, in natural order of their names; or grey pictures in memory.

    Attributes:
        paths: Files of the photos; none where the pictures are in memory.
        labels: Indices into the class names, as many as photos; or none at all.
        names: Names as given, relative to the folder or as the list writes them; of pictures in
            memory, their numbers in the file that they come from.
        description: One line, where the set was read by itself.
        unreadable: "path: reason" of each photo that was left out, where the set was read by
            itself.
        pixels: Pictures in memory, uint8 (n, height, width); None: the photos are in files.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    description: str = ""
    unreadable: tuple[str, ...] = ()
    pixels: Tensor | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_memory(self) -> bool:
        """Whether the pictures are in memory, as those of IDX files, and not in files."""
        return self.pixels is not None

    def first(self, limit: int) -> PhotoSet:
        """The first so many photos, in the same order.

        Files lie class by class: they are taken from each class in turn, so that all classes are
        among them. Pictures in memory lie in random order already.

        Args:
            limit: Number of photos; 0: all of them.
        """
        if not limit or limit >= len(self):
            return self
        if self.pixels is not None:
            chosen = list(range(limit))
        else:
            chosen = sorted(in_turn(self.labels or [0] * len(self))[:limit])
        return replace(
            self,
            paths=tuple(self.paths[index] for index in chosen if self.paths),
            labels=tuple(self.labels[index] for index in chosen if self.labels),
            names=tuple(self.names[index] for index in chosen),
            pixels=None if self.pixels is None else self.pixels[:limit],
        )


@dataclass(frozen=True)
class PhotoSplits:
    """Photos to learn from and to judge by.

    Attributes:
        train: Photos of every class.
        validation: Other photos of some of these classes.
        class_names: Names of the classes in natural order; of IDX files, in the order of their
            numbers.
        description: One line: the layout, the number of photos, the source of the split, what was
            left out.
        data_labels: Labels of these classes as the data write them, in the same order.
        test: Photos to test on, where there are some beside those for validation.
        unreadable: "path: reason" of each photo that was left out.
    """

    train: PhotoSet
    validation: PhotoSet
    class_names: tuple[str, ...]
    description: str
    data_labels: tuple[str, ...]
    test: PhotoSet | None = None
    unreadable: tuple[str, ...] = ()


def photo_set(
    rows: Iterable[PhotoRow],
    index: Mapping[str, int] | None,
    description: str = "",
    unreadable: Iterable[str] = (),
) -> PhotoSet:
    """Rows in natural order of their names.

    Args:
        rows: Photos and the names of their classes.
        index: Numbers of the classes by name; None: the photos have no labels.
        description: One line about the set.
        unreadable: "path: reason" of each photo that was left out.
    """
    ordered = sorted(rows, key=lambda row: natural(row.name))
    return PhotoSet(
        paths=tuple(row.path for row in ordered),
        labels=() if index is None else tuple(index[row.label] for row in ordered),
        names=tuple(row.name for row in ordered),
        description=description,
        unreadable=tuple(unreadable),
    )


def in_turn(labels: Sequence[int]) -> list[int]:
    """Indices of the first of each class, then of the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for index, label in enumerate(labels):
        turns.append((seen[label], label, index))
        seen[label] += 1
    return [index for _, _, index in sorted(turns)]


# ---- words ---------------------------------------------------------------------------------------


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
