"""Peak memory of a case beyond another's, in a process of its own (Linux)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_PROCESS = Path("/proc/self")


def of_own_process(words: Sequence[str]) -> float:
    """The number that `python -m words…` prints last; its freed tensors go back to the system."""
    own_pages = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=os.environ | own_pages,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def growth(base: Callable[[], object], case: Callable[[], object]) -> float:
    """MiB by which the peak grows from two calls of `base` to one of `case`.

    What came before counts for nothing: a model that was loaded can have taken more than a pass.
    """
    (_PROCESS / "clear_refs").write_text("5", encoding="ascii")  # the peak is now what is in use
    for _ in range(2):
        base()
    before = _peak()
    case()
    return (_peak() - before) / 1024


def _peak() -> int:
    """KiB, the most that this process has had in memory."""
    status = (_PROCESS / "status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
