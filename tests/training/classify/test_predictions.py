"""The answers of a classifier: its logits in order, and a CSV file that comes back as written."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from minivit.commands.terminal import one_line
from minivit.data.photos.sets import PhotoSet
from minivit.training.classify.data import PhotoData, plain_photos
from minivit.training.classify.predictions import growing_predictions, predict, write_predictions
from minivit.training.classify.scores import class_scores, most_confused
from minivit.training.task import Piece, consecutive
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


def test_answers_grow_and_what_there_is_stays_when_the_rest_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with growing_predictions(path) as write:
        write(["a", "b\r"], ["x", "y"])
        write(["c"], ["z"])
    assert path.read_bytes() == b'filename,label\na,x\n"b\r","y"\nc,z\n'
    with pytest.raises(OSError, match="gone") as error, growing_predictions(path) as write:
        write(["d"], ["x"])
        raise OSError("gone")
    kept = tmp_path / "out.partial.csv"
    assert kept.read_text() == "filename,label\nd,x\n" and path.read_text().endswith("c,z\n")
    assert one_line(error.value) == f"error: gone; the first 1 answers are in {kept}"


@pytest.mark.parametrize("count", [None, 2, 7])
def test_any_number_of_pictures_has_its_logits(count: int | None) -> None:
    """Where the number is not known beforehand, or a wrong one was given."""
    model, data, given = small_model(), bright_side(7, seed=7), []
    pieces = [Piece(0, [0]), Piece(0, [1, 2, 3]), Piece(0, [4, 5, 6])]
    how = {"device": CPU, "count": count, "on_logits": lambda each, _: given.append(each.clone())}
    logits, labels = predict(model, data.load(0, pieces), **how)
    with torch.no_grad():
        expected = model.eval()(model.preprocess.normalize(data.images))
    torch.testing.assert_close(logits, expected)
    assert torch.equal(labels, data.labels) and torch.equal(torch.cat(given), logits)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_no_batch_of_a_worker_leaves_a_descriptor(tmp_path: Path) -> None:
    """Shared memory is one each: 1,024 batches were all that a process could have."""
    image = tmp_path / "0.png"
    Image.new("RGB", (8, 8)).save(image)
    names = tuple(str(number) for number in range(60))
    photos = PhotoSet(paths=(image,) * 60, labels=(0,) * 60, names=names)
    model = small_model()
    data = PhotoData(plain_photos(photos, model.preprocess), 1)
    descriptors: list[int] = []
    predict(
        model,
        data.load(0, consecutive(range(60), 1)),
        device=CPU,
        on_batch=lambda _: descriptors.append(len(os.listdir("/proc/self/fd"))),
    )
    assert max(descriptors[30:]) <= max(descriptors[:30]) + 2


def test_confusions_of_very_many_classes_take_no_table() -> None:
    logits = torch.zeros(3, 100_000)
    logits[[0, 1, 2], [7, 99_999, 7]] = 1
    scores = class_scores(logits, torch.tensor([7, 0, 9]))
    assert scores.top1 == pytest.approx(1 / 3) and int(scores.count.sum()) == 3
    names = [str(number) for number in range(100_000)]
    assert [pair[:2] for pair in most_confused(scores, names, 5)] == [("0", "99999"), ("9", "7")]
