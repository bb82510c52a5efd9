"""Pictures with captions as they lie on a disk: read, checked, and split by picture.

`minivit.data.captions.layouts` lists the layouts: COCO, Flickr8k, or a CSV file of one's own.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np

from minivit.data.captions.layouts import Layout, Part, read_layout
from minivit.data.captions.layouts import NoSplitError as NoSplitError
from minivit.data.captions.readers import BadCaptionsError as BadCaptionsError
from minivit.data.captions.sets import CaptionedPicture as CaptionedPicture
from minivit.data.captions.sets import CaptionSet as CaptionSet
from minivit.data.captions.sets import count_of, size_of
from minivit.data.errors import shown
from minivit.data.text_files import Split, inside

_PARTS: dict[str, Part] = {"train": "train", "validation": "val", "val": "val"}


def read_captions(
    location: str | os.PathLike[str],
    split: Split | Literal["val"] = "train",
    *,
    skip_missing: bool = False,
) -> CaptionSet:
    """Reads one of the layouts of `minivit.data.captions.layouts`.

    Spaces and line breaks within a caption become single spaces. Left out, counted and said in the
    description: blank captions; rows, and annotations of one id, that are there twice; pictures
    without a caption; Flickr8k's captions of a picture that was never published. Whether a picture
    can be opened shows when it is opened.

    Args:
        location: The folder, or a CSV file, or the text file of Flickr8k.
        split: "train" or "validation", also called "val", which is refused where the files do not
            have it: see `hold_out`.
        skip_missing: Leave out pictures that are not there instead of refusing, and say how many.

    Raises:
        NoSplitError: The files have no "val".
        BadCaptionsError: Nothing to recognise; a file that is empty, no UTF-8, broken or of another
            structure; a missing picture (unless skipped); a name that leads out of the folder;
            nothing left.
        ValueError: Another split.
    """
    if split not in _PARTS:
        raise ValueError(f"split is {split!r}, expected train or val")
    notes: Counter[str] = Counter()
    layout = read_layout(Path(location), _PARTS[split], notes)
    pictures = _gather(layout, skip_missing, notes)
    left_out = ", ".join(count_of(number, what) for what, number in sorted(notes.items()) if number)
    ending = f"; left out: {left_out}" if left_out else ""
    name = shown(layout.source.name)
    return CaptionSet(pictures, f"{layout.title}, {name}: {size_of(pictures)}{ending}")


def hold_out(captions: CaptionSet, share: float, seed: int = 0) -> tuple[CaptionSet, CaptionSet]:
    """Splits by picture, so that no picture is seen in both parts; each keeps the order.

    Args:
        captions: Pictures to split.
        share: Fraction of the pictures that goes into the second part, in (0, 1); at least one
            picture is on each side.
        seed: Seed for the choice; the same seed and the same pictures give the same split.

    Returns:
        (the rest, what is held out).

    Raises:
        ValueError: A share outside of (0, 1), or fewer than two pictures.
    """
    number = len(captions.pictures)
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, expected a number between 0 and 1")
    if number < 2:
        raise ValueError(f"{captions.description}: cannot be split; expected 2 pictures or more")
    count = min(max(round(share * number), 1), number - 1)
    chosen = set(np.random.default_rng(seed).permutation(number)[:count].tolist())

    def part(is_held_out: bool, what: str) -> CaptionSet:
        pictures = tuple(
            picture
            for index, picture in enumerate(captions.pictures)
            if (index in chosen) == is_held_out
        )
        description = f"{captions.description}; {what}, seed {seed}: {size_of(pictures)}"
        return CaptionSet(pictures, description)

    return part(False, "not held out"), part(True, "held out")


def _gather(
    layout: Layout, skip_missing: bool, notes: Counter[str]
) -> tuple[CaptionedPicture, ...]:
    """Rows, picture by picture; counts in `notes` what is left out."""
    source, folder = layout.source, layout.folder
    names: dict[str, str] = {}  # as written -> a plain relative path
    first: dict[str, str] = {}  # picture -> the line or entry that names it first
    captions: dict[str, dict[tuple[str, object], None]] = {}  # in order, each once
    for row in layout.rows:
        if (name := names.get(row.name)) is None:
            name = inside(source, row.place, row.name, error=BadCaptionsError)
            names[row.name] = name
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
        problem = f"{len(missing)} of {len(captions)} pictures are missing, the first is {example}"
        advice = "copy them there" + ("" if skip_missing else ", or leave them out (skip_missing)")
        raise BadCaptionsError.about(source, problem, advice)
    notes["missing picture"] += len(missing)
    for name in missing:
        del captions[name]
    return tuple(
        CaptionedPicture(folder / name, tuple(text for text, _ in texts))
        for name, texts in captions.items()
    )
