"""The CSV of answers: what is written is what a reader reads."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from minivit.training.classify.predictions import write_predictions

NAMES = ["26_5064.jpg", 'a "quoted", name.png', "two\nlines.png", "one\rline.png", "ünï.jpg", ""]


def test_every_name_and_label_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.csv"
    labels = [f"class, {index}" for index in range(len(NAMES))]
    write_predictions(path, NAMES, labels)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["filename", "label"], *map(list, zip(NAMES, labels, strict=True))]
    assert path.read_bytes().startswith(b'filename,label\n26_5064.jpg,"class, 0"\n')


def test_a_name_that_is_no_unicode_keeps_its_bytes(tmp_path: Path) -> None:
    write_predictions(tmp_path / "out.csv", [os.fsdecode(b"caf\xe9.jpg")], ["x"])
    assert (tmp_path / "out.csv").read_bytes() == b"filename,label\ncaf\xe9.jpg,x\n"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_predictions(path, ["a"], ["b"])
    with pytest.raises(ValueError, match="2 names and 1 labels"):
        write_predictions(path, ["a", "c"], ["b"])
    with pytest.raises(UnicodeEncodeError):  # while it is written
        write_predictions(path, ["c", "\ud800"], ["d", "e"])
    assert path.read_text() == "filename,label\na,b\n"
    assert list(tmp_path.iterdir()) == [path]
