"""The answers of a classifier: its logits in order, and a CSV file that comes back as written."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch

from minivit.training.classify.predictions import predict, write_predictions
from minivit.training.task import Piece
from tests.training.tasks import CPU, bright_side, small_model

NAMES = ["26_5064.jpg", 'a "quoted", name.png', "two\nlines.png", "one\rline.png", "ünï.jpg", ""]


def test_predictions_are_the_models_own_in_order() -> None:
    model, data, done = small_model(), bright_side(7, seed=7), []
    pieces = [Piece(0, [0, 1, 2]), Piece(0, [3, 4, 5, 6])]
    logits, labels = predict(model.train(), data.load(0, pieces), device=CPU, on_batch=done.append)
    with torch.no_grad():
        expected = model.eval()(model.preprocess.normalize(data.images))
    torch.testing.assert_close(logits, expected)
    assert torch.equal(labels, data.labels) and done == [3, 4]


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
