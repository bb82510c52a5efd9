"""Photos for training: split the same way everywhere, checked, and refused where one must be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minivit.data.errors import BadDataError
from minivit.data.photos.splits import (
    PhotoSet,
    PhotoSplits,
    read_labelled,
    read_photos,
    read_unlabelled,
)


def photo(path: Path, size: tuple[int, int] = (3, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        photo(folder / name)
    return folder


def message(read: Callable[..., object], *args: Any, **options: Any) -> str:
    with pytest.raises(BadDataError) as caught:
        read(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def refused(location: Path, **options: Any) -> str:
    return message(read_photos, location, seed=0, **options)


def pairs(found: PhotoSet | None) -> list[tuple[str, int]]:
    assert found is not None
    assert all(path.is_file() for path in found.paths)
    return list(zip(found.names, found.labels, strict=True))


# ---- splits --------------------------------------------------------------------------------------


def test_train_val_and_test_as_they_are_given(tmp_path: Path) -> None:
    names = ["train/10/1.png", "train/9/1.png", "train/b/1.png", "val/9/2.png", "test/b/7.png"]
    splits = read_photos(photos(tmp_path, *names, "val/10/10.png"), seed=0)
    assert splits.class_names == ("9", "10", "b")
    assert pairs(splits.train) == [("9/1.png", 0), ("10/1.png", 1), ("b/1.png", 2)]
    assert pairs(splits.validation) == [("9/2.png", 0), ("10/10.png", 1)]
    assert pairs(splits.test) == [("b/7.png", 2)]
    assert splits.description == (
        "one folder a class: 6 photos of 3 classes, 3 to train on (train/), "
        "2 to validate on (val/), 1 to test on (test/)"
    )
    assert splits.unreadable == ()


def test_without_val_the_test_photos_validate(tmp_path: Path) -> None:
    splits = read_photos(photos(tmp_path, "train/1_1.png", "train/2_1.png", "Test/1_2.png"), seed=0)
    assert pairs(splits.validation) == [("1_2.png", 0)]
    assert splits.test is None
    assert splits.description.endswith("2 to train on (train/), 1 to validate on (Test/)")


def many_photos(folder: Path) -> Path:
    names = [f"{label}/{number}.png" for label in "ab" for number in range(10)]
    return photos(folder, *names, "b/10.png", "c/0.png", "d/0.png", "d/1.png")


def held(splits: PhotoSplits) -> set[str]:
    assert not set(splits.validation.names) & set(splits.train.names)
    assert len(splits.validation) + len(splits.train) == 24
    return set(splits.validation.names)


def test_without_any_split_a_part_of_each_class_is_held_out(tmp_path: Path) -> None:
    folder = many_photos(tmp_path)
    splits = read_photos(folder, seed=3)
    labels = splits.validation.labels
    assert [labels.count(label) for label in range(4)] == [2, 2, 0, 1]  # c has a single photo
    assert splits.description == (
        "one folder a class: 24 photos of 4 classes, 19 to train on, "
        "5 to validate on (20 % of each class held out, seed 3)"
    )
    assert held(splits) == held(read_photos(folder, seed=3))
    assert any(held(splits) != held(read_photos(folder, seed=seed)) for seed in range(3))
    half = read_photos(folder, seed=3, held_out=0.5)
    assert held(half) > held(splits)  # the first of one order
    assert len(held(half)) == 5 + 6 + 0 + 1
    assert len(held(read_photos(folder, seed=3, held_out=0.999))) == 9 + 10 + 0 + 1
    assert len(held(read_photos(folder, seed=3, held_out=0.001))) == 3


def test_a_limit_keeps_training_photos_of_each_class(tmp_path: Path) -> None:
    folder = many_photos(tmp_path)
    splits, whole = read_photos(folder, seed=3, limit=6), read_photos(folder, seed=3)
    assert [splits.train.labels.count(label) for label in range(4)] == [2, 2, 1, 1]
    assert splits.train == whole.train.first(6)
    assert splits.validation == whole.validation
    assert splits.description == whole.description


def test_what_is_held_out_does_not_depend_on_the_place_or_on_other_photos(tmp_path: Path) -> None:
    before = held(read_photos(many_photos(tmp_path / "one"), seed=0))
    assert held(read_photos(many_photos(tmp_path / "two"), seed=0)) == before
    (tmp_path / "two" / "d" / "1.png").unlink()
    after = set(read_photos(tmp_path / "two", seed=0).validation.names)
    assert {name for name in before if "d/" not in name} == after


@pytest.mark.parametrize("share", [0, 1, -0.1, 20, float("nan")])
def test_a_share_that_is_none(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match=r"held_out is .*, expected a number between 0 and 1"):
        read_photos(many_photos(tmp_path), seed=0, held_out=share)


def pets(folder: Path) -> Path:
    trainval = [f"{name}_{number}" for name in ("Bengal", "beagle") for number in range(1, 6)]
    test = ["Bengal_7", "beagle_7"]
    (folder / "annotations").mkdir(parents=True)
    for listing, names in (("trainval.txt", trainval), ("test.txt", test)):
        photos(folder / "images", *(f"{name}.jpg" for name in names))
        lines = "".join(f"{name} 1 1 1\n" for name in names)
        (folder / "annotations" / listing).write_text(f"#Image CLASS-ID\n{lines}")
    return folder


def test_pets_keep_their_test_list_for_the_end(tmp_path: Path) -> None:
    splits = read_photos(pets(tmp_path), seed=1)
    assert splits.class_names == ("beagle", "Bengal")  # as their numbers
    assert (len(splits.train), len(splits.validation)) == (8, 2)
    assert pairs(splits.test) == [("beagle_7.jpg", 0), ("Bengal_7.jpg", 1)]
    assert splits.description == (
        "Oxford-IIIT Pets as published: 12 photos of 2 classes, 8 to train on (trainval.txt), "
        "2 to validate on (20 % of each class held out, seed 1), 2 to test on (test.txt)"
    )


# ---- what cannot be used -------------------------------------------------------------------------


def test_a_listed_photo_that_is_missing(tmp_path: Path) -> None:
    folder = pets(tmp_path)
    lost = folder / "images" / "Bengal_3.jpg"
    lost.unlink()
    splits = read_photos(folder, seed=1)
    assert len(splits.train) + len(splits.validation) == 9
    assert splits.unreadable == (f"{lost}: no such file; check the path",)
    assert splits.description.endswith("; left out: unreadable photos (1)")
    assert refused(folder, strict=True) == splits.unreadable[0]
    for path in (folder / "images").glob("*_7.jpg"):
        path.unlink()
    assert refused(folder).startswith(f"{folder}: no photo of test.txt can be opened; ")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two classes with photos that open, and one of each kind that does not."""
    folder = photos(tmp_path, *(f"train/{label}/{number}.png" for label in "ab" for number in "12"))
    (folder / "train" / "a" / "empty.jpg").touch()
    (folder / "train" / "b" / "text.png").write_text("no picture")
    whole = photo(folder / "train" / "b" / "cut.jpg", (64, 64)).read_bytes()
    (folder / "train" / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return photos(folder, "val/a/1.png")


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_photos_are_counted_and_named(damaged: Path, workers: int) -> None:
    told: list[tuple[str, int] | int] = []

    def bar(title: str, total: int) -> Callable[[int], object]:
        told.append((title, total))
        return told.append

    splits = read_photos(damaged, seed=0, workers=workers, bar=bar)
    assert told == [("checking photos", 8), 8]
    assert splits.train.names == ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    assert splits.description == (
        "one folder a class: 5 photos of 2 classes, 4 to train on (train/), "
        "1 to validate on (val/); left out: unreadable photos (3)"
    )
    reasons = ("a/empty.jpg: the file is empty", "b/cut.jpg: the pic", "b/text.png: not a picture")
    for text, reason in zip(splits.unreadable, reasons, strict=True):
        assert text.startswith(f"{damaged}/train/{reason}") and "\n" not in text


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_at_the_first(damaged: Path, workers: int) -> None:
    text = refused(damaged, strict=True, workers=workers)
    assert text.startswith(f"{damaged}/train/a/empty.jpg: the file is empty")


def test_a_class_or_split_without_a_readable_photo(damaged: Path) -> None:
    for number in "12":
        (damaged / "train" / "b" / f"{number}.png").write_text("no picture")
    text = refused(damaged)
    assert text.startswith(f"{damaged}: no photo for training of class 'b' can be opened; ")
    assert f"{damaged}/train/b/1.png: not a picture" in text
    photos(damaged, "train/b/1.png")
    (damaged / "val" / "a" / "1.png").write_text("no picture")
    assert refused(damaged).startswith(f"{damaged}: no photo of val/ can be opened; ")


def test_sizes_at_both_ends(tmp_path: Path) -> None:
    folder = photos(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    photo(folder / "train/a/tiny.png", (1, 1))
    photo(folder / "train/a/tiny.jpg", (1, 1))
    Image.new("L", (12_000, 12_000)).save(folder / "train/b/huge.jpg")
    Image.new("1", (12_000, 12_000)).save(folder / "train/b/huge.png")
    splits = read_photos(folder, seed=0)
    assert {"a/tiny.png", "a/tiny.jpg", "b/huge.jpg"} < set(splits.train.names)
    (reason,) = splits.unreadable
    assert reason.startswith(f"{folder}/train/b/huge.png: the picture has 144000000 pixels, Pillow")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/a/1.png", "val/a/1.png"], "only one class, 'a' (one folder a class)"),
        (["a/1.png", "a/2.png"], "only one class, 'a'"),
        (["val/a/1.png", "val/b/1.png"], "no photos to train on, only val/; expected train/"),
        (
            ["train/a/1.png", "train/b/1.png", "val/c/1.png", "val/a/1.png", "val/10/1.png"],
            "val/ has classes that training lacks: '10', 'c'; add photos of them",
        ),
        (["train/1_1.png", "train/2_1.png", "test/3_1.png", "test/1_1.png"], "test/ has classes"),
        (["a/1.png", "b/1.png"], "no photos to validate on; expected two photos of a class"),
    ],
)
def test_classes_that_cannot_be_learnt(tmp_path: Path, names: list[str], words: str) -> None:
    text = refused(photos(tmp_path, *names))
    assert text.startswith(f"{tmp_path}: {words}")


def test_csv_with_duplicates_and_blank_lines(tmp_path: Path) -> None:
    photos(tmp_path, "1.png", "2.png", "3.png")
    rows = "\nfile,label\n1.png,x\n\n2.png,x\n1.png,x\n3.png,y\n\n"
    (tmp_path / "labels.csv").write_text(rows)
    splits = read_photos(tmp_path / "labels.csv", seed=0)
    assert len(splits.train) == 2 and len(splits.validation) == 1
    assert splits.description == (
        "a CSV file: 3 photos of 2 classes, 2 to train on, 1 to validate on "
        "(20 % of each class held out, seed 0); left out: repeated rows (1)"
    )


# ---- to measure a model by -----------------------------------------------------------------------


def test_labels_are_those_of_the_model(tmp_path: Path) -> None:
    folder = photos(tmp_path, "train/a/1.png", "train/b/1.png", "val/b/2.png", "val/b/10.png")
    (folder / "val" / "b" / "bad.png").touch()
    found = read_labelled(folder, ["x", "b", "a"])
    assert pairs(found) == [("b/2.png", 1), ("b/10.png", 1)]
    assert found.description == (
        "one folder a class: 2 photos of 1 class, val/; left out: unreadable photos (1)"
    )
    assert len(found.unreadable) == 1
    assert pairs(read_labelled(folder, ["x", "b", "a"], split="train")) == [
        ("a/1.png", 2),
        ("b/1.png", 1),
    ]
    assert message(read_labelled, folder, ["a", "b"], strict=True) == found.unreadable[0]
    assert "no split test; found train, validation" in message(
        read_labelled, folder, ["a", "b"], split="test"
    )


def test_which_photos_measure_where_nothing_is_said(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    assert read_labelled(folder, ["beagle", "Bengal"]).names == ("beagle_7.jpg", "Bengal_7.jpg")
    three = photos(tmp_path / "three", "train/a/1.png", "val/a/2.png", "test/a/3.png")
    assert read_labelled(three, ["a"]).names == ("a/3.png",)
    (three / "test" / "a" / "3.png").rename(three / "test" / "3.png")
    (three / "test" / "a").rmdir()
    assert read_labelled(three, ["a"]).names == ("a/2.png",)
    whole = read_labelled(photos(tmp_path / "all", "a/1.png", "b/1.png"), ["a", "b"])
    assert whole.description.endswith("2 photos of 2 classes, not split: all of it")


def test_classes_that_the_model_does_not_know(tmp_path: Path) -> None:
    folder = photos(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    text = message(read_labelled, folder, ["a", "1", "2"])
    assert (
        "2 of 3 classes not known to the model: 'b', 'c'; expected names as '1', '2', 'a'" in text
    )
    assert "the model has 2 classes called 'c'" in message(read_labelled, folder, list("abcc"))


# ---- without labels ------------------------------------------------------------------------------


def test_a_flat_folder_of_any_names(tmp_path: Path) -> None:
    photos(tmp_path, "whatever.png", "cat_2.JPG", "IMG 10.webp", "IMG 9.webp", "deeper/x.png")
    (tmp_path / "broken.jpg").touch()
    (tmp_path / "answers.csv").touch()
    found = read_unlabelled(tmp_path)
    assert found.names == ("cat_2.JPG", "IMG 9.webp", "IMG 10.webp", "whatever.png")
    assert found.labels == ()
    assert found.description == (
        "4 photos; left out: files that are no pictures (1), unreadable photos (1)"
    )
    assert found.unreadable[0].startswith(f"{tmp_path / 'broken.jpg'}: the file is empty")
    assert message(read_unlabelled, tmp_path, strict=True) == found.unreadable[0]


def test_each_file_of_a_flat_folder_is_a_photo_or_named_or_plainly_something_else(
    tmp_path: Path,
) -> None:
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "a.png").rename(tmp_path / "a")
    (tmp_path / "b.png").rename(tmp_path / "b.HEIC")
    for name in ("c.HEIC", "d", "e.json", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    found = read_unlabelled(tmp_path)
    assert found.names == ("a", "b.HEIC")
    assert [Path(reason.split(": ")[0]).name for reason in found.unreadable] == ["c.HEIC", "d"]
    assert all("not a picture that Pillow can read here" in why for why in found.unreadable)
    assert found.description == (
        "2 photos; left out: files that are no pictures (1), unreadable photos (2)"
    )


def test_a_flat_folder_without_photos(tmp_path: Path) -> None:
    assert "no photos in this folder" in message(read_unlabelled, tmp_path)
    assert "cannot be read" in message(read_unlabelled, tmp_path / "nothing")
    (tmp_path / "a.jpg").touch()
    assert "none of the photos can be opened; " in message(read_unlabelled, tmp_path)


# ---- labels that a file names --------------------------------------------------------------------


def named_pets(folder: Path) -> Path:
    """Three classes whose names have another order than their numbers."""
    photos(folder / "train", *[f"{label}_{n}.jpg" for label in (2, 9, 10) for n in range(3)])
    photos(folder / "val", "10_7.jpg", "2_7.jpg", "9_7.jpg")
    (folder / "classes.json").write_text('{"2": "Samoyed", "9": "Ragdoll", "10": "Beagle"}')
    return folder


def test_training_photos_have_names_and_keep_their_numbers(tmp_path: Path) -> None:
    named = read_photos(named_pets(tmp_path), seed=0)
    assert named.class_names == ("Samoyed", "Ragdoll", "Beagle")
    assert named.description.endswith("; names of classes: classes.json")
    plain = read_photos(tmp_path, seed=0, labels="folders")
    assert plain.class_names == ("2", "9", "10") and "names of" not in plain.description
    assert (named.train, named.validation) == (plain.train, plain.validation)
    other = tmp_path / "names.txt"
    other.write_text("a\nb\nc")
    assert read_photos(tmp_path, seed=0, labels=str(other)).class_names == ("a", "b", "c")


def test_a_model_is_measured_by_names_or_by_labels(tmp_path: Path) -> None:
    place = named_pets(tmp_path)
    order = ("Beagle", "Samoyed", "Ragdoll")
    expected = [("2_7.jpg", 1), ("9_7.jpg", 2), ("10_7.jpg", 0)]
    found = read_labelled(place, order)
    assert pairs(found) == expected and "names of classes: classes.json" in found.description
    found = read_labelled(place, ("10", "2", "9"))
    assert pairs(found) == expected and "names of classes" not in found.description
    (place / "classes.json").rename(tmp_path / "names.json")
    assert "known to the model: '2', '9', '10'" in message(read_labelled, place, order)
    assert pairs(read_labelled(place, order, labels=str(tmp_path / "names.json"))) == expected
