"""Who may train in a folder: by its mark, one process at a time. With real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from minivit.training.run_mark import NAME, RunFolderError, RunMark
from tests.training.photo_runs import (
    ROOT,
    make_photos,
    make_recipe_file,
    start,
    wait_for,
)

HOLD = """
    import multiprocessing, sys, time
    from pathlib import Path
    from minivit.training.run_mark import RunMark

    with RunMark(Path(sys.argv[1])).locked():
        if "forks" in sys.argv:
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
        print("held", flush=True)
        time.sleep(60)
"""


def hold(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A process that holds the folder by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(folder), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Asks first: then torchrun ends its processes, which have sessions of their own."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("words", [[], ["forks"]])
def test_a_second_process_is_told_who_is_at_work_and_a_crash_leaves_no_lock(
    words: list[str], tmp_path: Path
) -> None:
    """A process that the first has forked, as a loader of data, lives on and holds nothing."""
    folder = tmp_path / "run"
    process = hold(folder, *words)
    try:
        text = (folder / NAME).read_text()
        with pytest.raises(RunFolderError) as error, RunMark(folder).locked():
            raise AssertionError("the body must not run")
        assert f"process {process.pid} on {json.loads(text)['host']}" in str(error.value)
        assert (folder / NAME).read_text() == text
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        take_within(10, folder)  # a fork lets go of the lock when it gets its first moment
    finally:
        end(process)


def take_within(seconds: float, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with RunMark(folder).locked():
                return
        except RunFolderError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_what_was_made_is_taken_away_where_no_run_began(tmp_path: Path) -> None:
    with RunMark(tmp_path / "new" / "run").locked():
        assert (tmp_path / "new" / "run" / NAME).exists()
    assert list(tmp_path.iterdir()) == []
    with RunMark(tmp_path / "new" / "run").locked():
        RunMark(tmp_path / "new" / "run").write(["report.md"])
    assert RunMark(tmp_path / "new" / "run").files() == ["report.md"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', "{}", "mine", "\x00"])
def test_a_file_that_is_no_mark_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    assert RunMark(tmp_path).files() is None


def test_the_end_of_a_longer_text_does_no_harm(tmp_path: Path) -> None:
    """A crash between writing over it and cutting it."""
    mark = RunMark(tmp_path)
    mark.write(["a"])
    with mark.path.open("a") as file:
        file.write(' "b",\n "c"]}')
    assert mark.files() == ["a"]
    mark.write(["d"])
    assert mark.files() == ["d"] and json.loads(mark.path.read_text())["process"] == os.getpid()


# ---- train.py ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    place = tmp_path_factory.mktemp("locks")
    photos = make_photos(place / "photos")
    recipe = make_recipe_file(place / "small.toml", "save_every = 1\n")
    return ["classify", "--data", photos, "--recipe", recipe, "--workers", "0"]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("more", [[], ["--resume"], ["--overwrite"]])
def test_a_run_that_is_at_work_is_left_alone(
    more: list[str], processes: int, words: list[object], tmp_path: Path
) -> None:
    """By whatever flags; also beside one of torchrun, whose first process holds the folder."""
    out = tmp_path / "run"
    first = start(*words, "--epochs", "500", "--out", out, processes=processes)
    try:
        wait_for((out / "state.pt").exists, first)
        second = start(*words, "--epochs", "500", "--out", out, *more)
        _, errors = second.communicate(timeout=120)
        assert second.returncode == 2, errors[-2000:]
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert line.startswith(f"error: {out}: process ") and "is at work there" in line
        assert first.poll() is None and (out / "state.pt").exists()
    finally:
        end(first)


def test_of_two_that_begin_together_one_trains(words: list[object], tmp_path: Path) -> None:
    out = tmp_path / "run"
    rates = ("1e-3", "2e-3")
    both = [start(*words, "--epochs", "2", "--lr", rate, "--out", out) for rate in rates]
    errors = [run.communicate(timeout=240)[1] for run in both]
    assert sorted(run.returncode for run in both) == [0, 2], errors
    winner = next(number for number, run in enumerate(both) if run.returncode == 0)
    assert f"lr = {float(rates[winner])}\n" in (out / "recipe.toml").read_text()
    assert not (out / "state.pt").exists() and (out / "report.md").exists()
