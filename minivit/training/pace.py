"""Whether steps have become much slower than they were at first."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

FIRST, RECENT = 20, 20  # steps that are measured; the very first are left out, they warm up
WARM_UP = 3
MUCH_SLOWER = 3.0


class Pace:
    """Compares recent steps with the first ones, and tells once when they are much slower.

    Two threads on a machine that is busy with something else can be slower than one: each product
    waits for the thread that has to share its core.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=RECENT)
        self._steps = 0
        self._first: float | None = None
        self._told = False
        self._last = time.perf_counter()

    def step(self) -> float | None:
        """Counts a step; the factor by which steps are slower than at first, when it is to be told.

        Medians, so that a pause for validation between two steps does not count.
        """
        now = time.perf_counter()
        took, self._last = now - self._last, now
        self._steps += 1
        if self._steps <= WARM_UP:
            return None
        self._times.append(took)
        if self._steps == WARM_UP + FIRST:
            self._first = median(self._times)
            self._times.clear()
        if self._first is None or self._told or len(self._times) < RECENT:
            return None
        factor = median(self._times) / self._first
        self._told = factor >= MUCH_SLOWER
        return factor if self._told else None
