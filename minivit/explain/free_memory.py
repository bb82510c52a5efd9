"""How much memory is free: for what can be computed with more of it or less, or not at all.

Whoever is about to take much says so before: on a machine whose memory is spent, a process is ended
without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from minivit.vit import VisionTransformer

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


def require_memory(needed: int, device: torch.device, *, what: str, advice: str) -> None:
    """Raises a ValueError where more is needed than is free; nothing where that is not known.

    Args:
        needed: Bytes, about.
        device: Device of the tensors.
        what: What takes them, with which the message begins.
        advice: What to do instead.
    """
    free = free_memory(device)
    if free is not None and needed > free:
        raise ValueError(
            f"{what} would take about {_amount(needed)} of memory, and {_amount(free)} are free: "
            f"{advice}"
        )


def require_room(model: VisionTransformer, images: Tensor, *, copies: float, what: str) -> None:
    """Raises a ValueError unless the weights of a block, so many times, fit into the free memory.

    Args:
        model: Model that would be asked.
        images: (B, C, height, width).
        copies: Number of tensors (B, H, N, N) that are in memory together.
        what: What takes them, with which the message begins.
    """
    require_memory(
        int(copies * bytes_of_weights(model, images)),
        images.device,
        what=what,
        advice="give fewer or smaller pictures at once",
    )


def bytes_of_weights(model: VisionTransformer, images: Tensor) -> int:
    """Bytes of the weights (B, H, N, N) of a block, which are float32 at least."""
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    length = model.num_prefix_tokens + rows * cols
    return len(images) * model.config.num_heads * length**2 * max(4, images.element_size())


def _amount(number: int) -> str:
    return f"{number / 2**30:.3g} GiB" if number >= 2**30 else f"{number / 2**20:.3g} MiB"
