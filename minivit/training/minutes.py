"""A schedule that fits into a time on this machine: `train.py --minutes N`.

::

    N minutes = what has passed + Σ (start + steps · step + epochs · validation) + report

Some steps of each phase are made on a copy of the model, which is then thrown away, and the numbers
of steps and epochs that fit replace those of the recipe: warm-up and decay follow, since they are
shares of the steps. The recipe that results is an ordinary one. It knows nothing of minutes, so
that it repeats the run on any machine.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from minivit.training.distributed import Processes
from minivit.training.evaluation import evaluate
from minivit.training.loop import Trainer
from minivit.training.pace import FIRST_STEPS, WARM_UP, typical_seconds
from minivit.training.recipes import Recipe
from minivit.training.settings import Settings
from minivit.training.task import Data, Piece, Plan

_LEAST, _MOST = 0.02, 0.1  # shares of the time that measuring may take, all phases together
_VALIDATIONS = 4  # batches, a process, by which the validation is measured
FILES = 0.5  # seconds of the checkpoint and the curves after each epoch

SomeRecipe = TypeVar("SomeRecipe", bound=Recipe)


class Cost(NamedTuple):
    """Seconds of the parts of a phase.

    Attributes:
        start: What the first steps take longer than others: they start processes, or compile.
        step: A step, the loading of its samples included.
        epoch: Everything between two epochs: the validation, and the files that are written.
    """

    start: float
    step: float
    epoch: float


@dataclasses.dataclass(frozen=True)
class _Part:
    """The first samples of some data."""

    data: Data
    length: int

    def __len__(self) -> int:
        return self.length

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[Any]:
        return self.data.load(epoch, pieces)


def measure(plan: Plan, settings: Settings, processes: Processes, *, seconds: float) -> Cost:
    """Trains a copy of the model for some steps, and validates it on some samples.

    Args:
        plan: Plan of the run; its model stays as it is.
        settings: Settings of a phase.
        processes: This process and the others; all of them have to call.
        seconds: Time that the run may take. Measuring goes on for a fiftieth of it and stops at a
            tenth, however few the steps.
    """
    trainer = Trainer(
        copy.deepcopy(plan.task).to(processes.device),
        plan.train,
        _Part(plan.validation, 0),
        [dataclasses.replace(settings, epochs=1_000_000, steps=0, patience=0)],
        processes=processes,
    )
    clock = [time.perf_counter()]

    def on_step(_loss: float) -> None:
        clock.append(time.perf_counter())
        steps, taken = len(clock) - 1, clock[-1] - clock[0]
        enough = steps >= FIRST_STEPS and taken >= _LEAST * seconds
        too_long = steps >= 2 and taken >= _MOST * seconds
        if processes.agree(enough or too_long):
            trainer.stop()

    trainer.on_step = on_step
    for _ in trainer.run():
        pass
    times = [after - before for before, after in itertools.pairwise(clock)]
    warm_up = min(WARM_UP, len(times) - 1)
    step = typical_seconds(times[warm_up:])

    batch = plan.evaluation_batch
    part = _Part(plan.validation, min(len(plan.validation), _VALIDATIONS * batch * processes.count))
    start = time.perf_counter()
    evaluate(trainer.task, trainer.model, part, processes=processes, batch_size=batch)
    validation = (time.perf_counter() - start) * len(plan.validation) / max(1, len(part))
    return Cost(max(0.0, sum(times[:warm_up]) - warm_up * step), step, validation + FILES)


def fitting_steps(
    num_steps: Sequence[int], epoch_steps: Sequence[int], costs: Sequence[Cost], seconds: float
) -> list[int]:
    """The steps of each phase that fit into a time: all phases by one factor.

    Args:
        num_steps: Steps of each phase as the recipe has it.
        epoch_steps: Steps of one epoch in each phase.
        costs: Costs of each phase.
        seconds: Time for all phases.

    Returns:
        At least one step a phase, also where the time is not enough for it.
    """
    phases = list(zip(num_steps, epoch_steps, costs, strict=True))
    fixed = sum(cost.start + cost.epoch for cost in costs)  # the last epoch may be a short one
    whole = sum(steps * (cost.step + cost.epoch / epoch) for steps, epoch, cost in phases)
    return [max(1, int(steps * (seconds - fixed) / whole)) for steps in num_steps]


def fit_to_minutes(
    recipe: SomeRecipe, plan: Plan, processes: Processes, *, minutes: float, start: float
) -> SomeRecipe:
    """The recipe with as many steps as end, report included, in about so many minutes.

    Args:
        recipe: Recipe of the run.
        plan: Its plan; model and data stay as they are.
        processes: This process and the others; the first decides for all.
        minutes: Minutes from `start` to the end.
        start: Time of `time.perf_counter` at which the command began.

    Raises:
        ValueError: Not one step fits.
    """
    phases = recipe.settings_of_phases()
    costs = [
        measure(plan, phase, processes, seconds=60 * minutes / len(phases)) for phase in phases
    ]
    validation = max(cost.epoch for cost in costs)
    report = plan.report_seconds + plan.report_validations * validation
    passed = time.perf_counter() - start
    left = processes.agree(60 * minutes - passed - report)
    costs = processes.agree(costs)
    least = sum(cost.start + cost.step + cost.epoch for cost in costs)
    if left < least:
        needed = math.ceil((60 * minutes - left + least) / 6) / 10
        raise ValueError(
            f"--minutes {minutes:g}: data, measuring, validation and report take {needed:g} "
            "minutes here without any training: give more minutes, or use fewer samples (--limit)"
        )
    epoch_steps = [math.ceil(len(plan.train) / phase.batch_size) for phase in phases]
    before = [phase.num_steps(each) for phase, each in zip(phases, epoch_steps, strict=True)]
    after = fitting_steps(before, epoch_steps, costs, left)
    schedule = [
        _schedule(phase, steps, each, steps / all_steps)
        for phase, steps, each, all_steps in zip(phases, after, epoch_steps, before, strict=True)
    ]
    if not recipe.phases:
        return dataclasses.replace(recipe, **schedule[0])
    return _with_phases(recipe, schedule)


def _schedule(settings: Settings, steps: int, epoch_steps: int, factor: float) -> dict[str, Any]:
    """The keys of a phase with so many steps."""
    keys: dict[str, Any] = {"epochs": math.ceil(steps / epoch_steps), "steps": steps}
    if settings.schedule == "step":  # counts in epochs, which get more or fewer
        keys["lr_drop"] = max(1, round(settings.lr_drop * factor))
    return keys


def with_schedule_of(recipe: SomeRecipe, saved: Mapping[str, Any]) -> SomeRecipe:
    """A recipe with the schedule of a run that was fitted to a time; of other runs as it is.

    Args:
        recipe: Recipe as the command line has it.
        saved: Table of the recipe in the run folder.
    """
    tables = saved.get("phases", [])
    if not any("steps" in table for table in (saved, *tables)):
        return recipe
    if len(tables) != len(recipe.phases):  # another recipe, which the run folder will refuse
        return recipe
    if not tables:
        return dataclasses.replace(recipe, **_keys_of_schedule(saved))
    return _with_phases(recipe, [_keys_of_schedule({**saved, **table}) for table in tables])


def _keys_of_schedule(table: Mapping[str, Any]) -> dict[str, Any]:
    names = ("epochs", "steps", *(["lr_drop"] if table.get("schedule") == "step" else []))
    return {name: table[name] for name in names if name in table}


def _with_phases(recipe: SomeRecipe, schedule: Sequence[Mapping[str, Any]]) -> SomeRecipe:
    phases = tuple({**old, **new} for old, new in zip(recipe.phases, schedule, strict=True))
    return dataclasses.replace(recipe, phases=phases)
