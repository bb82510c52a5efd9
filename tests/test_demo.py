"""`make demo`: what is drawn when, and that Ctrl-C ends the training and not the demo.

A small program stands for Python and the two commands, which have tests of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!{python}
import pathlib, sys, time
command, *words = sys.argv[1:]
print(command, *words, flush=True)
if command == "train.py":
    out = pathlib.Path(words[words.index("--out") + 1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "begun").touch()
    try:
        time.sleep({seconds})
    except KeyboardInterrupt:
        if {learned}:
            (out / "report.md").write_text("stopped early")
        sys.exit(130)
    sys.exit({status})
"""


def demo(tmp_path: Path, **values: object) -> subprocess.Popen[str]:
    """Starts it with a stand-in for Python; its own flag goes to train.py."""
    python = tmp_path / "python"
    given = {"python": sys.executable, "seconds": 0, "learned": True, "status": 0}
    python.write_text(STAND_IN.format(**given | values))
    python.chmod(0o755)
    return subprocess.Popen(
        [".ci/demo.sh", str(python), str(tmp_path / "demo"), "--minutes", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def press(process: subprocess.Popen[str], out: Path) -> None:
    """Ctrl-C while it trains, as a terminal sends it: to all processes of the group."""
    deadline = time.monotonic() + 60
    while not (out / "run" / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)


def commands(printed: str, out: Path) -> list[str]:
    lines = printed.replace(str(out), "OUT").splitlines()
    return [line for line in lines if not line.startswith("minivit: ")]


SHIPPED = [
    "visualize.py attention --out OUT/shipped --overwrite",
    "visualize.py positions --out OUT/shipped --overwrite",
    "visualize.py caption --out OUT/shipped/caption --overwrite",
]
TRAINING = "train.py --out OUT/run --overwrite --minutes 2"
TRAINED = [
    "visualize.py attention --weights OUT/run/best.safetensors --out OUT --overwrite",
    "visualize.py positions --weights OUT/run/best.safetensors --out OUT --overwrite",
]


def test_the_shipped_weights_draw_first_and_those_that_were_trained_last(tmp_path: Path) -> None:
    process = demo(tmp_path)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert commands(printed, tmp_path / "demo") == [*SHIPPED, TRAINING, *TRAINED]
    said = [line for line in printed.splitlines() if line.startswith("minivit: ")]
    assert "weights that come with minivit" in said[0] and "shipped" in said[0]
    assert "Ctrl-C stops it early" in " ".join(said)


def test_a_training_that_was_stopped_draws_what_it_has_learned(tmp_path: Path) -> None:
    process = demo(tmp_path, seconds=60)
    press(process, tmp_path / "demo")
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert commands(printed, tmp_path / "demo") == [*SHIPPED, TRAINING, *TRAINED]
    assert "done" in printed.splitlines()[-2]


@pytest.mark.parametrize(
    ("values", "status"), [({"seconds": 60, "learned": False}, 130), ({"status": 2}, 2)]
)
def test_a_training_that_learned_nothing_ends_the_demo(
    values: dict[str, object], status: int, tmp_path: Path
) -> None:
    """Also where the report of an earlier demo is there."""
    out = tmp_path / "demo"
    (out / "run").mkdir(parents=True)
    (out / "run" / "report.md").write_text("of an earlier demo")
    process = demo(tmp_path, **values)
    if "seconds" in values:
        press(process, out)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert commands(printed, out) == [*SHIPPED, TRAINING]
