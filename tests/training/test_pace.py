"""How long steps take, and that those that become several times slower are told of once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from minivit.training.pace import FIRST, RECENT, WARM_UP, Pace, duration, typical_seconds


def with_clock(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> Pace:
    """A pace whose steps take so many seconds."""

    def clock() -> Iterator[float]:
        now = 0.0
        yield now
        for each in seconds:
            now += each
            yield now

    times = clock()
    monkeypatch.setattr("minivit.training.pace.time.perf_counter", lambda: next(times))
    return Pace()


def told(monkeypatch: pytest.MonkeyPatch, seconds: Sequence[float]) -> dict[int, float]:
    """What is told after which step, of steps that take so many seconds."""
    pace = with_clock(monkeypatch, seconds)
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


def test_the_first_steps_are_measured_without_those_that_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = with_clock(monkeypatch, [9.0] * WARM_UP + [1.0, 3.0] * (FIRST // 2) + [50.0] * 20)
    seen = []
    for _ in range(WARM_UP + FIRST + 20):
        pace.step()
        seen.append((pace.steps, pace.first))
    assert seen[WARM_UP + FIRST - 2 :] == [
        (WARM_UP + FIRST - 1, None),
        *((WARM_UP + FIRST + more, 2.0) for more in range(21)),
    ]


@pytest.mark.parametrize(
    "times",
    [
        [2.0],
        [2.0] * 3 + [60.0] + [2.0] * 17,  # a validation, or another program
        [8.0, 0.0, 0.0, 0.0] * 5,  # four processes that open photos: a wait, then four at once
        [0.0, 4.0] * 10,
    ],
)
def test_a_typical_step_counts_waits_for_data_and_no_pauses(times: list[float]) -> None:
    assert typical_seconds(times) == 2.0


def test_durations_are_as_long_as_one_says_them() -> None:
    assert [duration(seconds) for seconds in (0.2, 40.4, 89, 91, 400, 5399, 9000)] == [
        "1 s", "40 s", "89 s", "2 min", "7 min", "90 min", "2.5 h"
    ]  # fmt: skip
