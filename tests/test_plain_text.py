"""Words from outside: whatever steers a terminal shows, and no cell of a table is a formula."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minivit.data.photos.readers import csv_rows
from minivit.plain_text import cell, from_cell, visible
from minivit.training.classify.predictions import write_predictions

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    "'=+-@\t\r\n\\x15bcae09 \x1b\x7f"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("bell\a", r"bell\x07"),
        ("two\nlines\r\x85", r"two\nlines\r\x85"),
        ("cat\u202egpj.exe", r"cat\u202egpj.exe"),  # would be read as catexe.jpg
        ("a\u2028b\u200fc", r"a\u2028b\u200fc"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),
        ("ünï 日本語 \u3000\xa0 \u200d🐈", "ünï 日本語 \u3000\xa0 \u200d🐈"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_what_steers_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_every_text_becomes_one_line_that_any_terminal_prints(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in shown)
    shown.encode()


@given(TEXTS)
@example("'=1")
@example("\\x5cx1b")
@example("\\\x1b")
@example("''-5")
@example("-5")
def test_a_cell_is_read_back_and_is_neither_formula_nor_control(text: str) -> None:
    written = cell(text)
    assert from_cell(written) == text
    assert not any(letter in written for letter in map(chr, [*range(9), 11, 12, *range(14, 32)]))
    if written[:1] in tuple("=+-@\t\r\n"):
        float(written)  # a number is no formula


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\n=1"])
def test_what_a_table_program_would_run_is_marked_as_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+3.2e-4", "cat", "'quoted'", "it's", "", "26_5064.jpg"])
def test_what_is_harmless_stays(text: str) -> None:
    assert cell(text) == text


def test_predictions_are_read_back_by_our_own_reader(tmp_path: Path) -> None:
    names = [
        "=1.png",
        "-x.png",
        "@.png",
        "'=1.png",
        "e\x1b[31m.png",
        r"e\x1b.png",
        "two\nlines.png",
    ]
    labels = ["=cmd()", "+a", "-1", "'", "bell\a", "a, b", 'c "d"']
    write_predictions(tmp_path / "out.csv", names, labels)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        text = file.read()
    assert text.startswith("filename,label\n") and "\x1b" not in text and "\a" not in text
    assert not any(
        value.startswith(tuple("=+@")) for row in csv.reader(io.StringIO(text)) for value in row
    )
    rows = csv_rows(tmp_path / "out.csv", Counter())
    assert [(row.name, row.label) for row in rows] == list(zip(names, labels, strict=True))
