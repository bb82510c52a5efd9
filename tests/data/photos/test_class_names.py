"""Names of classes from outside: from a file, from folders in torchvision's order, as numbers."""

from pathlib import Path

import pytest

from minivit.data.errors import BadDataError
from minivit.data.photos.class_names import (
    names_of_classes,
    names_of_labels,
    read_class_names,
)


def write(folder: Path, data: str | bytes) -> Path:
    path = folder / "names"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    "data",
    [
        "cat\nhot dog\n7\n",
        "cat\r\n hot dog \r\n7\r\n\r\n",
        "\ufeffcat\nhot dog\n7",
        '["cat", "hot dog", 7]',
        ' {"1": "hot dog", "2": 7, "0": "cat"}',
    ],
)
def test_a_file_of_names(tmp_path: Path, data: str) -> None:
    assert read_class_names(write(tmp_path, data)) == ("cat", "hot dog", "7")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"caf\xe9\n", "line 1 is not UTF-8 text"),
        (b"cat\n\ndog\n", "name 2 is blank; expected a name a line"),
        (b"[]", "no names"),
        (b'["cat", "dog"', "begins as JSON and is none"),
        (b'{"1": "cat", "2": "dog"}', "no name for class 0; expected keys that count from 0"),
        (b'{"0": "cat", "1": ["dog"]}', 'name 1 is ["dog"]; expected a text for each class'),
        (b'["cat", null]', "name 2 is null; expected a text"),
        (b"{}", "no names"),
    ],
)
def test_a_file_that_gives_no_names(tmp_path: Path, data: bytes, words: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(BadDataError) as caught:
        read_class_names(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def folders(place: Path, *names: str) -> Path:
    for name in names:
        (place / name).mkdir(parents=True)
        (place / name / "0.jpg").touch()
    return place


def test_folders_are_numbered_as_torchvision_does(tmp_path: Path) -> None:
    """As text: 10 before 2, capitals before small letters; files are none of them."""
    folders(tmp_path, "2", "10", "a", "B", "1")
    (tmp_path / "0.txt").touch()
    assert read_class_names(tmp_path) == ("1", "10", "2", "B", "a")
    with pytest.raises(BadDataError, match="no class folders in it"):
        read_class_names(tmp_path / "a")
    with pytest.raises(BadDataError, match="no such file or folder; expected names of classes"):
        read_class_names(tmp_path / "c")


@pytest.mark.parametrize("split", ["", "train"])
def test_the_folders_of_the_data_by_a_word(tmp_path: Path, split: str) -> None:
    folders(tmp_path / split, "2", "10", "1")
    if split:
        folders(tmp_path / "val", "2")
    assert names_of_classes("imagefolder", location=tmp_path, num_classes=3) == ("1", "10", "2")
    with pytest.raises(BadDataError, match="3 names of classes for 4 outputs of the weights"):
        names_of_classes("imagefolder", location=tmp_path, num_classes=4)
    flat = folders(tmp_path / "flat", "x") / "x"
    with pytest.raises(BadDataError, match="not one folder a class; give --labels FILE"):
        names_of_classes("imagefolder", location=flat, num_classes=3)


def test_numbers_and_other_sources(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert names_of_classes("numbers", location=nowhere, num_classes=11)[-2:] == ("9", "10")
    file = str(write(tmp_path, "cat\ndog\n"))
    assert names_of_classes(file, location=nowhere, num_classes=2) == ("cat", "dog")
    with pytest.raises(BadDataError, match="2 names of classes for 3 outputs"):
        names_of_classes(file, location=nowhere, num_classes=3)


# ---- what labels of photos are called ------------------------------------------------------------

NUMBERS = ("2", "10", "11")


@pytest.mark.parametrize(
    ("labels", "data"),
    [
        (NUMBERS, '{"11": "c", "2": "a", "10": "b"}'),
        (NUMBERS, '{"10": "b", "11": "c", "2": "a", "3": "of other photos"}'),
        (NUMBERS, "a\nb\nc\n"),
        (NUMBERS, '["a", "b", "c"]'),
        (NUMBERS, '{"0": "a", "1": "b", "2": "c"}'),
        (NUMBERS, "\n".join(["k", "l", "a", *"mnopqrs", "b", "c", "t"])),  # 29 is name 29
        (("1", "2", "3"), '{"1": "a", "2": "b", "3": "c"}'),
        (("0", "1", "2"), '{"0": "a", "1": "b", "2": "c"}'),
        (("000", "001", "002"), '{"000": "a", "001": "b", "002": "c"}'),
        (("n01", "n02", "n03"), '{"n03": "c", "n02": "b", "n01": "a"}'),
        (("n01", "n02", "n03"), "a\nb\nc"),
    ],
)
def test_labels_are_called_what_a_file_beside_the_photos_says(
    tmp_path: Path, labels: tuple[str, ...], data: str
) -> None:
    assert names_of_labels(tmp_path, labels) == (labels, None)
    file = tmp_path / ("classes.json" if data[0] in "[{" else "classes.txt")
    file.write_text(data)
    assert names_of_labels(tmp_path, labels) == (("a", "b", "c"), file)
    assert names_of_labels(tmp_path / "photos.csv", labels) == (("a", "b", "c"), file)
    assert names_of_labels(tmp_path, labels, source="folders") == (labels, None)
    other = tmp_path / "other"
    other.write_text("x\ny\nz")
    assert names_of_labels(tmp_path, labels, source=str(other)) == (("x", "y", "z"), other)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a\nb", "2 names, none for class '2'; expected one for each of '2', '10', '11'"),
        ('{"2": "a", "10": "b"}', "2 names, none for class '11'"),
        ('{"Samoyed": 2, "Ragdoll": 10, "Shiba": 11}', "3 names, none for class '2'"),
        ("a\nb\na", "two classes are called 'a'"),
        ('{"2": 5', "begins as JSON and is none"),
    ],
)
def test_names_that_do_not_fit_the_photos(tmp_path: Path, data: str, words: str) -> None:
    (tmp_path / "classes.txt").write_text(data)
    with pytest.raises(BadDataError) as caught:
        names_of_labels(tmp_path, NUMBERS)
    assert str(caught.value).startswith(f"{tmp_path / 'classes.txt'}: {words}")
    assert "\n" not in str(caught.value)


def test_two_files_of_names_are_refused(tmp_path: Path) -> None:
    for name in ("classes.json", "classes.txt"):
        (tmp_path / name).write_text("a\nb\nc")
    with pytest.raises(BadDataError, match=r"classes\.json and classes\.txt both .*; remove one"):
        names_of_labels(tmp_path, NUMBERS)
    with pytest.raises(BadDataError, match="nowhere: No such file"):
        names_of_labels(tmp_path, NUMBERS, source=str(tmp_path / "nowhere"))
