"""Names of classes from outside: from a file, from folders in torchvision's order, as numbers."""

from pathlib import Path

import pytest

from minivit.data.errors import BadDataError
from minivit.data.photos.class_names import names_of_classes, read_class_names


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
