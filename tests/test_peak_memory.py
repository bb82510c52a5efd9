"""What the benchmarks of memory measure with."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.peak_memory import growth

MIB = 1024 * 1024 // 4  # numbers of float32


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_growth_is_what_the_case_takes_beyond_the_base_whatever_was_taken_before() -> None:
    torch.ones(256 * MIB)  # gone again, as the copies are that loading a model makes
    grown = growth(lambda: torch.ones(64 * MIB), lambda: torch.ones(160 * MIB))
    assert grown == pytest.approx(96, abs=8)
