"""The settings refuse what is not possible, and the learning rate follows its formula."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.training.settings import Settings, rate_share


def settings(**values: Any) -> Settings:
    return Settings(**({"epochs": 4, "batch_size": 8, "lr": 0.1} | values))


def shares(steps_per_epoch: int, chosen: Settings) -> list[float]:
    """Of every step."""
    steps = range(chosen.epochs * steps_per_epoch)
    return [rate_share(step, steps_per_epoch, chosen) for step in steps]


# ---- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "epochs": (0, -1),
    "batch_size": (0, -8),
    "accumulate": (0,),
    "lr_drop": (0,),
    "save_every": (0,),
    "patience": (-1,),
    "seed": (-1,),
    "lr": (0.0, -0.1, math.inf, math.nan),
    "weight_decay": (-1e-9, math.inf, math.nan),
    "clip": (-1.0, math.inf, math.nan),
    "momentum": (-0.1, 1.0, math.nan),
    "beta2": (-0.1, 1.0, math.nan),
    "label_smoothing": (-0.1, 1.0, math.nan),
    "ema": (-0.1, 1.0, math.nan),
    "warmup": (-0.01, 1.01, math.nan),
    "layer_decay": (0.0, 1.1, math.nan),
}
CHOICES = {
    "optimizer": "sgd, adam, adamw, muon",
    "schedule": "cosine, step, constant",
    "precision": "fp32, bf16",
    "train": "all, head",
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_an_impossible_number_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is {value}, expected "):
        settings(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
def test_a_word_that_is_none_of_the_choices_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is 'other': choose from {CHOICES[name]}$"):
        settings(**{name: "other"})


def test_every_number_and_choice_is_checked() -> None:
    """A field that is added needs a check too."""
    free = {"decay_all", "compile", "gradient_checkpointing"}  # true or false
    names = {field.name for field in dataclasses.fields(Settings)}
    assert names == set(REFUSED) | set(CHOICES) | free


def test_the_ends_of_the_ranges_are_possible() -> None:
    settings(epochs=1, batch_size=1, warmup=0.0, momentum=0.0, ema=0.0, clip=0.0, patience=0)
    settings(warmup=1.0, layer_decay=1.0, label_smoothing=0.0, beta2=0.0, weight_decay=0.0)


# ---- the rate ------------------------------------------------------------------------------------


def test_a_warm_up_and_then_a_cosine() -> None:
    found = shares(50, settings(epochs=2, warmup=0.1))
    assert found[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert found[10:] == pytest.approx(
        [math.cos(math.pi / 2 * step / 90) ** 2 for step in range(90)]
    )
    assert found[55] == pytest.approx(0.5) and found[99] < 0.001


def test_a_tenth_at_each_step_of_the_schedule() -> None:
    """CATR: the epochs count from the beginning, the warm-up among them."""
    chosen = settings(epochs=7, schedule="step", lr_drop=3)
    assert shares(2, chosen) == pytest.approx([1] * 6 + [0.1] * 6 + [0.01] * 2)
    warm = dataclasses.replace(chosen, warmup=2 / 7)  # four of fourteen steps
    expected = [0.25, 0.5, 0.75, 1, 1, 1] + [0.1] * 6 + [0.01] * 2
    assert shares(2, warm) == pytest.approx(expected)


def test_constant_after_the_warm_up() -> None:
    found = shares(5, settings(schedule="constant", warmup=0.2))
    assert found == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 17)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_the_only_step_of_a_run_moves(schedule: str, warmup: float) -> None:
    assert shares(1, settings(epochs=1, schedule=schedule, warmup=warmup)) == [1.0]


def test_all_of_a_run_may_be_warm_up() -> None:
    found = shares(5, settings(epochs=2, warmup=1.0))
    assert found == pytest.approx([step / 10 for step in range(1, 11)])


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.sampled_from(["cosine", "step", "constant"]),
    st.floats(0, 1),
    st.integers(1, 5),
)
def test_the_rate_rises_once_never_above_the_highest_and_is_never_nothing(
    epochs: int, steps: int, schedule: str, warmup: float, lr_drop: int
) -> None:
    chosen = settings(epochs=epochs, schedule=schedule, warmup=warmup, lr_drop=lr_drop)
    found = shares(steps, chosen)
    assert all(0 < share <= 1 for share in found)
    top = min(max(1, round(warmup * len(found))), len(found)) - 1
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    if schedule != "step":  # the rate of which may have dropped before the warm-up is over
        assert max(found) == 1
