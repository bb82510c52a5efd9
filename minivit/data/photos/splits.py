"""Photos with labels as they lie on a disk: recognised, split, and checked before they are used.

`minivit.data.photos.layouts` lists the layouts. Class names are those of the folders, names or
lists, in natural order ("2" before "10"): for Oxford-IIIT Pets that is the order of its numbers.
Where a file names these (`minivit.data.photos.class_names`), they are called so, in the same order.

Where a data set does not say what to validate on, a part of each class is held out: the photos
whose hashes of (seed, name) come first. So the split is the same wherever the folder lies and in
whatever order its files are listed, and a photo that is added later moves few others or none. IDX
files, whose pictures have no names, are split by `minivit.data.photos.idx`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from minivit.data.errors import BadDataError, shown
from minivit.data.photos.check import readable
from minivit.data.photos.class_names import names_of_labels
from minivit.data.photos.folders import files_in
from minivit.data.photos.idx import has_idx, idx_part, split_idx
from minivit.data.photos.layouts import Layout, read_layout
from minivit.data.photos.layouts import recognise as recognise
from minivit.data.photos.readers import PETS_LISTS, PhotoRow, natural
from minivit.data.photos.sets import PhotoSet as PhotoSet
from minivit.data.photos.sets import PhotoSplits as PhotoSplits
from minivit.data.photos.sets import left_out, listed, many, photo_set
from minivit.data.text_files import Split
from minivit.progress import Bar


def read_photos(
    location: str | os.PathLike[str],
    *,
    seed: int,
    strict: bool = False,
    workers: int = 0,
    bar: Bar | None = None,
    held_out: float = 0.2,
    limit: int = 0,
    labels: str = "",
) -> PhotoSplits:
    """Photos for training.

    Validation is on `val/`, else on `test/`, else on what is held out of `train/`. Oxford-IIIT
    Pets and IDX files keep their own test photos for testing: there a part of the others is held
    out.

    Args:
        location: A folder or a CSV file, see `minivit.data.photos.layouts`.
        seed: Seed for the choice of the photos that are held out.
        strict: Refuse where a photo cannot be opened, instead of leaving it out.
        workers: Number of processes that check the photos; 0: this one.
        bar: Progress bar for the number of photos checked.
        held_out: Fraction of each class that is held out, in (0, 1); of two photos or more at least
            one goes to each side, a single one is for training. Of IDX files, fraction of all.
        limit: Number of training photos to keep, for trying out; 0: all. See `PhotoSet.first`.
        labels: Source of the names of the classes, see `names_of_labels`. The numbers of the
            classes are those of their labels in natural order, whatever they are called.

    Raises:
        BadDataError: Nothing recognised; names of classes that do not fit; fewer than two classes;
            a class that only validation or test has; nothing to train or validate on; a class of
            the training photos, or a split, of which no photo can be opened; with `strict`, the
            first photo that cannot. The rest as `read_layout` and `read_idx` say.
        ValueError: A fraction outside of (0, 1).
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}, expected a number between 0 and 1")
    place, notes = Path(location), Counter[str]()
    if has_idx(place):
        splits = split_idx(place, seed=seed, held_out=held_out, limit=limit)
        names, file = names_of_labels(place, splits.class_names, source=labels)
        description = f"{splits.description}{_named_by(file)}"
        return replace(splits, class_names=names, description=description)
    layout = read_layout(place, notes)
    class_names = _class_names(place, layout)
    names, file = names_of_labels(place, class_names, source=labels)
    rows, unreadable = readable(layout.rows, strict=strict, workers=workers, bar=bar)
    _refuse_lost(place, layout, rows, unreadable)
    parts: dict[Split, list[PhotoRow]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[row.split].append(row)
    where = dict(layout.where)
    published = where.get("train") == PETS_LISTS["train"]
    if "validation" not in where and "test" in where and not published:
        parts["validation"], parts["test"] = parts["test"], []
        where["validation"] = where.pop("test")
    if "validation" not in where:
        parts["train"], parts["validation"] = _hold_out(parts["train"], held_out, seed)
        where["validation"] = f"{100 * held_out:.3g} % of each class held out, seed {seed}"
    if not parts["validation"]:
        problem = "no photos to validate on"
        raise BadDataError.about(place, problem, "expected two photos of a class, or val/")
    uses: dict[Split, str] = {"train": "train", "validation": "validate", "test": "test"}
    sizes = ", ".join(
        f"{len(parts[split]):,} to {use} on" + (f" ({where[split]})" if split in where else "")
        for split, use in uses.items()
        if parts[split]
    )
    size = f"{many(len(rows), 'photo')} of {many(len(class_names), 'class')}"
    index = {name: number for number, name in enumerate(class_names)}
    return PhotoSplits(
        train=photo_set(parts["train"], index).first(limit),
        validation=photo_set(parts["validation"], index),
        class_names=names,
        data_labels=tuple(class_names),
        description=f"{layout.title}: {size}, {sizes}{left_out(notes, len(unreadable))}"
        f"{_named_by(file)}",
        test=photo_set(parts["test"], index) if parts["test"] else None,
        unreadable=tuple(reason for _, reason in unreadable),
    )


def read_labelled(
    location: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    *,
    split: Split | None = None,
    strict: bool = False,
    workers: int = 0,
    bar: Bar | None = None,
    labels: str = "",
) -> PhotoSet:
    """Labelled photos to measure a trained model by.

    Args:
        location: As for `read_photos`.
        class_names: Names of the model's classes, in its order; labels become indices into them.
            None: nobody knows them, and the photos come without labels.
        split: Split to read; None: test where there is one with labels, else validation, else all
            there is.
        strict: Refuse where a photo cannot be opened, instead of leaving it out.
        workers: Number of processes that check the photos; 0: this one.
        bar: Progress bar for the number of photos checked.
        labels: Source of the names of the photos' labels, see `names_of_labels`; it is asked where
            the labels themselves are no classes of the model.

    Raises:
        BadDataError: No such split; names of labels that do not fit; a class that the model does
            not know, or has twice; nothing that can be opened. The rest as `read_layout` and
            `read_idx` say.
    """
    place, notes = Path(location), Counter[str]()
    if has_idx(place):
        photos, names = idx_part(place, split or "test")
        if class_names is None:
            return replace(photos, labels=())
        numbers, _ = _index_of(
            place, names, {names[label] for label in photos.labels}, class_names, labels
        )
        return replace(photos, labels=tuple(numbers[names[label]] for label in photos.labels))
    layout = read_layout(place, notes)
    order: tuple[Split, ...] = ("test", "validation", "train")
    default: Split = next((name for name in order if name in layout.where), "train")
    split = split or default
    rows = [row for row in layout.rows if row.split == split]
    if not rows:
        there = ", ".join(layout.where) or "no splits"
        raise BadDataError.about(place, f"no split {split}", f"found {there}")
    present, index, file = {row.label for row in rows}, None, None
    if class_names is not None:
        every = sorted({row.label for row in layout.rows}, key=natural)
        index, file = _index_of(place, every, present, class_names, labels)
    rows, unreadable = _some_readable(place, rows, strict=strict, workers=workers, bar=bar)
    source = layout.where.get(split, "not split: all of it")
    size = f"{many(len(rows), 'photo')} of {many(len(present), 'class')}"
    description = f"{layout.title}: {size}, {source}{left_out(notes, len(unreadable))}"
    description += _named_by(file)
    return photo_set(rows, index, description, unreadable)


def class_names_in(location: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of all classes of a data set, in natural order; of IDX files, of their numbers.

    Raises:
        BadDataError: As `read_layout` and `read_idx`.
    """
    place = Path(location)
    if has_idx(place):
        return idx_part(place, "test")[1]
    rows = read_layout(place, Counter()).rows
    return tuple(sorted({row.label for row in rows}, key=natural))


def read_unlabelled(
    folder: str | os.PathLike[str],
    *,
    strict: bool = False,
    workers: int = 0,
    bar: Bar | None = None,
) -> PhotoSet:
    """The photos that lie directly in a folder, whatever they are called; without labels.

    Each file is among the photos or among those that cannot be opened, but for hidden files and
    those that are plainly something else, which the description counts.

    Raises:
        BadDataError: No folder, no photos, none that can be opened; with `strict`, the first that
            cannot.
    """
    place, notes = Path(folder), Counter[str]()
    rows = [PhotoRow(path, path.name, "") for path in files_in(place).candidates(notes)]
    if not rows:
        raise BadDataError.about(place, "no photos in this folder", "expected .jpg, .png or others")
    rows, unreadable = _some_readable(place, rows, strict=strict, workers=workers, bar=bar)
    description = f"{many(len(rows), 'photo')}{left_out(notes, len(unreadable))}"
    return photo_set(rows, None, description, unreadable)


# ---- parts ---------------------------------------------------------------------------------------


def _class_names(place: Path, layout: Layout) -> tuple[str, ...]:
    """The classes of the training photos, which must be all there are, two or more."""
    names = tuple(sorted({row.label for row in layout.rows if row.split == "train"}, key=natural))
    if not names:
        there = ", ".join(layout.where.values())
        raise BadDataError.about(place, f"no photos to train on, only {there}", "expected train/")
    for split, part in layout.where.items():
        if others := {row.label for row in layout.rows if row.split == split} - set(names):
            problem = f"{part} has classes that training lacks: {listed(others)}"
            raise BadDataError.about(place, problem, "add photos of them to train, or remove them")
    if len(names) < 2:
        problem = f"only one class, {names[0]!r} ({layout.title})"
        raise BadDataError.about(place, problem, "expected two or more")
    return names


def _named_by(file: Path | None) -> str:
    """The end of a description: the file that names the classes, where one does."""
    return "" if file is None else f"; names of classes: {shown(file.name)}"


def _index_of(
    place: Path,
    every: Sequence[str],
    present: Iterable[str],
    class_names: Sequence[str],
    source: str,
) -> tuple[dict[str, int], Path | None]:
    """The numbers of the model's classes by label, and the file that names the labels, if one did.

    Refuses labels that name no class, or several.

    Args:
        place: Place of the photos.
        every: All labels of the data, in natural order.
        present: Labels of the photos that are read.
        class_names: Names of the model's classes.
        source: Source of the names of labels, see `names_of_labels`.
    """
    present, counts, file = set(present), Counter(class_names), None
    called = {label: label for label in every}
    if not present <= counts.keys():
        names, file = names_of_labels(place, every, source=source)
        called = dict(zip(every, names, strict=True))
    names_present = {called[label] for label in present}
    if wrong := sorted((name for name in names_present if counts[name] != 1), key=natural):
        number = f"{len(wrong)} of {many(len(names_present), 'class')}"
        problem = f"{number} not known to the model: {listed(wrong)}"
        if counts[wrong[0]] > 1:
            problem = f"the model has {counts[wrong[0]]} classes called {wrong[0]!r}"
        advice = f"expected names as {listed(class_names)}, which are the model's"
        raise BadDataError.about(place, problem, advice)
    numbers = {name: number for number, name in enumerate(class_names)}
    return {label: numbers[called[label]] for label in present}, file


def _refuse_lost(
    place: Path, layout: Layout, rows: Iterable[PhotoRow], bad: Iterable[tuple[PhotoRow, str]]
) -> None:
    """Refuses a split, or a class of the training photos, of which nothing can be opened."""
    splits = defaultdict[Split, set[str]](set)
    for row in rows:
        splits[row.split].add(row.label)
    for row, reason in bad:
        if row.split not in splits:
            part = layout.where.get(row.split, "it")
            raise BadDataError.about(place, f"no photo of {part} can be opened", reason)
        if row.split == "train" and row.label not in splits["train"]:
            problem = f"no photo for training of class {row.label!r} can be opened"
            raise BadDataError.about(place, problem, reason)


def _some_readable(
    place: Path, rows: Sequence[PhotoRow], *, strict: bool, workers: int, bar: Bar | None
) -> tuple[list[PhotoRow], list[str]]:
    """As `readable`, and refuses where nothing can be opened."""
    good, bad = readable(rows, strict=strict, workers=workers, bar=bar)
    if not good:
        raise BadDataError.about(place, "none of the photos can be opened", bad[0][1])
    return good, [reason for _, reason in bad]


def _hold_out(
    rows: Iterable[PhotoRow], share: float, seed: int
) -> tuple[list[PhotoRow], list[PhotoRow]]:
    """(kept, held out), class by class."""

    def chance(row: PhotoRow) -> bytes:
        text = f"{seed}/{row.name}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16).digest()

    kept, others = [], []
    classes: defaultdict[str, list[PhotoRow]] = defaultdict(list)
    for row in rows:
        classes[row.label].append(row)
    for group in classes.values():
        count = min(max(int(share * len(group) + 0.5), 1), len(group) - 1)
        shuffled = sorted(group, key=chance)
        others += shuffled[:count]
        kept += shuffled[count:]
    return kept, others
