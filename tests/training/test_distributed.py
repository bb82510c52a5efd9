"""Several processes train as one: started by torchrun, with gloo, on this machine."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import minivit
from minivit.training.distributed import Processes
from minivit.training.recipe_toml import read_recipe
from tests.training.photo_runs import (
    ROOT,
    call,
    command,
    environment,
    make_photos,
    make_recipe_file,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 photos to train on and 15 to validate on: neither can be halved, nor can a step of 7."""
    place = tmp_path_factory.mktemp("distributed")
    make_photos(place / "photos")
    (place / "photos/train/blue/0.png").rename(place / "photos/train/blue/again.png")
    make_recipe_file(place / "small.toml", "save_every = 2\n")
    return place


def words(place: Path, out: Path, optimizer: str = "sgd") -> list[object]:
    return [
        *("classify", "--data", place / "photos", "--recipe", place / "small.toml"),
        *("--batch-size", "7", "--set", "mixup=0", "--set", "grad_clip=1.0", "--out", out),
        *("--set", f"optimizer={optimizer}", "--lr", "0.1" if optimizer == "sgd" else "2e-3"),
    ]


@pytest.mark.parametrize(("optimizer", "count"), [("sgd", 2), ("adamw", 3)])
def test_several_processes_end_where_one_does(
    optimizer: str, count: int, place: Path, tmp_path: Path
) -> None:
    """The same weights to 1e-5, every validation photo counted once, one set of files.

    With Adam the biases of the keys are left out: softmax does not see them, their gradients are
    rounding errors, and Adam makes steps of any gradient (measured: 6e-5 apart, all others 1e-6).
    """
    runs = {number: tmp_path / str(number) for number in (1, count)}
    for number, out in runs.items():
        done = call(*words(place, out, optimizer), processes=number)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("epoch   1") == 1
    one, several = (
        minivit.load_model(runs[number] / "last.safetensors").state_dict() for number in runs
    )
    if optimizer == "adamw":
        for name in one:
            if name.endswith("qkv.bias"):
                dim = len(one[name]) // 3
                several[name][dim : 2 * dim] = one[name][dim : 2 * dim]
    worst = max((several[name] - one[name]).abs().max().item() for name in one)
    assert worst < 1e-5
    rows = []
    for out in runs.values():
        with (out / "metrics.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
    for found, expected in zip(*rows, strict=True):
        assert found["val_accuracy"] == expected["val_accuracy"]
        for key in ("train_loss", "val_loss"):
            assert float(found[key]) == pytest.approx(float(expected[key]), rel=1e-4)
    names = [{path.name for path in out.iterdir()} for out in runs.values()]
    assert names[0] == names[1]


def test_the_first_process_fits_the_steps_of_all_to_minutes(place: Path, tmp_path: Path) -> None:
    """Both make the same number of steps, or one would wait for the other forever."""
    out = tmp_path / "run"
    done = call(*words(place, out), "--minutes", "2", "--set", "patience=1", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("--minutes 2: ") == 1
    recorded = read_recipe(str(out / "recipe.toml"))
    assert recorded["epochs"] == -(-recorded["steps"] // 6) > 3  # 42 photos, 7 a step
    refused = call(*words(place, tmp_path / "no"), "--minutes", "0.01", processes=2)
    assert refused.returncode != 0 and "error: --minutes 0.01: " in refused.stderr
    assert not (tmp_path / "no").exists()


ENDS = """
import os
from pathlib import Path
import torch
from minivit.training.distributed import processes
from torch.nn.parallel import DistributedDataParallel

def train(team):
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    model.itself = [model]  # as a trainer's hooks make one
    model(torch.ones(2, 3)).sum().backward()
    assert team.total(torch.ones(1)) == 2

def threads():
    return {(each / "comm").read_text().strip() for each in Path("/proc/self/task").iterdir()}

with processes(torch.device("cpu")) as team:
    train(team)
    assert any("gloo" in name for name in threads()), threads()
assert not any("gloo" in name for name in threads()), threads()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names in Linux")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that did would abort a process that has done its work, now and then."""
    (tmp_path / "ends.py").write_text(ENDS)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*start, tmp_path / "ends.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment() | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def children(process: int) -> list[int]:
    """The processes that a process started, by /proc."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def test_a_process_that_dies_ends_the_run(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    start = subprocess.Popen(
        command(*words(place, out), "--epochs", "2000", processes=2),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (out / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (out / "state.pt").exists()
    workers = children(start.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, errors = start.communicate(timeout=90)
    assert start.returncode != 0, errors[-2000:]


def test_each_sample_is_evaluated_by_one_process() -> None:
    for count in (1, 2, 3, 7):
        teams = [Processes(rank, count, torch.device("cpu")) for rank in range(count)]
        found = sorted(index for team in teams for index in team.shard(10))
        assert found == list(range(10))


def test_alone_everything_is_ones_own() -> None:
    alone = Processes(0, 1, torch.device("cpu"))
    values = torch.ones(3)
    assert alone.is_first and alone.total(values) is values and alone.agree("this") == "this"
