"""Which files in a folder are photos: by their ending, else by their content."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from minivit.data.photos.folders import files_in, folders_in, pictures_in
from minivit.preprocess import is_picture, open_image


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_pictures_and_folders_are_told_apart_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.JPG", "9.png", "notes.txt", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).touch()
    for name in ("b.png", "a"):
        (tmp_path / name).mkdir()
    files, notes = files_in(tmp_path), Counter[str]()
    assert names(files.candidates(notes)) == ["9.png", "10.JPG"]
    assert notes == {"files that are no pictures": 1}
    assert names(folders_in(tmp_path)) == ["a", "b.png"]


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "JPEG2000"]
)
def test_the_content_decides_where_the_ending_does_not(tmp_path: Path, format: str) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "photo", format)
    for name in ("IMG_1.HEIC", "26.50", "notes.txt", "labels.csv"):
        shutil.copy(tmp_path / "photo", tmp_path / name)
    files = files_in(tmp_path)
    assert names(files.pictures) == ["26.50", "IMG_1.HEIC", "labels.csv", "notes.txt", "photo"]
    assert not files.unknown and not files.num_others
    assert all(open_image(path).size == (32, 32) for path in files.pictures)


def test_what_is_no_picture_is_unknown_unless_its_ending_says_what_it_is(tmp_path: Path) -> None:
    """A real HEIC file begins with these bytes, and Pillow alone does not open it."""
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name in ("IMG.HEIC", "IMG", "x.svg", "empty"):
        (tmp_path / name).write_bytes(heic if name != "empty" else b"")
    for name in ("a.txt", "b.JSON", "c.csv", "d.mat", "e.md", "f.zip", ".DS_Store"):
        (tmp_path / name).write_bytes(b"BMW and P3 are no pictures")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    (tmp_path / "lost.txt").symlink_to(tmp_path / "nowhere")
    files, notes = files_in(tmp_path), Counter[str]()
    assert names(files.unknown) == ["empty", "IMG", "IMG.HEIC", "lost", "x.svg"]
    assert pictures_in(tmp_path) == [] and files.num_others == 7
    assert files.candidates(notes) == files.unknown
    assert notes == {"files that are no pictures": 7}


def test_the_ending_of_a_picture_is_enough(tmp_path: Path) -> None:
    """A damaged photo is a photo that cannot be opened, not a file that is none."""
    (tmp_path / "damaged.jpg").write_bytes(b"")
    assert names(pictures_in(tmp_path)) == ["damaged.jpg"]


def test_a_head_is_enough_to_be_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in the middle, or too large to be opened: a picture, whatever comes of it later."""
    path = tmp_path / "photo"
    Image.effect_noise((200, 100), 50).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1000])
    assert is_picture(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert is_picture(path)
    assert not is_picture(tmp_path) and not is_picture(tmp_path / "nothing")
