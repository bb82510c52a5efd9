"""A command whose reader goes away still does its work: real processes and pipes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minivit.commands.streams import lasting_streams
from tests.training.photo_runs import ROOT, make_photos, make_recipe_file


def through_head(words: str, place: Path) -> subprocess.CompletedProcess[str]:
    """The command into `head -1`; its own status is what it prints last."""
    script = f"set -o pipefail; ({sys.executable} {words}; echo $? > {place}/status) {{}} | head -1"
    how = "2>&1" if "both" in place.name else "2> /dev/null"
    return subprocess.run(
        ["bash", "-c", script.format(how)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("streams", ["output", "both"])
def test_a_training_ends_as_without_a_reader(streams: str, tmp_path: Path) -> None:
    place = tmp_path / streams
    place.mkdir()
    out = place / "run"
    photos, recipe = make_photos(place / "photos"), make_recipe_file(place / "small.toml")
    done = through_head(f"train.py --data {photos} --recipe {recipe} --out {out}", place)
    assert done.stdout.endswith("\n")
    assert (place / "status").read_text() == "0\n"
    assert (out / "report.md").exists() and not (out / "state.pt").exists()
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 3


def test_every_photo_is_drawn_and_the_status_is_that_of_all(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    photos = " ".join(f"tutorials/photos/{name}.jpg" for name in ("cat", "coffee", "astronaut"))
    done = through_head(
        f"visualize.py attention {photos} {tmp_path}/bad.png --out {tmp_path}/out", tmp_path
    )
    assert "cat.png: drawn by" in done.stdout and done.stdout.count("\n") == 1
    assert (tmp_path / "status").read_text() == "2\n"
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_stream_without_a_descriptor_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    gone = Gone()
    monkeypatch.setattr(sys, "stdout", gone)
    with lasting_streams():
        print("a")
        assert sys.stdout.closed is False  # all else is the stream's own
    assert sys.stdout is gone
