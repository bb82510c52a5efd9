"""Makes old_run_classify/ and old_run_caption/: runs that an earlier train.py left half finished.

    git clone --quiet . OLD && git -C OLD checkout --quiet 7d6da73
    python tests/references/make_old_runs.py OLD

Made with Python 3.11, torch 2.13 and numpy 2.4 on a CPU with one thread; commit 7d6da73 is the last
one whose recipes have the keys `warmup`, `clip`, `ema` and `train`. Each run is trained by that
commit's train.py, is killed (SIGKILL) in the middle of its last epoch, and is then resumed by the
same train.py in a copy. Stored are the files as they were when the run was killed, without curves
and tensorboard events, and `finished.safetensors`: the last.safetensors that the old code reached.

The captioner's backbone is the best classifier, by a path relative to this folder: the runs are
made in it, and are to be resumed in a copy of it. The line `system` of environment.toml, which
describes the machine, is left out. This script imports nothing of minivit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
STORED = (
    "recipe.toml",
    "environment.toml",
    "metrics.csv",
    "state.pt",
    "best.safetensors",
    "last.safetensors",
)
RECIPES = {
    "classify": """
about = "for tests: a classifier with the keys of old recipes"
task = "classify"
data = "scenes"
image_size = 16
patch_size = 4
dim = 8
depth = 1
num_heads = 2
num_scenes = 96
token_loss = 1.0
epochs = 1
batch_size = 8
optimizer = "sgd"
lr = 0.05
warmup = 0.25
clip = 0.5
save_every = 5
workers = 0
seed = 3

[[phases]]
train = "head"

[[phases]]
ema = 0.9
epochs = 3
""",
    "caption": """
about = "for tests: a captioner with the keys of old recipes"
task = "caption"
data = "scenes"
weights = "old_run_classify/best.safetensors"
backbone_lr = 0.01
dim = 8
num_heads = 2
hidden_dim = 16
decoder_depth = 1
head_dim = 8
dropout = 0.1
num_scenes = 64
epochs = 3
batch_size = 8
optimizer = "sgd"
lr = 0.1
warmup = 0.1
clip = 0.5
ema = 0.9
train = "all"
save_every = 3
workers = 0
seed = 3
""",
}


def train(clone: Path, task: str, place: Path, *more: str) -> list[str]:
    """The command that trains a run in `place`."""
    recipe = place / f"{task}.toml"
    recipe.write_text(RECIPES[task])
    out = f"old_run_{task}"
    return [sys.executable, str(clone / "train.py"), task, "--recipe", recipe.name, "--out", out,
            *more]  # fmt: skip


def kill_in_last_epoch(
    words: list[str], place: Path, run: Path, environment: dict[str, str]
) -> None:
    """Starts a run and kills it when a state of its last epoch has been saved."""
    process = subprocess.Popen(words, cwd=place, env=environment)
    while process.poll() is None:
        metrics = run / "metrics.csv"
        if metrics.exists() and len(metrics.read_text().splitlines()) == 1 + epochs(run) - 1:
            before = (run / "state.pt").stat().st_mtime_ns
            for _ in range(2):  # the end of that epoch, then some step of the next one
                while (run / "state.pt").stat().st_mtime_ns == before:
                    time.sleep(0.001)
                before = (run / "state.pt").stat().st_mtime_ns
            process.kill()
            process.wait()
            return
        time.sleep(0.001)
    raise SystemExit(f"{run}: ended before it could be killed")


def epochs(run: Path) -> int:
    """Epochs of the whole run."""
    return 4 if run.name == "old_run_classify" else 3


def main(clone: Path) -> None:
    """Makes both."""
    environment = os.environ | {"PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for task in RECIPES:
            run, target = place / f"old_run_{task}", HERE / f"old_run_{task}"
            kill_in_last_epoch(train(clone, task, place), place, run, environment)
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            for file in STORED:
                shutil.copyfile(run / file, target / file)
            resume = train(clone, task, place, "--resume")
            subprocess.run(resume, cwd=place, env=environment, check=True)
            shutil.copyfile(run / "last.safetensors", target / "finished.safetensors")
            # The captioner is to start from the classifier that is stored.
            shutil.copyfile(target / "best.safetensors", run / "best.safetensors")
            lines = (target / "environment.toml").read_text().splitlines(keepends=True)
            kept = [line for line in lines if not line.startswith("system = ")]
            (target / "environment.toml").write_text("".join(kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
