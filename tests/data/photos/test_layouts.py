"""Labelled photos on a disk: every layout is recognised, and everything wrong with one is named."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from minivit.data.errors import BadDataError
from minivit.data.photos.layouts import Layout, read_layout, recognise
from minivit.data.photos.readers import natural


def touch(folder: Path, *names: str) -> Path:
    """Files that are there; whether they are pictures is not asked here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(layout: Layout) -> dict[str, dict[str, list[str]]]:
    """split -> class -> names."""
    result: dict[str, dict[str, list[str]]] = {}
    for row in layout.rows:
        assert row.path.exists()
        result.setdefault(row.split, {}).setdefault(row.label, []).append(row.name)
    return result


def read(location: Path) -> tuple[Layout, Mapping[str, int]]:
    notes: Counter[str] = Counter()
    return read_layout(location, notes), +notes


def message(location: Path) -> str:
    with pytest.raises(BadDataError) as caught:
        read(location)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- one folder a class --------------------------------------------------------------------------


@pytest.mark.parametrize("val", ["val", "Valid", "VALIDATION"])
def test_class_folders_within_splits(tmp_path: Path, val: str) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog 2/a.png", f"{val}/cat/9.jpg", "test/cat/5.jpg")
    assert recognise(tmp_path) == "classes"
    layout, notes = read(tmp_path)
    assert layout.title == "one folder a class" and not notes
    assert layout.where == {"train": "train/", "validation": f"{val}/", "test": "test/"}
    assert found(layout) == {
        "train": {"cat": ["cat/1.jpg"], "dog 2": ["dog 2/a.png"]},
        "validation": {"cat": ["cat/9.jpg"]},
        "test": {"cat": ["cat/5.jpg"]},
    }


def test_class_folders_without_splits(tmp_path: Path) -> None:
    touch(tmp_path, "10/x.jpg", "2/x.jpg", "2/10.jpg", "2/9.jpg")
    assert recognise(tmp_path) == "classes"
    layout, _ = read(tmp_path)
    assert layout.where == {}
    assert found(layout) == {"train": {"2": ["2/9.jpg", "2/10.jpg", "2/x.jpg"], "10": ["10/x.jpg"]}}


def test_what_is_no_photo_is_not_seen_or_counted(tmp_path: Path) -> None:
    endings = ["JPG", "jpeg", "Png", "webp", "bmp", "TIF", "gif", "jfif"]
    pictures = [f"cat/{number}.{ending}" for number, ending in enumerate(endings)]
    hidden = ["cat/.DS_Store", "cat/._0.JPG", "__MACOSX/cat/0.jpg", ".git/x.jpg", "cat/Thumbs.db"]
    hidden += [".DS_Store", "desktop.ini", "cat/__MACOSX/x.jpg"]
    touch(tmp_path, *pictures, *hidden, "dog/1.jpg", "cat/notes.txt", "cat/mat.mat", "README.md")
    layout, notes = read(tmp_path)
    assert found(layout) == {"train": {"cat": pictures, "dog": ["dog/1.jpg"]}}
    assert notes == {"files that are no pictures": 3}
    (tmp_path / "dog" / "folder.jpg").mkdir()
    assert len(read(tmp_path)[0].rows) == len(layout.rows)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_links_are_followed(tmp_path: Path) -> None:
    store = touch(tmp_path / "store", "cats/1.jpg", "dog.jpg")
    data = touch(tmp_path / "data", "train/dog/2.jpg")
    (data / "train" / "cat").symlink_to(store / "cats", target_is_directory=True)
    (data / "train" / "dog" / "1.jpg").symlink_to(store / "dog.jpg")
    (data / "train" / "loop").symlink_to(data / "train" / "dog", target_is_directory=True)
    (data / "train" / "dog" / "train").symlink_to(data / "train", target_is_directory=True)
    assert found(read(data)[0])["train"] == {
        "cat": ["cat/1.jpg"],
        "dog": ["dog/1.jpg", "dog/2.jpg"],
        "loop": ["loop/1.jpg", "loop/2.jpg"],
    }
    (data / "train" / "dog" / "3.jpg").symlink_to(store / "nowhere.jpg")
    rows = read(data)[0].rows
    assert [row.name for row in rows if not row.path.exists()] == ["dog/3.jpg", "loop/3.jpg"]


def test_names_of_any_script_stay_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "train/柴犬/写真 1.jpg", "train/Käfer & Co/été.jpg", "train/a'b;c,d/x.jpg")
    layout, _ = read(tmp_path)
    assert {row.label for row in layout.rows} == {"柴犬", "Käfer & Co", "a'b;c,d"}


def test_a_test_folder_without_classes_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "test/1.jpg", "test/2.jpg")
    layout, notes = read(tmp_path)
    assert set(layout.where) == {"train", "validation"}
    assert notes == {"photos without a class in test/": 2}


def test_photos_beside_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/stray.jpg")
    assert read(tmp_path)[1] == {"photos outside of the class folders": 1}
    touch(tmp_path / "other", "a/1.jpg", "b/1.jpg", "stray.jpg")
    text = message(tmp_path / "other")
    assert "photos in the folder itself (stray.jpg) and in folders in it (a/)" in text


def test_photos_without_an_ending_count_and_what_cannot_be_opened_is_named_later(
    tmp_path: Path,
) -> None:
    """A row for all that may be a photo; text beside the class folders is no photo of no class."""
    touch(tmp_path, "cat/1.jpg", "cat/IMG.HEIC", "cat/notes.txt", "dog/1.jpg", "LICENSE", "x.csv")
    Image.new("RGB", (3, 2)).save(tmp_path / "dog" / "photo", "JPEG")
    assert recognise(tmp_path) == "classes"
    layout, notes = read(tmp_path)
    assert found(layout)["train"] == {
        "cat": ["cat/1.jpg", "cat/IMG.HEIC"],
        "dog": ["dog/1.jpg", "dog/photo"],
    }
    assert notes == {"files that are no pictures": 3}
    shutil.copy(tmp_path / "dog" / "photo", tmp_path / "stray")
    assert "photos in the folder itself (stray) and in folders" in message(tmp_path)


@pytest.mark.parametrize("place", ["", "train"])
def test_a_name_with_a_class_counts_without_a_known_ending(tmp_path: Path, place: str) -> None:
    folder = touch(tmp_path / place, "1_1.jpg", "1_2.jpg", "2_1.jpg", "2_2.HEIC", "README", "a.txt")
    Image.new("RGB", (3, 2)).save(folder / "2_3", "JPEG")
    layout, notes = read(tmp_path)
    assert {name: sorted(names) for name, names in found(layout)["train"].items()} == {
        "1": ["1_1.jpg", "1_2.jpg"],
        "2": ["2_1.jpg", "2_2.HEIC", "2_3"],
    }
    assert notes == {"files that are no pictures": 2}
    shutil.copy(folder / "2_3", folder / "photo")
    assert "photo" in message(tmp_path)


@pytest.mark.parametrize("place", ["cat", "train/cat", "val/cat"])
def test_an_empty_class_folder_is_named(tmp_path: Path, place: str) -> None:
    touch(tmp_path, *([] if place == "cat" else ["train/dog/1.jpg", "val/dog/1.jpg"]))
    touch(tmp_path, *(["dog/1.jpg"] if place == "cat" else []))
    touch(tmp_path / place, ".hidden.jpg", "deeper/1.jpg")
    text = message(tmp_path)
    assert text.startswith(f"{tmp_path / place}: the folder of this class has no photos; ")


def test_only_empty_class_folders(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert message(tmp_path).startswith(f"{tmp_path / 'train' / 'cat'}: ")


def test_folders_that_may_be_read_in_two_ways(tmp_path: Path) -> None:
    touch(tmp_path / "1", "train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    assert "val/ and valid/ both stand for validation" in message(tmp_path / "1")
    touch(tmp_path / "2", "train/1.jpg", "bus/1.jpg")  # a class of trains?
    assert "train/ stands beside bus/, which has photos too" in message(tmp_path / "2")


# ---- names that start with the class -------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["26_5064.jpg", "0_1.jpg", "26_b_2.PNG", "1_x.jpeg"], ["0", "1", "26", "26"]),
        (["american_bulldog_12.jpg", "Abyssinian_1.jpg"], ["Abyssinian", "american_bulldog"]),
        (["cat_tom.jpg", "dog_rex.jpg", "cat_7.jpg"], ["cat", "cat", "dog"]),
    ],
)
def test_the_class_stands_in_the_name(tmp_path: Path, names: list[str], classes: list[str]) -> None:
    touch(tmp_path / "train", *names)
    touch(tmp_path / "val", names[0])
    assert recognise(tmp_path) == "prefixed"
    layout, _ = read(tmp_path)
    assert layout.title == "names that start with the class"
    assert layout.where == {"train": "train/", "validation": "val/"}
    assert sorted((r.label for r in layout.rows if r.split == "train"), key=natural) == classes
    assert [row.name for row in layout.rows if row.split == "validation"] == [names[0]]


def test_a_name_without_a_class_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/1_2.jpg", "train/2_2.jpg", "val/1_3.jpg", "val/whatever.jpg")
    text = message(tmp_path)
    assert text.startswith(f"{tmp_path / 'val' / 'whatever.jpg'}: 1 of 4 names hold no class; ")
    assert "26_5064.jpg" in text
    (tmp_path / "val" / "whatever.jpg").unlink()
    (tmp_path / "val" / "1_3.jpg").unlink()
    assert message(tmp_path).startswith(f"{tmp_path / 'val'}: no photos in it; ")


def test_a_test_folder_of_any_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/1_2.jpg", "train/2_2.jpg", "test/1_3.jpg", "test/whatever.jpg")
    layout, notes = read(tmp_path)
    assert layout.where == {"train": "train/"}
    assert notes == {"photos without a class in test/": 2}
    (tmp_path / "test" / "whatever.jpg").unlink()
    assert found(read(tmp_path)[0])["test"] == {"1": ["1_3.jpg"]}
    touch(tmp_path / "words", "train/cat_2.jpg", "train/dog_2.jpg", "test/IMG_1.jpg")
    layout, notes = read(tmp_path / "words")  # IMG is no class of the training photos
    assert layout.where == {"train": "train/"}
    assert notes == {"photos without a class in test/": 1}


def test_photos_side_by_side(tmp_path: Path) -> None:
    touch(tmp_path, "1_1.jpg", "1_2.jpg", "2_1.jpg", "2_2.jpg")
    assert recognise(tmp_path) == "flat"
    layout, _ = read(tmp_path)
    assert layout.where == {}
    assert found(layout) == {"train": {"1": ["1_1.jpg", "1_2.jpg"], "2": ["2_1.jpg", "2_2.jpg"]}}
    (tmp_path / "2_2.jpg").unlink()  # IMG_1.jpg, IMG_2.jpg, DSC_1.jpg are no classes
    assert f"{tmp_path}: 3 photos without a class, the first is 1_1.jpg; expected " in message(
        tmp_path
    )


# ---- Oxford-IIIT Pets ----------------------------------------------------------------------------

TRAINVAL = """\
#Image CLASS-ID SPECIES BREED ID
#ID: 1:37 Class ids
Abyssinian_100 1 1 1
american_bulldog_2 2 2 1

Abyssinian_20 1 1 1
"""


def pets(folder: Path, trainval: str | None = TRAINVAL, test: str | None = None) -> Path:
    """The data set as published, mats and all."""
    names = ["Abyssinian_100", "Abyssinian_20", "Abyssinian_3", "american_bulldog_2"]
    touch(folder / "images", *(f"{name}.jpg" for name in names), "Abyssinian_100.mat")
    touch(folder / "annotations", "list.txt", "trimaps/Abyssinian_100.png", "xmls/x.xml")
    for name, text in (("trainval.txt", trainval), ("test.txt", test)):
        if text is not None:
            (folder / "annotations" / name).write_text(text)
    return folder


def test_pets_as_published(tmp_path: Path) -> None:
    pets(tmp_path, test="Abyssinian_3 1 1 1\r\n")
    assert recognise(tmp_path) == "pets"
    layout, notes = read(tmp_path)
    assert layout.title == "Oxford-IIIT Pets as published" and not notes
    assert layout.where == {"train": "trainval.txt", "test": "test.txt"}
    assert found(layout) == {
        "train": {
            "Abyssinian": ["Abyssinian_100.jpg", "Abyssinian_20.jpg"],
            "american_bulldog": ["american_bulldog_2.jpg"],
        },
        "test": {"Abyssinian": ["Abyssinian_3.jpg"]},
    }
    assert all(row.path.parent == tmp_path / "images" for row in layout.rows)


def test_one_list_of_pets_is_enough(tmp_path: Path) -> None:
    assert read(pets(tmp_path / "1"))[0].where == {"train": "trainval.txt"}
    alone = pets(tmp_path / "2", None, "Abyssinian_3 1 1 1\n")
    assert read(alone)[0].where == {"test": "test.txt"}


def test_pets_with_the_whole_list_alone(tmp_path: Path) -> None:
    """All its photos, not split; beside one of the other lists it is not read."""
    place = pets(tmp_path, None)
    text = (
        "#Image CLASS-ID SPECIES BREED ID\n#...\nAbyssinian_100 1 1 1\namerican_bulldog_2 2 2 1\n"
    )
    (place / "annotations" / "list.txt").write_text(text)
    assert recognise(place) == "pets"
    layout, notes = read(place)
    assert layout.title == "Oxford-IIIT Pets, list.txt alone" and not notes
    assert layout.where == {}
    assert found(layout) == {
        "train": {
            "Abyssinian": ["Abyssinian_100.jpg"],
            "american_bulldog": ["american_bulldog_2.jpg"],
        }
    }
    pets(tmp_path, test="Abyssinian_3 1 1 1\n")
    (place / "annotations" / "list.txt").write_text(text)
    assert set(read(place)[0].where) == {"train", "test"}


def test_pets_without_any_list_are_no_class_of_images(tmp_path: Path) -> None:
    place = pets(tmp_path, None)
    (place / "annotations" / "list.txt").unlink()
    text = message(place)
    assert "as of Oxford-IIIT Pets, without a list of the photos" in text
    assert "expected annotations/trainval.txt and test.txt, or list.txt" in text


@pytest.mark.parametrize(
    ("trainval", "test", "words"),
    [
        ("Abyssinian_1 1 1 1\nsphynx 2 2 1\n", None, "trainval.txt: line 2 is 'sphynx 2 2 1'; "),
        ("Abyssinian_1 1 1 1\nAbyssinian_2 cat\n", None, "line 2 is 'Abyssinian_2 cat'; "),
        ("Abyssinian_1.jpg 1 1 1\n", None, "line 1 is 'Abyssinian_1.jpg 1 1 1'; "),
        ("../x_1 1 1 1\n", None, "names the picture '../x_1.jpg'"),
        ("a_1 1 1 1\n", "\n# a comment\na_1 1 1 1\n", "test.txt line 3 gives 'a_1.jpg' 'a' (test)"),
        ("# nothing\n", None, "no photos are listed"),
        ("", None, "trainval.txt: the file is empty"),
    ],
)
def test_a_list_of_pets_that_is_wrong(
    tmp_path: Path, trainval: str, test: str | None, words: str
) -> None:
    assert words in message(pets(tmp_path, trainval, test))


def test_a_pet_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    layout, notes = read(pets(tmp_path, TRAINVAL + "Abyssinian_20 1 1 1\n"))
    assert len(layout.rows) == 3
    assert notes == {"repeated rows": 1}


# ---- CSV -----------------------------------------------------------------------------------------


def table(folder: Path, text: str, *names: str, encoding: str = "utf-8") -> Path:
    touch(folder, *names)
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_csv_file_of_files_and_labels(tmp_path: Path) -> None:
    text = '\n\nfile,label\nb/2.jpg, 10 \n\n"x, y.jpg","2"\n,\nb/./2.jpg,10\n'
    path = table(tmp_path, text, "b/2.jpg", "x, y.jpg", "unlisted.jpg")
    assert recognise(path) == "csv"
    layout, notes = read(path)
    assert layout.where == {}
    assert found(layout) == {"train": {"10": ["b/2.jpg"], "2": ["x, y.jpg"]}}
    assert notes == {"repeated rows": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_in_any_order_and_a_split(tmp_path: Path, encoding: str) -> None:
    text = "Label,note,FileName,Split\r\né,,1.jpg,train\r\né,x,2.jpg,Val\r\nb,,3.jpg,test\r\n"
    path = table(tmp_path, text, "1.jpg", "2.jpg", "3.jpg", encoding=encoding)
    layout, _ = read(path)
    assert list(layout.where) == ["train", "validation", "test"]
    assert found(layout) == {
        "train": {"é": ["1.jpg"]},
        "validation": {"é": ["2.jpg"]},
        "test": {"b": ["3.jpg"]},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("file,label\n\n", "no photos are listed"),
        ("a.jpg,cat\n", "the first line is 'a.jpg,cat'; expected the header file,label"),
        ("file;label\na.jpg;cat\n", "the first line is 'file;label'"),
        ("file,label,label\n", "the first line is 'file,label,label'"),
        ("file,label\na.jpg\n", "line 2 is 'a.jpg'; expected 2 cells, file, label filled"),
        ("file,label\na.jpg,\n", "line 2 is 'a.jpg,'"),
        ("file,label\n\na.jpg,cat,1\n", "line 3 is 'a.jpg,cat,1'"),
        ("file,label\na.jpg,cat\n./a.jpg,dog\n", "line 3 gives './a.jpg' 'dog' (train), line 2"),
        ("file,label,split\na.jpg,c,train\na.jpg,c,val\n", "(validation), line 2 gave 'c' (train)"),
        ("file,label,split\na.jpg,c,later\n", "line 2 has the split 'later'; expected train"),
        ("file,label\n../a.jpg,cat\n", "line 2 names the picture '../a.jpg'"),
        ("file,label\n/etc/a.jpg,cat\n", "line 2 names the picture '/etc/a.jpg'"),
        ("file,label\nC:\\a.jpg,cat\n", "names the picture"),
        ('file,label\n"a.jpg,cat\n', "line 2: broken CSV"),
    ],
)
def test_a_csv_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = table(tmp_path, text, "a.jpg")
    found = message(path)
    assert found.startswith(f"{path}: ") and words in found


def test_a_csv_file_in_another_encoding(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\na.jpg,é\n", "a.jpg", encoding="latin-1")
    assert "line 2 is not UTF-8 text" in message(path)


# ---- neither -------------------------------------------------------------------------------------


def test_places_without_photos(tmp_path: Path) -> None:
    touch(tmp_path, "empty/.x.jpg", "notes.txt", "idx/t10k-labels-idx1-ubyte.gz")
    assert "no such file or folder" in message(tmp_path / "nothing")
    assert "a file that is no CSV file" in message(tmp_path / "notes.txt")
    text = message(tmp_path / "empty")
    assert "no photos that could be recognised; expected train/CLASS/ and val/CLASS/" in text
    touch(tmp_path / "heic", "IMG_1.HEIC")
    text = message(tmp_path / "heic")
    assert "(IMG_1.HEIC is no picture that can be opened here); expected train/CLASS/" in text
    assert recognise(tmp_path / "idx") == "idx"
    assert "IDX files" in message(tmp_path / "idx")


@pytest.mark.skipif(os.name != "posix", reason="permissions are a matter of Unix")
def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    assert message(tmp_path).startswith(f"{tmp_path}: the folder cannot be read (Permission denied")
