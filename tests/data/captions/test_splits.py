"""Caption files: each layout, each way to be broken, and nothing outside of the folder."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minivit.data.captions.splits import BadCaptionsError, CaptionSet, hold_out, read_captions

Content = dict[str, Any]


def touch(folder: Path, *names: str) -> None:
    """Files that are there; whether they are pictures is not asked here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(captions: CaptionSet) -> dict[str, tuple[str, ...]]:
    return {picture.path.name: picture.captions for picture in captions.pictures}


def message(*args: Any, **options: Any) -> str:
    with pytest.raises(BadCaptionsError) as caught:
        read_captions(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- COCO -------------------------------------------------------------------------------------


def coco_content() -> Content:
    return {
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "07.jpg"}, {"id": 9, "file_name": "09.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "A red bus , parked ."},
            {"image_id": 7, "id": 2, "caption": " Two\n dogs\trun "},
            {"image_id": 9, "id": 3, "caption": "A bus."},
        ],
    }


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO folder in which both pictures are there."""

    def write(change: Callable[[Content], object] = lambda content: None, split="train") -> Path:
        content = coco_content()
        change(content)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        touch(tmp_path / f"{split}2017", "07.jpg", "09.jpg")
        return tmp_path

    return write


def test_coco_gives_each_picture_with_its_captions(coco) -> None:
    captions = read_captions(coco())
    assert found(captions) == {
        "09.jpg": ("A red bus , parked .", "A bus."),
        "07.jpg": ("Two dogs run",),
    }
    assert all(picture.path.parent.name == "train2017" for picture in captions.pictures)
    assert captions.description == "COCO, captions_train2017.json: 2 pictures, 3 captions"


def test_coco_splits_have_their_own_file_and_folder(coco) -> None:
    folder = coco()
    text = message(folder, "val")
    assert text.startswith(f"{folder}: ")
    assert "captions_val2017.json" in text
    assert "hold a part of it out" in text
    coco(lambda content: content["annotations"].pop(), split="val")
    captions = read_captions(folder, "val")
    assert [picture.path.parent.name for picture in captions.pictures] == ["val2017"] * 2
    (folder / "annotations" / "captions_train2017.json").unlink()
    assert "read split val" in message(folder, "train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("images"), ['no list "images"']),
        (lambda c: c.update(annotations={}), ['no list "annotations"']),
        (lambda c: c["images"].append(5), ["images[2]", '"id"']),
        (lambda c: c["images"][1].pop("file_name"), ["images[1]", '"file_name"']),
        (lambda c: c["images"][1].update(id=[1]), ["images[1]", '"id"']),
        (lambda c: c["images"][1].update(id=7), ["images[1]", "id 7", "'09.jpg'"]),
        (lambda c: c["annotations"][2].pop("image_id"), ["annotations[2]", '"image_id"']),
        (lambda c: c["annotations"][2].update(caption=None), ["annotations[2]", '"caption"']),
        (lambda c: c["annotations"][1].update(image_id=8), ["annotations[1]", "image_id 8"]),
        (lambda c: c.update(annotations=[]), ["no captions"]),
        (lambda c: [a.update(caption=" ") for a in c["annotations"]], ["no captions", "3 blank"]),
    ],
)
def test_coco_of_another_structure_is_refused_by_entry(coco, change, words) -> None:
    folder = coco(change)
    text = message(folder)
    assert text.startswith(f"{folder / 'annotations' / 'captions_train2017.json'}: ")
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"images": [],\n "annotations": [}', ["line 2, column 18", "broken JSON"]),
        (b"[1, 2]", ['no list "images"']),
        (b"[" * 100_000, ["JSON that is no data set"]),
        (b'{"images": ' + b"1" * 10_000 + b"}", ["images"]),
        (b"", ["the file is empty"]),
        (b"\xef\xbb\xbf  \n", ["the file is empty"]),
        (b'{\n\n"caption": "caf\xe9"}', ["line 3 is not UTF-8"]),
    ],
)
def test_a_broken_file_is_refused_with_the_place(coco, data, words) -> None:
    folder = coco()
    (folder / "annotations" / "captions_train2017.json").write_bytes(data)
    text = message(folder)
    assert "captions_train2017.json: " in text
    assert all(word in text for word in words), text


def test_missing_pictures_are_named_or_skipped_and_counted(coco) -> None:
    def add(content: Content) -> None:
        for index in (20, 21):
            content["images"].append({"id": index, "file_name": f"gone{index}.jpg"})
            for _ in range(2):
                content["annotations"].append({"image_id": index, "caption": f"gone {index}"})

    folder = coco(add)
    text = message(folder)
    assert "2 of 4 pictures are missing" in text
    assert f"{folder / 'train2017' / 'gone20.jpg'} (annotations[3])" in text
    captions = read_captions(folder, skip_missing=True)
    assert len(captions.pictures) == 2
    assert captions.description.endswith(
        "2 pictures, 3 captions; left out: 2 missing pictures, 2 repeated captions"
    )
    for name in ("07.jpg", "09.jpg"):
        (folder / "train2017" / name).unlink()
    assert "4 of 4 pictures are missing" in message(folder, skip_missing=True)


def test_blank_and_repeated_captions_are_left_out_and_counted(coco) -> None:
    def add(content: Content) -> None:
        bus = content["annotations"][2]
        content["annotations"] += [
            {"image_id": 7, "id": 4, "caption": " \n"},
            bus,  # the same annotation again
            {**bus, "id": 5},  # another person wrote the same
        ]
        content["images"].append({"id": 11, "file_name": "nobody_wrote.jpg"})

    captions = read_captions(coco(add))
    assert found(captions)["09.jpg"] == ("A red bus , parked .", "A bus.", "A bus.")
    assert captions.description == (
        "COCO, captions_train2017.json: 2 pictures, 4 captions; left out: 1 blank caption, "
        "1 picture without a caption, 1 repeated caption"
    )


ESCAPES = (
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "..",
    "..\\secret.jpg",
    "C:\\secret.jpg",
    "C:secret.jpg",
    "\\\\host\\share\\a.jpg",
    "nul\0.jpg",
    ".",
)


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("skip_missing", [True, False])
def test_names_that_leave_the_folder_are_refused(coco, name: str, skip_missing: bool) -> None:
    folder = coco(lambda content: content["images"][0].update(file_name=name))
    text = message(folder, skip_missing=skip_missing)
    assert f"annotations[1] names the picture {name!r}" in text


def test_names_within_the_folder_may_be_deep_and_are_one_picture(tmp_path: Path) -> None:
    touch(tmp_path, "deep/er/a.jpg")
    (tmp_path / "c.csv").write_text("deep/er/a.jpg,one\n./deep//er/a.jpg,two\n", encoding="utf-8")
    assert found(read_captions(tmp_path)) == {"a.jpg": ("one", "two")}


# ---- Flickr8k ---------------------------------------------------------------------------------

CAPTIONS_TXT = (
    "image,caption\n"
    "b.jpg,A dog , a ball and a man .\n"
    'b.jpg,"A man says ""hi"" , twice ."\n'
    'a.jpg,"Hi" says a man\n'
    'a.jpg,"Hi" and "bye"\n'
    "b.jpg,A dog , a ball and a man .\n"
    "a.jpg,\n"
)
TOKEN_TXT = (
    "b.jpg#0\tA dog , a ball and a man .\n"
    "b.jpg#1\tA dog , a ball and a man .\n"
    'a.jpg#0\t"Quoted"\n'
    "c.jpg#0\tNo. 1, with a tab\tin\u2028it\n"
)


def test_flickr_captions_hold_commas_and_quotes(tmp_path: Path) -> None:
    touch(tmp_path / "Images", "a.jpg", "b.jpg")
    (tmp_path / "captions.txt").write_text(CAPTIONS_TXT, encoding="utf-8")
    captions = read_captions(tmp_path)
    assert found(captions) == {
        "b.jpg": ("A dog , a ball and a man .", 'A man says "hi" , twice .'),
        "a.jpg": ('"Hi" says a man', '"Hi" and "bye"'),
    }
    assert captions.description == (
        "Flickr8k, captions.txt: 2 pictures, 4 captions; left out: 1 blank caption, "
        "1 repeated caption"
    )
    assert read_captions(tmp_path / "captions.txt") == captions


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "pictures", ["Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images", "."]
)
def test_flickr_tokens_with_pictures_in_any_of_the_known_folders(
    tmp_path: Path, pictures: str, ending: str
) -> None:
    touch(tmp_path / pictures, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "Flickr8k.token.txt").write_bytes(TOKEN_TXT.replace("\n", ending).encode())
    captions = read_captions(tmp_path)
    assert found(captions) == {
        "b.jpg": ("A dog , a ball and a man .",) * 2,  # two people wrote the same
        "a.jpg": ('"Quoted"',),
        "c.jpg": ("No. 1, with a tab in it",),
    }
    assert {picture.path.parent for picture in captions.pictures} == {tmp_path / pictures}


def test_validation_is_also_called_val(coco) -> None:
    coco()
    folder = coco(lambda content: content["annotations"].pop(), split="val")
    captions = read_captions(folder, "validation")
    assert captions == read_captions(folder, "val") != read_captions(folder, "train")
    assert captions.description == "COCO, captions_val2017.json: 2 pictures, 2 captions"


def test_flickr_lists_give_the_split(tmp_path: Path) -> None:
    touch(tmp_path / "Images", "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "Flickr8k.token.txt").write_text(TOKEN_TXT, encoding="utf-8")
    assert "no Flickr_8k.devImages.txt" in message(tmp_path, "val")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b.jpg\nunwritten.jpg\n\n", encoding="utf-8")
    assert "no Flickr_8k.trainImages.txt" in message(tmp_path, "train")
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("c.jpg\na.jpg\n", encoding="utf-8")
    assert list(found(read_captions(tmp_path, "train"))) == ["a.jpg", "c.jpg"]
    captions = read_captions(tmp_path, "val")
    assert list(found(captions)) == ["b.jpg"]
    assert captions.description.endswith("left out: 1 picture without a caption")


def test_the_captions_that_flickr_published_without_a_picture_are_no_error(tmp_path: Path) -> None:
    touch(tmp_path / "Images", "a.jpg")
    stray = "2258277193_586949ec62.jpg.1#0\tA man and a woman\n"
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog\n" + stray, encoding="utf-8")
    captions = read_captions(tmp_path)
    assert list(found(captions)) == ["a.jpg"]
    assert captions.description.endswith(
        "left out: 1 caption that was published without its picture"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.txt", "image,caption\na.jpg,one\na.jpg\n"),
        ("Flickr8k.token.txt", "\na.jpg#0\tone\na b\n"),
    ],
)
def test_flickr_lines_of_another_form_are_refused_by_number(
    tmp_path: Path, name: str, text: str
) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert f"{tmp_path / name}: line 3 is " in message(tmp_path)


# ---- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "file,caption\n", "\ufefffile name,text\r\n"])
def test_csv_rows_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    touch(tmp_path, "one.png", "sub/two.png")
    rows = (
        'one.png,A cat\nsub/two.png,"Two cats, one ""asleep"""\none.png, a  cat \n\none.png,A cat\n'
    )
    (tmp_path / "mine.CSV").write_text(header + rows, encoding="utf-8", newline="")
    for location in (tmp_path, tmp_path / "mine.CSV"):
        captions = read_captions(location)
        assert found(captions) == {
            "one.png": ("A cat", "a cat"),
            "two.png": ('Two cats, one "asleep"',),
        }
        assert captions.description.endswith("3 captions; left out: 1 repeated caption")


def test_a_first_row_that_names_a_file_is_no_header(tmp_path: Path) -> None:
    touch(tmp_path, "picture")
    (tmp_path / "c.csv").write_text("picture,A cat\npicture,A dog\n", encoding="utf-8")
    assert found(read_captions(tmp_path)) == {"picture": ("A cat", "A dog")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg,one\na.jpg\n", ["line 2 has 1 column,"]),
        ("a.jpg,one\n\na.jpg,a dog, a cat\n", ["line 3 has 3 columns", "quotes"]),
        ('a.jpg,one\na.jpg,"a "big" dog"\n', ["line 2", "broken CSV"]),
        ("a.jpg,one\nb.jpg,two\n", ["1 of 2 pictures", "b.jpg (line 2)"]),
        ("gone.jpg,one\na.jpg,two\n", ["gone.jpg (line 1)"]),  # no header
        ("a.jpg,one\n../b.jpg,two\n", ["line 2", "'../b.jpg'"]),
        ("a.jpg,one\n,two\n", ["line 2", "''"]),
        ("file,caption\n", ["no captions"]),
        ("", ["empty"]),
    ],
)
def test_csv_that_cannot_be_used_is_refused_by_line(tmp_path: Path, text: str, words) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    error = message(tmp_path)
    assert error.startswith(f"{tmp_path / 'c.csv'}: ")
    assert all(word in error for word in words), error


def test_csv_has_no_val_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "c.csv").write_text("a.jpg,one\n", encoding="utf-8")
    assert "hold a part of it out" in message(tmp_path, "val")


# ---- what is recognised, and the split --------------------------------------------------------


def test_what_is_not_recognised_says_what_would_be(tmp_path: Path) -> None:
    assert "no such file or folder" in message(tmp_path / "nothing")
    assert "captions_train2017.json (COCO)" in message(tmp_path)
    touch(tmp_path, "notes.txt", "a.csv", "b.csv")
    assert "expected annotations" in message(tmp_path / "notes.txt")
    assert "2 CSV files" in message(tmp_path)
    assert "\\n" in message(tmp_path / "two\nlines")
    with pytest.raises(ValueError, match="'test', expected train or val"):
        read_captions(tmp_path, "test")  # type: ignore[arg-type]


def test_hold_out_splits_by_picture_and_seed(tmp_path: Path) -> None:
    names = [f"{index}.jpg" for index in range(20)]
    touch(tmp_path, *names)
    rows = "".join(f"{name},{word}\n" for word in ("one", "two") for name in names)
    (tmp_path / "c.csv").write_text(rows, encoding="utf-8")
    captions = read_captions(tmp_path)
    rest, held = hold_out(captions, 0.25, seed=3)
    assert (len(rest.pictures), len(held.pictures)) == (15, 5)
    assert set(rest.pictures) | set(held.pictures) == set(captions.pictures)
    assert all(picture.captions == ("one", "two") for picture in held.pictures)
    for part in (rest, held):  # in the order of the file
        places = [captions.pictures.index(picture) for picture in part.pictures]
        assert places == sorted(places)
    assert held.description.endswith("held out, seed 3: 5 pictures, 10 captions")
    assert hold_out(captions, 0.25, seed=3) == (rest, held)
    others = [hold_out(captions, 0.25, seed=seed)[1].pictures for seed in range(4)]
    assert all(one != two for one, two in itertools.combinations(others, 2))
    for share in (0.001, 0.999):  # never an empty part
        assert all(part.pictures for part in hold_out(captions, share))
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="share is"):
            hold_out(captions, share)
    with pytest.raises(ValueError, match="expected 2 pictures"):
        hold_out(CaptionSet(captions.pictures[:1], "one"), 0.5)
