"""A run that is killed and resumed ends with the bits of one that was not: real processes."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

import minivit
from minivit.training.state_file import write_state
from tests.training.photo_runs import (
    ROOT,
    call,
    command,
    environment,
    make_photos,
    make_recipe_file,
)

PHASES = """
ema_decay = 0.9
save_every = 2
[[phases]]
optimizer = "adam"
epochs = 3
[[phases]]
optimizer = "sgd"
lr = 0.01
epochs = 3
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    place = tmp_path_factory.mktemp("resume")
    photos = make_photos(place / "photos")
    recipe = make_recipe_file(place / "small.toml", PHASES)
    return ["classify", "--data", photos, "--recipe", recipe]


@pytest.fixture(scope="module")
def whole(words: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = call(*words, "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def kill_after(seconds: float, words: list[object]) -> bool:
    """Starts train.py and kills it after so long; whether it was still running."""
    process = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def same_run(first: Path, second: Path) -> None:
    for name in ("last.safetensors", "best.safetensors"):
        a, b = (minivit.load_model(run / name).state_dict() for run in (first, second))
        assert all(torch.equal(a[key], b[key]) for key in a), name
    rows = []
    for run in (first, second):
        lines = (run / "metrics.csv").read_text().splitlines()
        rows.append([line.rsplit(",", 1)[0] for line in lines])  # without the seconds
    assert rows[0] == rows[1]
    assert not (second / "state.pt").exists()


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    words: list[object], whole: Path, tmp_path: Path
) -> None:
    """Killed again and again, at moments that differ each time the test is run."""
    out, chance = tmp_path / "run", random.Random(time.time_ns())
    kills = 0
    begin = time.monotonic()
    while kills < 5 and time.monotonic() - begin < 120:
        seconds = 2.0 + 3.0 * chance.random()
        running = kill_after(seconds, [*words, "--out", out, "--resume"])
        kills += running
        if not running:
            break
    done = call(*words, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    assert kills > 0
    same_run(whole, out)


def test_killed_right_after_a_state_was_saved(
    words: list[object], whole: Path, tmp_path: Path
) -> None:
    """Killed as soon as there is a state, in the middle of an epoch, with files half-written."""
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*words, "--out", out),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (out / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert (out / "state.pt").exists()
    refused = call(*words, "--out", out)
    assert refused.returncode == 2
    assert "holds an unfinished run: go on with it (--resume)" in refused.stderr
    other = call(*words, "--out", out, "--resume", "--lr", "0.5")
    assert other.returncode == 2 and "lr was 0.002 in that run" in other.stderr
    state = torch.load(out / "state.pt")
    assert state["run_seconds"] > state["seconds"] > 0  # the photos were read before the training
    write_state(out / "state.pt", {**state, "run_seconds": state["run_seconds"] + 70 * 60})
    done = call(*words, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed after step" in done.stdout
    minutes = re.search(r"^- (\d+) min \d+ s in all", (out / "report.md").read_text(), re.MULTILINE)
    assert minutes and 70 <= int(minutes[1]) < 75 and minutes[0][2:] in done.stdout
    same_run(whole, out)
    again = call(*words, "--out", out, "--resume")
    assert again.returncode == 0 and "this run is finished" in again.stdout
