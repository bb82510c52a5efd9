"""A folder of small made-up photos, a recipe that fits it, and train.py as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]

RECIPE = """
about = "for tests"
task = "classify"
image_size = 32
patch_size = 8
dim = 32
depth = 2
num_heads = 2
epochs = 3
batch_size = 8
optimizer = "adamw"
lr = 2e-3
weight_decay = 0.05
warmup_share = 0.1
crop_scale = [0.6, 1.0]
flip = 0.5
brightness = 0.3
mixup = 0.2
workers = 1
"""


def make_photos(folder: Path, *, per_class: int = 14) -> Path:
    """Reddish, greenish and bluish noise of 3:2, in train/ and val/, one folder a class.

    Returns:
        The folder.
    """
    rng = np.random.default_rng(0)
    for split, number in (("train", per_class), ("val", 5)):
        for channel, name in enumerate(("red things", "green", "blue")):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 150, (40, 60, 3))
                pixels[..., channel] += 60
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")
    return folder


def make_recipe_file(path: Path, more: str = "") -> Path:
    """Writes the recipe, with further lines."""
    path.write_text(RECIPE + more)
    return path


def command(*words: object, processes: int = 1) -> list[str]:
    """train.py with these words, by one process or by several of torchrun's."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*start, "train.py", *map(str, words)]


def environment() -> dict[str, str]:
    """One thread a process, as torchrun has it too, and sockets on this machine alone."""
    return os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def call(
    *words: object, processes: int = 1, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs it to the end."""
    return subprocess.run(
        command(*words, processes=processes),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start(*words: object, processes: int = 1) -> subprocess.Popen[str]:
    """Starts it in a session of its own."""
    return subprocess.Popen(
        command(*words, processes=processes),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits until it holds, as long as the process is at work."""
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()
