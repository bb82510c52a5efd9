"""Timing in turns: every case meets the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def take_turns(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each case in each round; the order is reversed every other round."""
    for _ in range(2):
        for case in cases.values():
            case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases) if number % 2 else list(reversed(cases)):
            start = time.perf_counter()
            cases[name]()
            times[name].append(time.perf_counter() - start)
    return times
