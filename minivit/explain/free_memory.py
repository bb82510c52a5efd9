"""How much memory is free, for what can be computed with more of it or with less."""

from __future__ import annotations

import re
from pathlib import Path

import torch

MEMORY_INFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes that a computation may take on a device; None where the system does not say.

    On a CPU it is what Linux calls available, or what is left of the limit of this process's
    container (cgroup, version 2) where that is less.

    Args:
        device: Device of the tensors.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        text = MEMORY_INFO.read_text(encoding="ascii")
    except OSError:  # another system than Linux
        return None
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    if available is None:
        return None
    free = 1024 * int(available[1])
    try:
        limit, used = (
            (GROUP / f"memory.{name}").read_text(encoding="ascii").strip()
            for name in ("max", "current")
        )
    except OSError:  # no container
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
