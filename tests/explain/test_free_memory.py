"""Free memory is read from what Linux writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minivit.explain import free_memory


def test_free_memory_is_what_linux_says_or_what_the_container_has_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   3000 kB\nCached: 1 kB\n")
    monkeypatch.setattr(free_memory, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(free_memory, "GROUP", tmp_path)
    assert free_memory.free_memory(cpu) == 3000 * 1024
    (tmp_path / "memory.current").write_text("500\n")
    for limit, free in (("max\n", 3000 * 1024), ("2500\n", 2000), ("100\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert free_memory.free_memory(cpu) == free
    monkeypatch.setattr(free_memory, "MEMORY_INFO", tmp_path / "none")
    assert free_memory.free_memory(cpu) is None
    assert free_memory.free_memory(torch.device("meta")) is None
