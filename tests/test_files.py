"""A reader never meets half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from minivit.files import OutputIsInputError, growing, refuse_inputs, replacing, save_figure


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


# ---- links, pipes and devices ------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices are POSIX's")


@posix
@pytest.mark.parametrize("existing", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, existing: bool) -> None:
    real, link = tmp_path / "store" / "a.txt", tmp_path / "b.txt"
    real.parent.mkdir()
    if existing:
        real.write_text("old")
    link.symlink_to(Path("store", "a.txt"))
    for error in (ValueError, None):
        with contextlib.suppress(ValueError), replacing(link) as temporary:
            assert temporary.parent == real.parent.resolve()
            temporary.write_text("new")
            if error:
                raise error
        assert link.is_symlink() and names(real.parent) == ["a.txt"] * (existing or not error)
        if real.exists():
            assert real.read_text() == ("old" if error else "new")


@posix
def test_a_link_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError) as error, replacing(tmp_path / "a"):
        raise AssertionError("the body must not run")
    assert error.value.errno == errno.ELOOP and error.value.filename == str(tmp_path / "a")


@posix
@pytest.mark.parametrize("write", [replacing, growing])
def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path, write: Any) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    with write(pipe) as out:
        if isinstance(out, Path):
            out.write_text("a,b\n")
        else:
            out.write("a,b\n")
    content, _ = reader.communicate(timeout=30)
    assert content == b"a,b\n" and names(tmp_path) == ["pipe.csv"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@posix
def test_a_pipe_whose_reader_goes_away_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["head", "-c1", str(pipe)], stdout=subprocess.DEVNULL)
    with pytest.raises(BrokenPipeError) as error, replacing(pipe) as temporary:
        temporary.write_bytes(bytes(1 << 20))
    reader.wait(30)
    assert error.value.filename == str(pipe)


@posix
@pytest.mark.parametrize("write", [replacing, growing])
def test_devices_take_what_is_written(write: Any) -> None:
    for name in ("/dev/null", "/dev/full"):
        before = os.stat(name)
        with contextlib.ExitStack() as expected:
            if name == "/dev/full":
                expected.enter_context(pytest.raises(OSError, match="No space left"))
            with write(name) as out:
                if isinstance(out, Path):
                    out.write_text("a")
                else:
                    out.write("a")
        assert os.stat(name).st_rdev == before.st_rdev


@posix
@pytest.mark.parametrize("write", [replacing, growing])
def test_what_is_no_file_is_refused(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")
        with pytest.raises(OSError, match="a block device or a socket"), write("socket"):
            raise AssertionError("the body must not run")
    assert names(tmp_path) == ["socket"]


@posix
@pytest.mark.parametrize("name", ["log.txt", "/dev/stdout"])
def test_the_file_that_takes_the_output_is_refused(tmp_path: Path, name: str) -> None:
    """As in `train.py evaluate --predictions log.txt > log.txt`."""
    code = "import sys\nfrom minivit.files import replacing\nprint('a', flush=True)\n"
    code += "try:\n    with replacing(sys.argv[1]): pass\nexcept OSError as error: print(error)\n"
    root = Path(__file__).parents[1]
    with (tmp_path / "log.txt").open("w") as log:
        subprocess.run(
            [sys.executable, "-c", code, name],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root)},
            stdout=log,
            check=True,
        )
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith("a\n") and "the output of this command goes there" in text


# ---- files that grow ---------------------------------------------------------------------------


def test_a_file_grows_beside_its_name_and_gets_it_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    (tmp_path / "a.partial.csv").write_text("of an earlier one")
    with growing(tmp_path / "a.csv") as file:
        file.write("new")
        file.flush()
        assert Path(file.name) == tmp_path / "a.partial-2.csv"
        assert Path(file.name).read_text() == "new"
        assert (tmp_path / "a.csv").read_text() == "old"
    assert names(tmp_path) == ["a.csv", "a.partial.csv"]
    assert (tmp_path / "a.csv").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("text", ["", "half"])
def test_what_has_grown_is_kept_when_the_rest_fails(
    tmp_path: Path, error: type[BaseException], text: str
) -> None:
    with pytest.raises(error), growing(tmp_path / "a.csv") as file:
        file.write(text)
        raise error
    assert names(tmp_path) == ["a.partial.csv"] * bool(text)


# ---- inputs ------------------------------------------------------------------------------------


@posix
def test_a_file_is_an_input_by_all_its_names(tmp_path: Path) -> None:
    photo = tmp_path / "data" / "cat" / "0.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"photo")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.png").write_bytes(b"photo")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "soft").symlink_to(photo)
    os.link(photo, tmp_path / "hard")
    data = tmp_path / "data"
    for output in (photo, tmp_path / "soft", tmp_path / "hard", tmp_path / "far" / "1.png"):
        with pytest.raises(OutputIsInputError, match=rf"^{output}: is an input.*; give another$"):
            refuse_inputs([tmp_path / "new", output], [data], advice="give another")
    refuse_inputs([data / "new.png", tmp_path], [data, tmp_path / "gone"])
    with pytest.raises(OutputIsInputError):
        refuse_inputs([photo], [tmp_path / "hard"])


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


@pytest.mark.parametrize("dpi", [50, 80, 90, 300])
def test_a_line_is_as_long_whatever_the_dots_per_inch(dpi: int, tmp_path: Path) -> None:
    """Notes are broken into lines for 140 dots per inch, and must fit on the page by all others."""
    from PIL import Image

    ends = []
    for dots in (None, dpi):
        figure = Figure(figsize=(10, 1), dpi=140)
        figure.text(0, 0.5, "uniform: 0.0069, the same for all 144 cells " * 3, size=8)
        save_figure(figure, tmp_path / "a.png", dpi=dots)
        with Image.open(tmp_path / "a.png") as picture:
            dark = np.asarray(picture.convert("L")) < 128
        ends.append(dark.any(axis=0).nonzero()[0].max() / (dots or 140))
    assert ends[1] <= ends[0] + 1 / dpi
