"""--minutes: what steps cost, how many fit, and that the run which results is an ordinary one."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minivit
import train
from minivit.training.classify.task import ClassificationTask
from minivit.training.data_digest import photo_digest
from minivit.training.loop import Trainer
from minivit.training.minutes import (
    FILES,
    Cost,
    fit_to_minutes,
    fitting_steps,
    measure,
    with_schedule_of,
)
from minivit.training.pace import FIRST_STEPS
from minivit.training.recipe_toml import read_recipe
from minivit.training.recipes import ClassifyRecipe
from minivit.training.task import Data, Piece, Plan, Report
from tests.training.photo_runs import make_photos, make_recipe_file
from tests.training.tasks import ALONE, SETTINGS, bright_side, small_model

# ---- what fits -----------------------------------------------------------------------------------

PHASE = st.tuples(st.integers(20, 5000), st.integers(1, 700))
COST = st.builds(Cost, st.floats(0, 5), st.floats(0.001, 2), st.floats(0, 20))


@given(st.lists(st.tuples(PHASE, COST), min_size=1, max_size=3), st.floats(1.05, 30))
def test_the_steps_fit_and_use_the_time(
    phases: list[tuple[tuple[int, int], Cost]], times: float
) -> None:
    """All by one factor; what is left over is less than a step and an epoch's end of each."""
    num_steps, epoch_steps = ([phase[i] for phase, _ in phases] for i in range(2))
    costs = [cost for _, cost in phases]
    fixed = sum(cost.start + cost.step + cost.epoch for cost in costs)
    whole = sum(n * c.step for n, c in zip(num_steps, costs, strict=True))
    seconds = fixed + times * whole / 20
    steps = fitting_steps(num_steps, epoch_steps, costs, seconds)

    def total(steps: Sequence[int]) -> float:
        each = zip(steps, epoch_steps, costs, strict=True)
        return sum(c.start + n * c.step + -(-n // epoch) * c.epoch for n, epoch, c in each)

    one_step = sum(cost.step for cost in costs)  # a phase that would have none has one
    assert total(steps) <= seconds + one_step + 1e-6
    if min(steps) > 1:
        assert total(steps) <= seconds + 1e-6
        slack = sum(c.step * 2 + c.epoch for c in costs)
        assert total([n + 1 for n in steps]) + slack >= seconds
        factors = [n / before for n, before in zip(steps, num_steps, strict=True)]
        assert max(factors) - min(factors) <= 1 / min(num_steps) + 1e-9


# ---- what it costs -------------------------------------------------------------------------------


class Clock:
    """Stands for `time.perf_counter`: time passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("minivit.training.minutes.time.perf_counter", clock)
    return clock


@dataclasses.dataclass
class Slow:
    """Data whose batches take a while to load; the first of all takes longer."""

    data: Data
    seconds: float
    clock: Clock
    first: float = 0.0
    loaded: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[Any]:
        for batch in self.data.load(epoch, pieces):
            self.clock.now += self.seconds + self.first
            self.first = 0.0
            self.loaded += 1
            yield batch


def plan(
    clock: Clock,
    *,
    samples: int = 72,
    step: float,
    first: float = 0.0,
    validation: float = 0.0,
    report: tuple[float, float] = (0.0, 0.0),
) -> Plan:
    """A small task whose batches take so many seconds; the validation has six."""

    def no_report(_folder: Path, _device: torch.device) -> Report:
        raise AssertionError("nothing is reported here")

    return Plan(
        task=ClassificationTask(small_model()),
        train=Slow(bright_side(samples, seed=1), step, clock, first),
        validation=Slow(bright_side(60, seed=2), validation, clock),
        digest=photo_digest(["dark", "bright"], train=[("a", 0)], validation=[("b", 1)]),
        lines=[],
        axes=("", ""),
        report=no_report,
        evaluation_batch=10,
        report_seconds=report[0],
        report_validations=report[1],
    )


def test_loading_and_validation_are_counted_and_nothing_is_changed(clock: Clock) -> None:
    """Also where the run has fewer steps than are measured; by four batches of six."""
    made = plan(clock, step=0.5, first=4.0, validation=2.0)
    before = {name: value.clone() for name, value in made.task.state_dict().items()}
    settings = dataclasses.replace(SETTINGS, epochs=1, steps=2)
    cost = measure(made, settings, ALONE, seconds=300.0)
    assert cost == pytest.approx((4.0, 0.5, 12.0 + FILES))
    after = made.task.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(each.grad is None for each in made.task.parameters())


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        (1000.0, 23),  # those that warm up, and twenty
        (2500.0, 50),  # a fiftieth of the time
        (100.0, 10),  # a tenth of the time
        (1.0, 2),  # one that warms up, and one
    ],
)
def test_measuring_takes_a_small_share_of_the_time(
    seconds: float, steps: int, clock: Clock
) -> None:
    made = plan(clock, step=1.0)
    assert measure(made, SETTINGS, ALONE, seconds=seconds).step == 1.0
    assert isinstance(made.train, Slow) and made.train.loaded == steps


def recipe(**values: Any) -> ClassifyRecipe:
    return ClassifyRecipe(**({"epochs": 2, "batch_size": 16, "lr": 1e-3} | values))


def fitted(clock: Clock, made: Plan, recipe: ClassifyRecipe, minutes: float) -> ClassifyRecipe:
    clock.now += 30.0  # for imports and data
    return fit_to_minutes(recipe, made, ALONE, minutes=minutes, start=clock.now - 30.0)


def test_a_longer_time_has_more_epochs_and_a_shorter_one_a_part_of_one(clock: Clock) -> None:
    """What has passed, the measuring, validations and the report are all taken off."""
    asked = recipe(warmup_share=0.1)
    made = plan(clock, samples=720, step=1.0, validation=1.0, report=(50.0, 2.0))  # 45 steps
    longer = fitted(clock, made, asked, 10.0)
    measuring, validation, report = 23 + 4, 6 + FILES, 50 + 2 * (6 + FILES)
    left = 600 - 30 - measuring - report
    assert longer.epochs == -(-longer.steps // 45) > 2
    assert left - validation - 2 <= longer.steps + longer.epochs * validation <= left
    assert dataclasses.replace(longer, epochs=2, steps=0) == asked

    shorter = fitted(clock, made, asked, 2.7)
    assert shorter.epochs == 1 and 10 < shorter.steps < 45


def test_phases_are_shortened_by_one_factor_and_drops_of_the_rate_move(clock: Clock) -> None:
    phases = ({"epochs": 40, "schedule": "step", "lr_drop": 20}, {"epochs": 80})
    result = fitted(clock, plan(clock, step=1.0), recipe(phases=phases), 7.0)
    first, second = result.settings_of_phases()
    assert second.steps == pytest.approx(2 * first.steps, abs=2) and first.steps > 50
    assert first.lr_drop == round(20 * first.steps / 200) < 20
    assert set(result.phases[1]) == {"epochs", "steps"} and result.steps == 0


def test_a_time_in_which_nothing_fits_is_refused_with_what_is_needed(clock: Clock) -> None:
    made = plan(clock, step=1.0, report=(60.0, 0.0))
    needed = r"^--minutes 1: .* take 1\.[6-9] minutes here without any training: .*--limit"
    with pytest.raises(ValueError, match=needed):
        fitted(clock, made, recipe(), 1.0)


# ---- the run that results ------------------------------------------------------------------------


def test_a_run_that_goes_on_has_the_schedule_that_it_began_with() -> None:
    now = recipe(schedule="step", lr_drop=9)
    saved = recipe(schedule="step", lr_drop=4, epochs=7, steps=33)
    assert with_schedule_of(now, saved.to_dict()) == saved
    assert with_schedule_of(now, recipe(epochs=7).to_dict()) is now
    phases = recipe(phases=({"lr": 0.1}, {"lr": 0.2, "epochs": 5}))
    saved = recipe(
        phases=({"lr": 0.1, "epochs": 1, "steps": 4}, {"lr": 0.2, "epochs": 9, "steps": 41})
    )
    assert with_schedule_of(phases, saved.to_dict()) == saved
    assert with_schedule_of(now, saved.to_dict()) is now


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("minutes")
    recipe = make_recipe_file(place / "small.toml")
    return ["classify", "--data", str(make_photos(place / "photos")), "--recipe", str(recipe),
            "--workers", "0"]  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    return minivit.load_model(run / "last.safetensors").state_dict()


def test_the_recipe_of_the_run_repeats_it_and_knows_nothing_of_minutes(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    start = time.perf_counter()
    assert train.main([*words, "--minutes", "0.2", "--out", str(run)]) == 0
    assert 3 < time.perf_counter() - start < 60  # 12 s were asked for; a machine may be busy
    recorded = read_recipe(str(run / "recipe.toml"))
    steps = recorded["steps"]
    printed = capsys.readouterr().out
    assert f"--minutes 0.2: {steps:,} steps in {recorded['epochs']} epochs" in printed
    assert "minutes" not in recorded
    if steps > FIRST_STEPS:  # a very busy machine makes fewer
        pattern = r"training takes about \d+ s on this machine: [\d,]+ steps to go, [\d.]+ a second"
        assert re.search(pattern + "; Ctrl-C stops it early and keeps what was learned\n", printed)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + recorded["epochs"]
    assert train.main(["--recipe", str(run / "recipe.toml"), "--out", str(again)]) == 0
    one, other = weights(run), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (run / "recipe.toml").read_text() == (again / "recipe.toml").read_text()


def test_a_resumed_run_is_not_measured_again(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in its first epoch; with --minutes, another number of them, or without."""
    run = tmp_path / "run"
    flags = ["--minutes", "0.2", "--out", str(run)]
    run_step = Trainer._run_step

    def stop_after_four(trainer: Trainer, batches: Any) -> None:
        run_step(trainer, batches)
        if trainer.step == 4 and trainer.num_steps < 1_000_000:  # the run, not what is measured
            trainer.stop()

    monkeypatch.setattr(Trainer, "_run_step", stop_after_four)
    assert train.main([*words, *flags]) == 130
    monkeypatch.setattr(Trainer, "_run_step", run_step)
    text = (run / "recipe.toml").read_text()
    steps = read_recipe(str(run / "recipe.toml"))["steps"]
    capsys.readouterr()
    again = ["--resume", "--out", str(run)]
    assert train.main([*words, *again, "--epochs", "2"]) == 2
    assert "epochs was " in capsys.readouterr().err
    monkeypatch.setattr("minivit.training.minutes.measure", None)
    assert train.main([*words, *again, "--minutes", "7"]) == 0
    printed = capsys.readouterr().out
    assert "--minutes 7: the run goes on with the steps that it began with" in printed
    assert f"resumed after step 4 of {steps:,}" in printed
    assert (run / "recipe.toml").read_text() == text
    assert train.main([*words, *again]) == 0  # without --minutes: finished, and not another run
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--epochs", "3"], "chooses the epochs and steps, and epochs 3 is given too"),
        (["--set", "steps=9"], "chooses the epochs and steps, and steps 9 is given too"),
    ],
)
def test_a_number_of_epochs_beside_minutes_is_a_contradiction(
    flags: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--minutes", "5", *flags, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: --minutes 5 {line}: leave out one of the two\n", error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        train.main([f"--minutes={minutes}"])
    assert exit_.value.code == 2 and "--minutes" in capsys.readouterr().err
