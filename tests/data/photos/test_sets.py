"""Sets of photos: how many, in which order, and the first few of them."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from minivit.data.photos.readers import PhotoRow
from minivit.data.photos.sets import PhotoSet, in_turn, left_out, listed, many, photo_set


def files(labels: list[int]) -> PhotoSet:
    """Photos a.png, b.png, … with these labels; [] stands for three without."""
    names = tuple("abcdefgh"[: len(labels) or 3])
    return PhotoSet(tuple(Path(f"{name}.png") for name in names), tuple(labels), names)


def in_memory(number: int) -> PhotoSet:
    pixels = torch.arange(number * 6, dtype=torch.uint8).reshape(number, 3, 2)
    names = tuple(str(7 * index) for index in range(number))
    return PhotoSet((), tuple(index % 2 for index in range(number)), names, "grey", pixels=pixels)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_the_first_files_are_of_each_class_in_turn_and_in_order(limit: int) -> None:
    photos = files([0, 0, 0, 1, 1, 2])
    chosen = sorted("adfbe"[:limit])  # the first of each class, then the second of each
    label = dict(zip("abcdef", photos.labels, strict=True))
    assert photos.first(limit).names == tuple(chosen)
    assert photos.first(limit).paths == tuple(Path(f"{name}.png") for name in chosen)
    assert photos.first(limit).labels == tuple(label[name] for name in chosen)


@pytest.mark.parametrize("limit", [0, 6, 7])
def test_all_photos_are_the_set_itself(limit: int) -> None:
    photos = files([0, 0, 0, 1, 1, 2])
    assert photos.first(limit) is photos


def test_the_first_photos_without_labels() -> None:
    assert files([]).first(2).names == ("a", "b")
    assert files([]).first(2).labels == ()


def test_the_first_pictures_in_memory_are_the_first() -> None:
    photos = in_memory(5).first(3)
    assert len(photos) == 3
    assert photos.pixels is not None
    assert photos.pixels[:, 0, 0].tolist() == [0, 6, 12]
    assert (photos.paths, photos.labels, photos.names) == ((), (0, 1, 0), ("0", "7", "14"))
    assert photos.description == "grey"


def test_sets_of_pictures_in_memory_can_be_compared() -> None:
    assert in_memory(4) == in_memory(4) != in_memory(3)


def test_each_class_in_turn() -> None:
    assert in_turn([2, 2, 0, 2, 0]) == [2, 0, 4, 1, 3]
    assert in_turn([]) == []


def test_rows_are_sorted_by_name_and_labelled_by_class() -> None:
    rows = [PhotoRow(Path(f"p/{name}"), name, name[0]) for name in ("b10", "b9", "a1")]
    photos = photo_set(rows, {"b": 0, "a": 1}, "three", ["x: broken"])
    assert photos.names == ("a1", "b9", "b10")
    assert photos.labels == (1, 0, 0)
    assert photos.paths == (Path("p/a1"), Path("p/b9"), Path("p/b10"))
    assert (photos.description, photos.unreadable) == ("three", ("x: broken",))
    assert photo_set(rows, None).labels == ()


def test_words_of_descriptions() -> None:
    assert [many(1, "photo"), many(2000, "photo"), many(3, "class")] == [
        "1 photo",
        "2,000 photos",
        "3 classes",
    ]
    assert listed(["10", "9"]) == "'9', '10'"
    assert listed("fedcba") == "'a', 'b', 'c', 'd', 'e' …"
    assert left_out(Counter(), 0) == ""
    notes = Counter({"repeated rows": 1200, "files that are no pictures": 0})
    assert left_out(notes, 3) == "; left out: repeated rows (1,200), unreadable photos (3)"
