"""What the benchmarks of memory measure with."""

from __future__ import annotations

import subprocess
import sys

import pytest

GROWTH = """
import torch
from benchmarks.peak_memory import growth

MIB = 1024 * 1024 // 4  # numbers of float32
torch.ones(256 * MIB)  # gone again, as the copies are that loading a model makes
print(growth(lambda: torch.ones(64 * MIB), lambda: torch.ones(160 * MIB)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_growth_is_what_the_case_takes_beyond_the_base_whatever_was_taken_before() -> None:
    """In a process of its own, as in the benchmarks: one that has memory to spare does not grow."""
    result = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(96, abs=8)
