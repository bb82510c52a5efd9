"""Ctrl-C while it trains: what it leaves, and that the run goes on from there."""

from __future__ import annotations

import csv
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

import minivit
import train
from tests.training.photo_runs import (
    make_photos,
    make_recipe_file,
    start,
    wait_for,
)

LEFT = {
    "best.safetensors",
    "confusion.png",
    "curves.png",
    "environment.toml",
    "last.safetensors",
    "metrics.csv",
    "minivit-run.json",
    "recipe.toml",
    "report.md",
    "state.pt",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """120 photos one at a time, two epochs; the state is saved after every 20 steps."""
    place = tmp_path_factory.mktemp("stopping")
    photos = make_photos(place / "photos", per_class=40)
    recipe = make_recipe_file(place / "small.toml", "save_every = 20\n")
    return ["classify", "--data", photos, "--recipe", recipe, "--batch-size", 1, "--epochs", 2,
            "--set", "mixup=0"]  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return minivit.load_model(path).state_dict()


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.equal(one[name], other[name]) for name in one)


def place_of(path: Path) -> list[int]:
    place: list[int] = torch.load(path)["place"]
    return place


def test_what_was_learned_is_left_and_the_run_goes_on_to_the_same_bits(
    words: list[object], tmp_path: Path
) -> None:
    """Pressed in the first epoch and, once resumed, in the second."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = start(*words, "--out", out)
    wait_for((out / "state.pt").exists, process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all processes of the group
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors[-2000:]
    assert "Traceback" not in errors and "Ctrl-C again ends at once" in errors
    assert {path.name for path in out.iterdir()} - {"mistakes.png", "tensorboard"} == LEFT
    step, line = place_of(out / "state.pt")[3], r"stopped early at step (\d+) of 240; "
    assert 0 < step < 120
    for text in (printed, (out / "report.md").read_text()):
        stopped = re.search(line, text)
        assert stopped and int(stopped[1]) == step
    assert "15 validation photos: " in (out / "report.md").read_text()
    assert same(out / "best.safetensors", out / "last.safetensors")
    with (out / "metrics.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["epoch"] == "1" and 0 <= float(row["val_accuracy"]) <= 1
    for name in ("curves.png", "confusion.png"):
        with Image.open(out / name) as image:
            image.load()

    process = start(*words, "--out", out, "--resume")
    wait_for(lambda: place_of(out / "state.pt")[3] > 125, process)
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors[-2000:]
    assert f"resumed after step {step} of 240" in printed
    assert not same(out / "best.safetensors", out / "last.safetensors")
    assert len((out / "metrics.csv").read_text().splitlines()) == 3

    for run, more in ((out, ["--resume"]), (whole, [])):
        assert train.main([str(word) for word in [*words, "--out", run, *more]]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert same(out / name, whole / name)
    assert not (out / "state.pt").exists() and "stopped" not in (out / "report.md").read_text()
    rows = [
        [line.rsplit(",", 1)[0] for line in (run / "metrics.csv").read_text().splitlines()]
        for run in (out, whole)
    ]
    assert rows[0] == rows[1]


def test_a_second_interrupt_ends_the_report_with_nothing_half_written(
    words: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*words, "--out", out)
    wait_for((out / "state.pt").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    wait_for((out / "curves.png").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert errors.rstrip().endswith("interrupted") and "Traceback" not in errors
    assert not (out / "report.md").exists() and (out / "state.pt").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    weights(out / "best.safetensors")
