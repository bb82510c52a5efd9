"""What a model said of each photo, as the CSV file that a grader or a spreadsheet reads.

::

    filename,label
    26_5064.jpg,Ragdoll
    "whatever, it is.png",pug
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

from minivit.files import replacing


def write_predictions(
    path: str | os.PathLike[str], names: Sequence[str], said: Sequence[str]
) -> None:
    """Writes a row for each photo, in order, under the header `filename,label`.

    UTF-8, lines end in a line feed, and what needs it is quoted. A name that is not valid UTF-8 on
    disk is written byte for byte as it is there. The file is written whole or not at all.

    Args:
        path: The file; folders above it are made.
        names: Of the photos, written as given.
        said: The label of each.

    Raises:
        ValueError: Not as many names as labels.
        OSError: The file cannot be written.
    """
    if len(names) != len(said):
        raise ValueError(f"{len(names)} names and {len(said)} labels; expected as many of both")
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        plain = csv.writer(file, lineterminator="\n")
        # Before Python 3.13 a carriage return is not seen to need quotes, but read as a line's end.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(("filename", "label"))
        for row in zip(names, said, strict=True):
            (quoted if "\r" in "".join(row) else plain).writerow(row)
