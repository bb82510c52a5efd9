"""What a run learns from, in a few bytes: whether the samples are still the same, and what changed.

A saved state means something for its own samples only: it counts steps through them, and its
weights answer with the number of a class. `DataDigest` stands in the state and holds, for each part
of the data, a hash of the (name, label) of all samples in order; small sets also keep the names, so
that a difference can be told. Names start from the data folder: the folder may lie elsewhere. Files
are not opened: another picture under the same name is not noticed.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minivit.data.captions.sets import CaptionSet

MOST_LISTED = 10_000  # rows whose names are kept, some ten bytes each
NUM_PROBES = 16  # scenes of a part that stand for all: they are drawn by one rule
_SHOWN = 4  # names in a message

Row = tuple[str, str]


@dataclass(frozen=True)
class Listing:
    """Rows of text in order, each a name and a label.

    Attributes:
        number: Number of samples.
        hash: Hash of all rows.
        packed: Rows as compressed JSON in base 85, as `torch.load` reads no bytes; nothing where
            there are more than `MOST_LISTED`.
        counts: Number of samples by label; nothing where the rows are kept, or were not counted.
    """

    number: int
    hash: str
    packed: str
    counts: dict[str, int]

    @classmethod
    def of(cls, rows: Sequence[Row], *, number: int | None = None, count: bool = False) -> Listing:
        """The listing of some rows.

        Args:
            rows: Names and labels.
            number: Number of samples for which the rows stand; None: one a row.
            count: Whether there are few labels, so that a long listing can count them.
        """
        text = json.dumps(rows).encode()
        listed = len(rows) <= MOST_LISTED
        return cls(
            number=len(rows) if number is None else number,
            hash=hashlib.blake2b(text, digest_size=16).hexdigest(),
            packed=base64.b85encode(bz2.compress(text)).decode() if listed else "",
            counts=dict(Counter(label for _, label in rows)) if count and not listed else {},
        )

    def labels(self) -> dict[str, str] | None:
        """Label by name, in order; None where the rows are not kept."""
        if not self.packed:
            return None
        return dict(json.loads(bz2.decompress(base64.b85decode(self.packed))))

    def same_as(self, other: Listing) -> bool:
        """Whether these are the same samples in the same order."""
        return (self.number, self.hash) == (other.number, other.hash)


@dataclass(frozen=True)
class DataDigest:
    """The samples of a run.

    Attributes:
        kind: Name of the samples.
        answers: Name of what the model chooses from.
        names: Names of the classes, or words of the vocabulary, in order.
        train: Training samples.
        validation: Samples that only measure the model.
    """

    kind: Literal["photos", "photos with captions", "built-in scenes"]
    answers: Literal["classes", "words of the vocabulary"]
    names: Listing
    train: Listing
    validation: Listing

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a state."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataDigest:
        """The digest of `to_dict`."""
        parts = {name: Listing(**values[name]) for name in ("names", "train", "validation")}
        return cls(**{**values, **parts})

    def changes_since(self, before: DataDigest) -> str:
        """What is different from an earlier digest, and what to do, in one line; "": nothing is.

        Args:
            before: Digest of the run that is to go on.
        """
        changes = []
        if self.kind != before.kind:
            changes.append(f"the samples were {before.kind} and are {self.kind}")
        elif not self.names.same_as(before.names):
            changes.append(f"{self.answers} were {_names_changed(before.names, self.names)}")
        else:
            parts = (
                ("train", before.train, self.train),
                ("validate", before.validation, self.validation),
            )
            changes += [
                f"of the {self.kind} to {use} on, {self._samples_changed(old, new)}"
                for use, old, new in parts
                if not new.same_as(old)
            ]
        if not changes:
            return ""
        back = "put the data back as they were"
        if before.kind == "built-in scenes":
            back = "use the version of minivit that began the run"
        return f"the data are not those of this run: {'; '.join(changes)}; {back}, or --overwrite"

    def _samples_changed(self, before: Listing, now: Listing) -> str:
        """What is different in one part of the data."""
        old, new = before.labels(), now.labels()
        if old is None or new is None:
            return _numbers_changed(before, now)
        changes = [
            f"{len(names):,} {'was' if len(names) == 1 else 'were'} {verb} ({_first(names)})"
            for verb, names in (
                ("removed", [name for name in old if name not in new]),
                ("added", [name for name in new if name not in old]),
            )
            if names
        ]
        if others := [name for name in new if name in old and old[name] != new[name]]:
            name = others[0]
            if self.kind == "photos":
                change = f"the label of {name!r} was {old[name]!r} and is {new[name]!r}"
            elif self.kind == "photos with captions":
                change = f"the captions of {name!r} are others"
            else:
                change = f"number {name} is drawn or described in another way"
            more = f", and so for {len(others) - 1:,} more" if len(others) > 1 else ""
            changes.append(f"{change}{more}")
        return ", ".join(changes) or _numbers_changed(before, now)


# ---- digests -------------------------------------------------------------------------------------


def photo_digest(
    class_names: Sequence[str],
    *,
    train: Iterable[tuple[object, int]],
    validation: Iterable[tuple[object, int]],
) -> DataDigest:
    """The digest of labelled photos.

    Args:
        class_names: Names of the classes in order.
        train: Names and labels of the photos to train on.
        validation: The same of those to validate on.
    """

    def listing(photos: Iterable[tuple[object, int]]) -> Listing:
        return Listing.of([(str(name), class_names[label]) for name, label in photos], count=True)

    return DataDigest("photos", "classes", _names(class_names), listing(train), listing(validation))


def caption_digest(
    vocabulary: Sequence[str], *, folder: Path, train: CaptionSet, validation: CaptionSet
) -> DataDigest:
    """The digest of photos with captions.

    Args:
        vocabulary: Words of the tokenizer in order.
        folder: Folder from which the names of the photos start.
        train: Photos to train on.
        validation: Photos to validate on.
    """

    def listing(captions: CaptionSet) -> Listing:
        return Listing.of(
            [
                (each.path.relative_to(folder).as_posix(), _short_hash(each.captions))
                for each in captions.pictures
            ]
        )

    return DataDigest(
        "photos with captions",
        "words of the vocabulary",
        _names(vocabulary),
        listing(train),
        listing(validation),
    )


def scene_digest(
    answers: Literal["classes", "words of the vocabulary"],
    names: Sequence[str],
    *,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
) -> DataDigest:
    """The digest of built-in scenes: their number, and what the first few look like.

    What they look like is the mean colour of each quarter in whole numbers: a processor that rounds
    one pixel in another way draws the same scenes.

    Args:
        answers: Name of what the model chooses from.
        names: Names of the classes or words of the vocabulary, in order.
        train: Scenes uint8 (n, 3, height, width) and their labels (n,) or words (n, T).
        validation: The same of those to validate on.
    """

    def listing(scenes: tuple[Tensor, Tensor]) -> Listing:
        images, answers = (each[:NUM_PROBES] for each in scenes)
        # (n, 3, height, width) -> (n, 3, 2, 2)
        colours = torch.nn.functional.adaptive_avg_pool2d(images.double(), 2).round().long()
        rows = [
            (str(number), _short_hash([colour.tolist(), answer.tolist()]))
            for number, (colour, answer) in enumerate(zip(colours, answers, strict=True))
        ]
        return Listing.of(rows, number=len(scenes[0]))

    return DataDigest(
        "built-in scenes", answers, _names(names), listing(train), listing(validation)
    )


def _names(names: Iterable[str]) -> Listing:
    """Names without labels; by their numbers, as two classes may have one name."""
    return Listing.of([(str(number), name) for number, name in enumerate(names)])


def _short_hash(values: Sequence[object]) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


# ---- words ---------------------------------------------------------------------------------------


def _names_changed(before: Listing, now: Listing) -> str:
    """'a', 'b' (2) and are 'a', 'b', 'c' (3): the names around the first difference."""
    listed = before.labels(), now.labels()
    if listed[0] is None or listed[1] is None:
        others = " others" if before.number == now.number else ""
        return f"{before.number:,} and are {now.number:,}{others}"
    old, new = list(listed[0].values()), list(listed[1].values())
    same = next(
        (at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]),
        min(len(old), len(new)),
    )
    start = max(0, same + 2 - _SHOWN)
    return f"{_around(old, start)} and are {_around(new, start)}"


def _around(names: Sequence[str], start: int) -> str:
    """A few names from a place on, with marks where there are more, and the number of all."""
    shown = [repr(name) for name in names[start : start + _SHOWN]]
    before, after = "… " * (start > 0), " …" * (start + _SHOWN < len(names))
    return f"{before}{', '.join(shown)}{after} ({len(names):,})"


def _numbers_changed(before: Listing, now: Listing) -> str:
    """What numbers tell where names are not kept, or are the same."""
    if before.number != now.number:
        change = f"{before.number:,} were there and {now.number:,} are now"
    elif before.labels() is not None and before.labels() == now.labels():
        change = "the order is another"
    else:
        change = f"the names, labels or order are others, {now.number:,} as before"
    for label in before.counts | now.counts if before.counts and now.counts else ():
        old, new = before.counts.get(label, 0), now.counts.get(label, 0)
        if old != new:
            return f"{change} (of class {label!r} {old:,} were there and {new:,} are now)"
    return change


def _first(names: Sequence[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"the first is {names[0]!r}"
