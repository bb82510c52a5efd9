"""Steps that become several times slower are told of once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from minivit.training.pace import FIRST, RECENT, WARM_UP, Pace


def told(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> dict[int, float]:
    """What is told after which step, of steps that take so many seconds."""

    def clock() -> Iterator[float]:
        now = 0.0
        yield now
        for each in seconds:
            now += each
            yield now

    times = clock()
    monkeypatch.setattr("minivit.training.pace.time.perf_counter", lambda: next(times))
    pace = Pace()
    answers = {number: pace.step() for number in range(1, len(seconds) + 1)}
    return {number: factor for number, factor in answers.items() if factor is not None}


def test_a_machine_that_becomes_busy_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = [9.0] * WARM_UP + [1.0] * (FIRST + 50)
    answers = told(monkeypatch, quiet + [4.0] * 200)
    [(step, factor)] = answers.items()
    assert 3 <= factor <= 4
    assert len(quiet) < step <= len(quiet) + RECENT


@pytest.mark.parametrize(
    "seconds",
    [
        [9.0] * WARM_UP + [1.0] * 500,
        [9.0] * WARM_UP + [1.0] * FIRST + [2.5] * 500,
        [9.0] * WARM_UP + [1.0] * FIRST + ([1.0] * 15 + [60.0]) * 30,  # a validation now and then
        [9.0] * WARM_UP + [1.0] * 10,
    ],
)
def test_other_runs_hear_nothing(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    assert told(monkeypatch, seconds) == {}
