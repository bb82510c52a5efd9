"""Pictures and what people wrote about them, and a line that describes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CaptionedPicture:
    """A picture's file and what people wrote about it, one caption or more."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionSet:
    """Pictures in the order in which the captions name them first.

    Attributes:
        pictures: Pictures, each once, with captions that are not blank.
        description: One line: the layout, the number of pictures and captions, what was left out.
    """

    pictures: tuple[CaptionedPicture, ...]
    description: str


def count_of(number: int, what: str) -> str:
    """1 blank caption, 2 blank captions; of "picture without …" the first word is counted."""
    noun, *rest = re.split(r"(?= without | that )", what, maxsplit=1)
    return f"{number:,} {noun}{'s' * (number != 1)}{''.join(rest)}"


def size_of(pictures: tuple[CaptionedPicture, ...]) -> str:
    """2 pictures, 10 captions."""
    captions = sum(len(picture.captions) for picture in pictures)
    return f"{count_of(len(pictures), 'picture')}, {count_of(captions, 'caption')}"
