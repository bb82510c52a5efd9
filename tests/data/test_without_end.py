"""What has no end is not waited for: pipes and devices in the place of files, for every reader."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import minivit
from minivit.commands.score_words import read_scores
from minivit.data.captions.readers import coco_rows, flickr_rows
from minivit.data.captions.readers import csv_rows as caption_rows
from minivit.data.errors import BadDataError
from minivit.data.photos.class_names import read_class_names
from minivit.data.photos.folders import files_in
from minivit.data.photos.idx import read_idx
from minivit.data.photos.masks import read_mask
from minivit.data.photos.readers import csv_rows
from minivit.data.photos.splits import read_labelled, read_photos
from minivit.preprocess import check_image, is_picture, open_image
from minivit.tokenizer import WordPiece
from minivit.training.recipe_toml import read_recipe
from weights_convert import convert


@contextlib.contextmanager
def at_once(seconds: int = 10) -> Iterator[None]:
    """Fails instead of waiting for ever."""

    def late(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


READERS: dict[str, Callable[[Path], Any]] = {
    "weights": minivit.load_model,
    "a picture": open_image,
    "a picture that is checked": check_image,
    "a mask": read_mask,
    "photos in a CSV file": lambda path: csv_rows(path, Counter()),
    "captions in a CSV file": lambda path: list(caption_rows(path)),
    "captions of COCO": lambda path: list(coco_rows(path, Counter())),
    "captions of Flickr8k": lambda path: list(flickr_rows(path, None, Counter())),
    "names of classes": read_class_names,
    "a vocabulary": WordPiece.from_file,
    "a recipe": lambda path: read_recipe(str(path)),
    "a table of scores": read_scores,
    "a checkpoint to convert": convert,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_and_a_device_are_refused_by_name(tmp_path: Path, reader: str) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe, not a file"), (Path("/dev/zero"), "a device")):
        with at_once(), pytest.raises(ValueError) as error:
            READERS[reader](path)
        message = str(error.value)
        assert str(path) in message and kind in message and "\n" not in message


def test_a_pipe_among_photos_is_one_that_cannot_be_used(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(2):
            Image.new("RGB", (9, 6)).save(tmp_path / f"{label}{number}.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    listing = tmp_path / "list.csv"
    rows = [f"{label}{number}.png,{label}" for label in ("cat", "dog") for number in range(2)]
    listing.write_text("\n".join(["file,label", "pipe.jpg,cat", *rows]))
    with at_once():
        assert not is_picture(tmp_path / "pipe.jpg")
        assert len(files_in(tmp_path).pictures) == 4
        photos = read_labelled(listing, ("cat", "dog"))
        splits = read_photos(listing, seed=0)
    assert len(photos) == 4
    for unreadable in (photos.unreadable, splits.unreadable):
        (line,) = unreadable
        assert "pipe.jpg: a pipe, not a file" in line


def idx_folder(folder: Path, train_images: bytes, labels: bytes = bytes([0, 1] * 20)) -> Path:
    for part in ("train", "t10k"):
        head = struct.pack(">II", 0x801, len(labels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels)
    pictures = struct.pack(">IIII", 0x803, len(labels), 4, 4) + bytes(16 * len(labels))
    (folder / "t10k-images-idx3-ubyte").write_bytes(pictures)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(train_images)
    return folder


@pytest.mark.parametrize("header", [struct.pack(">IIII", 0x803, 40, 4, 4), b"\0" * 16])
def test_no_more_of_a_packed_file_is_unpacked_than_its_header_says(
    tmp_path: Path, header: bytes
) -> None:
    size = 64 << 20
    folder = idx_folder(tmp_path, gzip.compress(header + bytes(size), 1))
    tracemalloc.start()
    with pytest.raises(BadDataError, match=r"more values, its header|begins with"):
        read_idx(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 16


def test_a_header_that_says_more_than_there_is_takes_no_memory_for_it(tmp_path: Path) -> None:
    header = struct.pack(">IIII", 0x803, 2**31, 2**20, 2**20)
    folder = idx_folder(tmp_path, gzip.compress(header + bytes(100)))
    with at_once(), pytest.raises(BadDataError, match="100 values, its header says"):
        read_idx(folder)


def test_pictures_of_one_class_are_refused_before_training(tmp_path: Path) -> None:
    pictures = struct.pack(">IIII", 0x803, 40, 4, 4) + bytes(640)
    folder = idx_folder(tmp_path, gzip.compress(pictures), bytes(40))
    with pytest.raises(BadDataError, match="only one class, 0"):
        read_photos(folder, seed=0)
