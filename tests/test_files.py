"""A reader never meets half a file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from minivit.files import replacing, save_figure


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("existing", [False, True])
def test_what_was_written_becomes_the_file(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "report.md"
    if existing:
        target.write_text("old and much longer than the new one")
    with replacing(target) as temporary:
        assert temporary != target and temporary.parent == target.parent
        temporary.write_text("new")
        assert not existing or target.read_text().startswith("old")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["report.md"]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    """Libraries choose a format by it."""
    with replacing(str(tmp_path / "curves.v2.png")) as temporary:
        assert temporary.suffix == ".png"


def test_folders_above_are_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "runs" / "demo" / "a.txt") as temporary:
        temporary.write_text("a")
    assert (tmp_path / "runs" / "demo" / "a.txt").read_text() == "a"


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_all_is_as_before(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "a.txt"
    if existing:
        target.write_text("old")
    before = names(tmp_path)
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == before
    assert not existing or target.read_text() == "old"


def test_the_death_of_the_process_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    script = (
        "import os, sys\n"
        "from minivit.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os._exit(9)\n"
    )
    root = Path(__file__).parents[1]
    died = subprocess.run([sys.executable, "-c", script, str(target)], cwd=root, check=False)
    assert died.returncode == 9
    assert target.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("a")
        after = os.umask(mask)
    finally:
        os.umask(before)
    assert after == mask
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_a_path_below_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Where nobody can write, not even the superuser."""
    (tmp_path / "file").write_text("mine")
    entered = False
    for path in (tmp_path / "file" / "a.txt", tmp_path / "file" / "b" / "a.txt"):
        with pytest.raises(OSError), replacing(path):
            entered = True
    assert not entered
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_of_the_file_that_was_to_be_written(
    tmp_path: Path, number: int
) -> None:
    """`write` names no file, and nobody knows the temporary one."""
    target = tmp_path / "a.txt"
    with pytest.raises(OSError) as error, replacing(target):
        raise OSError(number, os.strerror(number))
    assert error.value.errno == number and error.value.filename == str(target)
    assert names(tmp_path) == []


def test_another_error_of_the_system_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError) as error, replacing(tmp_path / "a.txt"):
        raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
    assert error.value.filename is None


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("mine")
    with pytest.raises(OSError), replacing(tmp_path / "folder") as temporary:
        temporary.write_text("a")
    assert names(tmp_path) == ["folder"] and names(tmp_path / "folder") == ["inside"]


def test_a_folder_is_not_replaced_and_is_named(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(IsADirectoryError) as error, replacing(target):
        raise AssertionError("the body must not run")
    assert error.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]


# ---- figures -----------------------------------------------------------------------------------


def test_a_figure_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "curves.png"
    save_figure(Figure(figsize=(2, 1), dpi=70), path)
    before = path.read_bytes()
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == (140, 70)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    figure = Figure()
    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_letters_that_the_font_does_not_have_are_no_warning(tmp_path: Path) -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "\U0001f408 \u732b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "cat.png")


def drawn() -> Figure:
    figure = Figure(figsize=(2, 1), dpi=70)
    axes = figure.add_axes((0, 0, 1, 0.8))
    axes.imshow([[0, 1], [1, 0]])
    figure.text(0.1, 0.9, "umbrella & Größe")
    return figure


@pytest.mark.parametrize("ending", ["pdf", "svg", "png", "PDF"])
def test_the_ending_chooses_the_format_and_the_same_figure_is_the_same_file(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    save_figure(drawn(), first)
    monkeypatch.setattr("time.time", lambda: 1.7e9)  # another day
    save_figure(drawn(), second)
    data = first.read_bytes()
    assert data == second.read_bytes()
    start = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG"}[ending.lower()]
    assert data.startswith(start)
    assert b"CreationDate" not in data and b"dc:date" not in data


def test_words_in_vector_files_are_text(tmp_path: Path) -> None:
    save_figure(drawn(), tmp_path / "a.svg")
    assert "umbrella &amp; Größe</text>" in (tmp_path / "a.svg").read_text("utf-8")
    save_figure(drawn(), tmp_path / "a.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in data and b"/Subtype /Type3" not in data  # a TrueType font, inside


def test_an_unknown_ending_is_png(tmp_path: Path) -> None:
    save_figure(drawn(), tmp_path / "page.picture")
    assert (tmp_path / "page.picture").read_bytes().startswith(b"\x89PNG")
