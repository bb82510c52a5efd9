"""Readers of photos: natural order, and errors of their own kind."""

from collections import Counter
from pathlib import Path

import pytest

from minivit.data.errors import BadDataError
from minivit.data.photos.readers import csv_rows, natural, pets_rows


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["b", "a10", "a9", "A1", "a"], ["a", "A1", "a9", "a10", "b"]),
        (["x2y10", "x2y9", "x02y1", "x10", "2"], ["2", "x02y1", "x2y9", "x2y10", "x10"]),
        (["007", "7", "07"], ["007", "07", "7"]),  # one number, and still always the same order
        (["Ärger", "Zoo", "äpfel", "犬"], ["Zoo", "äpfel", "Ärger", "犬"]),
        (["²", "٣", "1"], ["1", "²", "٣"]),  # digits of other kinds are letters here
    ],
)
def test_numbers_in_names_are_sorted_as_numbers(names: list[str], expected: list[str]) -> None:
    assert sorted(names, key=natural) == expected
    backwards = names[::-1]
    assert sorted(backwards, key=natural) == expected


@pytest.mark.parametrize(
    "data", [b"", b"file,label\n\xe9.jpg,x\n", b"file,label\n../a.jpg,x\n", b"file\na.jpg\n"]
)
def test_bad_lists_of_photos_are_no_matter_of_captions(tmp_path: Path, data: bytes) -> None:
    """Readers of captions use the same functions for text and names, with an error of theirs."""
    (tmp_path / "annotations").mkdir()
    for path in (tmp_path / "list.csv", tmp_path / "annotations" / "test.txt"):
        path.write_bytes(data)
    for read, place in ((csv_rows, tmp_path / "list.csv"), (pets_rows, tmp_path)):
        with pytest.raises(BadDataError) as caught:
            read(place, Counter())
        assert type(caught.value) is BadDataError
