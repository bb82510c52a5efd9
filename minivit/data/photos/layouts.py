"""Which way of keeping labelled photos a folder or a file follows, and what its files say then.

=========  =========================================================================================
classes    `CLASS/photo.jpg`; or `train/CLASS/photo.jpg` and the same in `val/`, `test/`
prefixed   `train/26_5064.jpg`, and `val/`, `test/`: the class is the number before the first `_`;
           where names do not begin with a number, as `american_bulldog_12.jpg`, it is all that
           stands before the last `_` and a number; or a word, `cat_tom.jpg`. One rule fits all
pets       Oxford-IIIT Pets as published: `images/`, `annotations/trainval.txt` and `test.txt`, or
           `list.txt` alone, which splits nothing
csv        a file of lines `file,label` or `file,label,split`, with this header. The user names the
           file: a CSV file in a folder of photos may as well be what `evaluate` wrote there
idx        `train-images-idx3-ubyte.gz` and so on: see `minivit.data.photos.idx`
flat       photos side by side; for training, their names must give the class as in `prefixed`
=========  =========================================================================================

`val` may be `valid` or `validation`, in capitals too. Which files are photos is a matter of
`minivit.data.photos.folders`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from minivit.data.errors import BadDataError, shown
from minivit.data.photos.folders import FolderFiles, files_in, folders_in, pictures_in
from minivit.data.photos.idx_files import has_idx
from minivit.data.photos.readers import (
    PETS_LISTS,
    PETS_WHOLE_LIST,
    PhotoRow,
    csv_rows,
    pets_lists,
    pets_rows,
)
from minivit.data.text_files import SPLIT_WORDS, Split

LayoutName = Literal["classes", "prefixed", "pets", "csv", "idx", "flat"]

_EXPECTED = (
    "expected train/CLASS/ and val/CLASS/, or CLASS/, or names as 26_5064.jpg in train/ and val/, "
    "or a CSV file file,label"
)
# The brackets hold the class; the first rule that fits all names is taken.
_NAME_RULES = (r"([0-9]+)_.+", r"(.+)_[0-9]+", r"([^_]+)_[^_]+")
_NAME_FORMS = "26_5064.jpg (number, _, rest) or american_bulldog_12.jpg (class, _, number)"


class Layout(NamedTuple):
    """What a data set says about its photos.

    Attributes:
        title: Name of the layout, for the description.
        rows: All photos with labels.
        where: Folder or list of each split, as it is called there; empty: the photos are not split.
    """

    title: str
    rows: list[PhotoRow]
    where: Mapping[Split, str]


def recognise(location: Path) -> LayoutName:
    """The layout at this place; photos of "flat" have no labels, unless their names say them.

    Raises:
        BadDataError: Nothing there, a file other than a CSV file, no pictures, or something that
            may be read in two ways.
    """
    if location.is_file() and location.suffix.lower() == ".csv":
        return "csv"
    if not location.is_dir():
        problem = "a file that is no CSV file" if location.exists() else "no such file or folder"
        raise BadDataError.about(location, problem, "give a folder of photos or a CSV file")
    if (location / "images").is_dir() and pets_lists(location):
        return "pets"
    if has_idx(location):
        return "idx"
    if splits := _split_folders(location):
        first = next(iter(splits.values()))
        folders = folders_in(first)
        filled = any(pictures_in(folder) for folder in folders)
        empty = bool(folders) and not pictures_in(first)
        return "classes" if filled or empty else "prefixed"
    loose, unknown, _ = files_in(location)
    classes = [folder for folder in folders_in(location) if pictures_in(folder)]
    if loose and classes:
        both = f"({loose[0].name}) and in folders in it ({classes[0].name}/)"
        advice = f"expected one or the other; move {loose[0].name} or {classes[0].name}/ away"
        raise BadDataError.about(location, f"photos in the folder itself {both}", advice)
    if not loose and not classes:
        problem = "no photos that could be recognised"
        if unknown:
            problem += f" ({shown(unknown[0].name)} is no picture that can be opened here)"
        raise BadDataError.about(location, problem, _EXPECTED)
    if [folder.name for folder in classes] == ["images"] and (location / "annotations").is_dir():
        problem = "images/ and annotations/ as of Oxford-IIIT Pets, without a list of the photos"
        advice = f"expected annotations/{' and '.join(PETS_LISTS.values())}, or {PETS_WHOLE_LIST}"
        raise BadDataError.about(location, problem, advice)
    return "flat" if loose else "classes"


def read_layout(location: Path, notes: Counter[str]) -> Layout:
    """All labelled photos of a place; counts in `notes` what is left out.

    Raises:
        BadDataError: As `recognise`; IDX files, whose pictures have no files of their own; names
            without a class; an empty folder; see also `csv_rows` and `pets_rows`.
    """
    name = recognise(location)
    if name == "idx":
        raise BadDataError.about(location, "IDX files, which are no photos", "use read_idx")
    if name == "csv":
        rows = csv_rows(location, notes)
        splits = {row.split: f"split {row.split}" for row in rows}
        return Layout("a CSV file", rows, {} if set(splits) == {"train"} else splits)
    if name == "pets":
        rows = pets_rows(location, notes)
        present = {row.split for row in rows}
        lists = pets_lists(location)
        where = {split: listing for split, listing in lists.items() if split in present}
        if PETS_WHOLE_LIST in where.values():
            return Layout(f"Oxford-IIIT Pets, {PETS_WHOLE_LIST} alone", rows, {})
        return Layout("Oxford-IIIT Pets as published", rows, where)
    if name == "flat":
        return Layout("names that start with the class", _flat_rows(location, notes), {})
    folders = _split_folders(location)
    if name == "prefixed":
        rows = _prefixed_rows(folders, notes)
        title = "names that start with the class"
    else:
        title = "one folder a class"
        if not folders:
            return Layout(title, _class_rows(location, "train", notes), {})
        rows = []
        for split, folder in folders.items():
            if split == "test" and not folders_in(folder):
                notes["photos without a class in test/"] += len(pictures_in(folder))
            else:
                rows += _class_rows(folder, split, notes)
    present = {row.split for row in rows}
    where = {split: f"{path.name}/" for split, path in folders.items() if split in present}
    return Layout(title, rows, where)


def class_folder(location: Path) -> Path:
    """The folder that holds a folder for each class: `train/` where the photos are split.

    Raises:
        BadDataError: As `recognise`; another layout than one folder a class.
    """
    if recognise(location) != "classes":
        advice = "give --labels FILE, or the folder of the training photos"
        raise BadDataError.about(location, "not one folder a class", advice)
    return next(iter(_split_folders(location).values()), location)


def _split_folders(location: Path) -> dict[Split, Path]:
    """The folders train, val and test, in this order; {} where there are none."""
    splits: dict[Split, Path] = {}
    others = []
    for folder in folders_in(location):
        split = SPLIT_WORDS.get(folder.name.casefold())
        if split is None:
            others.append(folder)
        elif split in splits:
            problem = f"{splits[split].name}/ and {folder.name}/ both stand for {split}"
            raise BadDataError.about(location, problem, "expected one; move the other away")
        else:
            splits[split] = folder
    if len(splits) == 1:
        other = next((folder for folder in others if pictures_in(folder)), None)
        if other:  # perhaps classes, one of them called "train"
            (only,) = splits.values()
            problem = f"{only.name}/ stands beside {other.name}/, which has photos too"
            advice = "expected train/ and val/, or class folders; rename or move one of them"
            raise BadDataError.about(location, problem, advice)
    order: tuple[Split, ...] = ("train", "validation", "test")
    return {split: splits[split] for split in order if split in splits}


def _class_rows(folder: Path, split: Split, notes: Counter[str]) -> list[PhotoRow]:
    """One folder a class; photos beside the folders are counted in `notes`.

    A file that may be a photo is a row too, so that it is named if it cannot be opened.
    """
    rows = []
    classes = folders_in(folder)
    for place in classes:
        pictures = files_in(place).candidates(notes)
        if not pictures:
            problem, advice = "the folder of this class has no photos", "add some, directly in it"
            raise BadDataError.about(place, problem, f"{advice}, or remove the folder")
        rows += [PhotoRow(p, f"{place.name}/{p.name}", place.name, split) for p in pictures]
    if not rows:
        raise BadDataError.about(folder, "no class folders in it", "expected CLASS/photo.jpg")
    beside = files_in(folder)
    notes["photos outside of the class folders"] += len(beside.pictures)
    notes["files that are no pictures"] += len(beside.unknown) + beside.num_others
    return rows


def _prefixed_rows(folders: Mapping[Split, Path], notes: Counter[str]) -> list[PhotoRow]:
    """Photos of train and val, which must name their class, and of test where all of them do."""
    files = {split: files_in(folder) for split, folder in folders.items()}
    pictures = {split: each.pictures for split, each in files.items()}
    for split, folder in folders.items():
        if not pictures[split]:
            raise BadDataError.about(folder, "no photos in it", "add some, or remove the folder")
    needed = {split: paths for split, paths in pictures.items() if split != "test"} or pictures
    everything = [path for paths in needed.values() for path in paths]
    rule = _name_rule(everything)
    if rule is None:
        best = max(_NAME_RULES, key=lambda rule: len(_labels(everything, rule)))
        fitting = _labels(everything, best)
        odd = next(path for path in everything if path not in fitting)
        number = len(everything) - len(fitting)
        problem = f"{number} of {len(everything)} names hold no class"
        raise BadDataError.about(odd, problem, f"expected all as {_NAME_FORMS}, or class folders")
    rows = []
    known = set(_labels(everything, rule).values())
    for split, paths in pictures.items():
        labels = _labels(paths, rule)
        if split not in needed and (len(labels) < len(paths) or not known & set(labels.values())):
            notes["photos without a class in test/"] += len(paths)
            notes["files that are no pictures"] += files[split].num_others
            continue
        labels |= _labelled_unknown(files[split], rule, notes)
        rows += [PhotoRow(path, path.name, label, split) for path, label in labels.items()]
    return rows


def _flat_rows(folder: Path, notes: Counter[str]) -> list[PhotoRow]:
    """Photos side by side, if their names give two classes or more of two photos or more."""
    files = files_in(folder)
    pictures = files.pictures
    rule = _name_rule(pictures)
    labels = _labels(pictures, rule) if rule else {}
    if sum(count > 1 for count in Counter(labels.values()).values()) < 2:
        first = shown(pictures[0].name)
        problem = f"{len(pictures)} photos without a class, the first is {first}"
        raise BadDataError.about(folder, problem, _EXPECTED)
    assert rule is not None
    labels |= _labelled_unknown(files, rule, notes)
    return [PhotoRow(path, path.name, label) for path, label in labels.items()]


def _labelled_unknown(files: FolderFiles, rule: str, notes: Counter[str]) -> dict[Path, str]:
    """The classes of unknown files that are called like the photos; `notes` counts the others."""
    labels = _labels(files.unknown, rule)
    notes["files that are no pictures"] += len(files.unknown) - len(labels) + files.num_others
    return labels


def _name_rule(pictures: Iterable[Path]) -> str | None:
    """The first rule that all names follow."""
    paths = list(pictures)
    return next((rule for rule in _NAME_RULES if len(_labels(paths, rule)) == len(paths)), None)


def _labels(pictures: Sequence[Path], rule: str) -> dict[Path, str]:
    """The classes of those photos whose names follow a rule."""
    matches = ((path, re.fullmatch(rule, path.stem)) for path in pictures)
    return {path: match[1] for path, match in matches if match}
