"""How long steps take, and whether they have become much slower than they were at first."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from statistics import fmean, median

FIRST, RECENT = 20, 20  # steps that are measured; the very first are left out, they warm up
WARM_UP = 3
FIRST_STEPS = WARM_UP + FIRST  # after which the pace is known
MUCH_SLOWER = 3.0
_GROUP = 4


def typical_seconds(times: Sequence[float]) -> float:
    """Seconds of a step: the median of the means of four neighbours.

    The means, because processes that open photos have several batches ready at a time, so that a
    step that waits is followed by some that do not; the median, because of what is no part of a
    step: a validation in between, or something else that the machine does.

    Args:
        times: Seconds of each step, in order.
    """
    groups = [times[start : start + _GROUP] for start in range(0, len(times), _GROUP)]
    return median(map(fmean, groups))


class Pace:
    """Compares recent steps with the first ones, and tells once when they are much slower.

    Two threads on a machine that is busy with something else can be slower than one: each product
    waits for the thread that has to share its core.

    Attributes:
        steps: Number of steps so far.
        first: Seconds of one of the first steps, once they are measured.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.first: float | None = None
        self._times: deque[float] = deque(maxlen=RECENT)
        self._told = False
        self._last = time.perf_counter()

    def step(self) -> float | None:
        """Counts a step; the factor by which steps are slower than at first, when it is to be told.

        A pause for validation between two steps does not count; see `typical_seconds`.
        """
        now = time.perf_counter()
        took, self._last = now - self._last, now
        self.steps += 1
        if self.steps <= WARM_UP:
            return None
        self._times.append(took)
        if self.steps == FIRST_STEPS:
            self.first = typical_seconds(list(self._times))
            self._times.clear()
        if self.first is None or self._told or len(self._times) < RECENT:
            return None
        factor = typical_seconds(list(self._times)) / self.first
        self._told = factor >= MUCH_SLOWER
        return factor if self._told else None


def duration(seconds: float) -> str:
    """A time to read: "40 s", "6 min" or "2.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
