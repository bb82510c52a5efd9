"""The check that photos can be opened: before training, not in the middle of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from torch.utils.data import Dataset

from minivit.data.errors import BadDataError
from minivit.data.loading import load_batches
from minivit.data.photos.readers import PhotoRow
from minivit.preprocess import BadImageError, check_image
from minivit.progress import Bar

_TOGETHER = 32  # photos that a process checks before it reports


def readable(
    rows: Sequence[PhotoRow], *, strict: bool, workers: int, bar: Bar | None
) -> tuple[list[PhotoRow], list[tuple[PhotoRow, str]]]:
    """The rows whose photos can be opened, and the others, each with its "path: reason".

    Args:
        rows: Photos, in the order in which they are checked and given back.
        strict: Stop at the first that cannot be opened.
        workers: Number of processes that check; 0: this one.
        bar: Progress bar for the number of photos checked.

    Raises:
        BadDataError: With `strict`, what is wrong with the first that cannot be opened.
    """
    report = bar("checking photos", len(rows)) if bar else None
    indices = range(len(rows))
    chunks = [indices[at : at + _TOGETHER] for at in range(0, len(rows), _TOGETHER)]
    reasons: list[str] = []
    with closing(load_batches(_Reasons(rows), chunks, workers=workers, collate=list)) as checked:
        for chunk in checked:
            reasons += chunk
            if strict and any(chunk):
                raise BadDataError(next(filter(None, chunk)))
            if report:
                report(len(chunk))
    pairs = list(zip(rows, reasons, strict=True))
    return [row for row, reason in pairs if not reason], [pair for pair in pairs if pair[1]]


class _Reasons(Dataset[str]):
    """Item i is the reason why photo i cannot be opened, or an empty text."""

    def __init__(self, rows: Sequence[PhotoRow]) -> None:
        self.paths = [str(row.path) for row in rows]

    def __getitem__(self, index: int) -> str:
        try:
            check_image(self.paths[index])
        except BadImageError as error:
            return str(error)
        return ""
