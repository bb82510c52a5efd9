"""Text files: read as UTF-8 or refused, cut into lines, and no name that leaves the folder."""

from pathlib import Path

import pytest

from minivit.data.errors import BadDataError
from minivit.data.text_files import SPLIT_WORDS, inside, lines_of, read_text


class BadThingError(BadDataError):
    """The error of one kind of data."""


def test_text_comes_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufefffile,label\r\nä.jpg,犬\r\n".encode())
    assert read_text(path) == "file,label\r\nä.jpg,犬\r\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty; copy or download it again"),
        (b"\xef\xbb\xbf \n\n", "the file is empty; copy or download it again"),
        (b"a\r\nb\rc\n\xe9", "line 4 is not UTF-8 text; save the file as UTF-8"),
        (None, "No such file or directory; check it"),
    ],
)
@pytest.mark.parametrize("error", [BadDataError, BadThingError])
def test_what_is_no_text_is_refused_in_one_line(
    tmp_path: Path, data: bytes | None, words: str, error: type[BadDataError]
) -> None:
    path = tmp_path / "a.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadDataError) as caught:
        read_text(path, error=error)
    assert type(caught.value) is error
    assert str(caught.value) == f"{path}: {words}"


def test_lines_end_where_files_end_them_and_nowhere_else() -> None:
    """Captions hold such characters, and str.splitlines would cut at them."""
    assert lines_of("a\nb\r\nc\rd") == ["a", "b", "c", "d"]
    assert lines_of("a\u2028b\x0bc\x1cd\x85e") == ["a\u2028b\x0bc\x1cd\x85e"]
    assert lines_of("a\n") == ["a", ""]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a.jpg", "a.jpg"), ("./a.jpg", "a.jpg"), ("deep//er/./a.jpg", "deep/er/a.jpg")],
)
def test_a_name_within_the_folder_becomes_plain(name: str, plain: str) -> None:
    assert inside(Path("list.csv"), "line 2", name) == plain


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a.jpg",
        "a/../../b.jpg",
        "..\\a.jpg",
        "C:a.jpg",
        "\\\\host\\s\\a",
        "",
        "\0",
    ],
)
@pytest.mark.parametrize("error", [BadDataError, BadThingError])
def test_a_name_that_leads_outside_is_refused(name: str, error: type[BadDataError]) -> None:
    with pytest.raises(BadDataError) as caught:
        inside(Path("list.csv"), "line 2", name, error=error)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"list.csv: line 2 names the picture {name!r}; ")


def test_the_words_for_a_split_are_in_small_letters() -> None:
    assert all(word == word.casefold() for word in SPLIT_WORDS)
    assert set(SPLIT_WORDS.values()) == {"train", "validation", "test"}
    assert {SPLIT_WORDS[word] for word in ("val", "valid", "validation")} == {"validation"}
