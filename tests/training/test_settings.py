"""The settings refuse what is not possible, and the learning rate follows its formula."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.training.recipes import CaptionRecipe, ClassifyRecipe
from minivit.training.settings import OLD_NAMES, Settings, lr_fraction


def settings(**values: Any) -> Settings:
    return Settings(**({"epochs": 4, "batch_size": 8, "lr": 0.1} | values))


def fractions(steps_per_epoch: int, chosen: Settings) -> list[float]:
    """The fraction of the highest rate at every step."""
    steps = range(chosen.num_steps(steps_per_epoch))
    return [lr_fraction(step, steps_per_epoch, chosen) for step in steps]


# ---- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "epochs": (0, -1),
    "batch_size": (0, -8),
    "accumulate": (0,),
    "lr_drop": (0,),
    "save_every": (0,),
    "steps": (-1,),
    "patience": (-1,),
    "seed": (-1,),
    "lr": (0.0, -0.1, math.inf, math.nan),
    "weight_decay": (-1e-9, math.inf, math.nan),
    "grad_clip": (-1.0, math.inf, math.nan),
    "momentum": (-0.1, 1.0, math.nan),
    "beta2": (-0.1, 1.0, math.nan),
    "label_smoothing": (-0.1, 1.0, math.nan),
    "ema_decay": (-0.1, 1.0, math.nan),
    "warmup_share": (-0.01, 1.01, math.nan),
    "layer_decay": (0.0, 1.1, math.nan),
}
CHOICES = {
    "optimizer": "sgd, adam, adamw, muon",
    "schedule": "cosine, step, constant",
    "precision": "fp32, bf16",
    "trainable": "all, head",
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 1) for name in ("epochs", "batch_size", "accumulate", "lr_drop", "save_every")),
        *(
            (name, 0)
            for name in ("steps", "patience", "seed", "weight_decay", "grad_clip", "momentum")
        ),
        *((name, 0.0) for name in ("beta2", "label_smoothing", "ema_decay", "warmup_share")),
        ("warmup_share", 1.0),
        ("layer_decay", 1.0),
    ],
)
def test_the_ends_of_the_ranges_are_possible(name: str, value: float) -> None:
    assert getattr(settings(**{name: value}), name) == value


# ---- names of before -----------------------------------------------------------------------------

OLD_VALUES = {"warmup": 0.25, "clip": 0.5, "ema": 0.9, "train": "head"}


@pytest.mark.parametrize("kind", [Settings, ClassifyRecipe, CaptionRecipe])
@pytest.mark.parametrize("old", ["warmup", "clip", "ema"])
def test_a_field_can_be_made_and_read_by_its_old_name(kind: type[Any], old: str) -> None:
    new, value = OLD_NAMES[old], OLD_VALUES[old]
    values: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 0.1}
    with pytest.warns(DeprecationWarning, match=f"^{old} is called {new} now$"):
        made = kind(**values, **{old: value})
    assert made == kind(**values, **{new: value}) != kind(**values)
    with pytest.warns(DeprecationWarning, match=f"^{old} is called {new} now$"):
        assert getattr(made, old) == getattr(made, new) == value
    with pytest.warns(DeprecationWarning, match=f"^{old} is called {new} now$"):
        assert dataclasses.replace(kind(**values), **{old: value}) == made


def test_every_old_name_belongs_to_a_field() -> None:
    assert set(OLD_VALUES) == set(OLD_NAMES)
    assert set(OLD_NAMES.values()) <= {field.name for field in dataclasses.fields(Settings)}
    with pytest.warns(DeprecationWarning, match="^train is called trainable now$"):
        assert settings(train="head") == settings(trainable="head")
    with pytest.raises(TypeError, match="unexpected keyword argument 'warmups'"):
        settings(warmups=0.1)


# ---- the rate ------------------------------------------------------------------------------------


def test_a_warm_up_and_then_a_cosine() -> None:
    found = fractions(50, settings(epochs=2, warmup_share=0.1))
    assert found[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert found[10:] == pytest.approx(
        [math.cos(math.pi / 2 * step / 90) ** 2 for step in range(90)]
    )
    assert found[55] == pytest.approx(0.5) and found[99] < 0.001


def test_a_tenth_at_each_step_of_the_schedule() -> None:
    """CATR: the epochs count from the beginning, the warm-up among them."""
    chosen = settings(epochs=7, schedule="step", lr_drop=3)
    assert fractions(2, chosen) == pytest.approx([1] * 6 + [0.1] * 6 + [0.01] * 2)
    warm = dataclasses.replace(chosen, warmup_share=2 / 7)  # four of fourteen steps
    expected = [0.25, 0.5, 0.75, 1, 1, 1] + [0.1] * 6 + [0.01] * 2
    assert fractions(2, warm) == pytest.approx(expected)


def test_constant_after_the_warm_up() -> None:
    found = fractions(5, settings(schedule="constant", warmup_share=0.2))
    assert found == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 17)


def test_steps_end_a_phase_early_and_never_later_and_the_schedule_with_it() -> None:
    chosen = settings(epochs=4, steps=30, warmup_share=0.1)
    assert [chosen.num_steps(per_epoch) for per_epoch in (1, 7, 8, 500)] == [4, 28, 30, 30]
    assert settings(epochs=4).num_steps(7) == 28
    whole = fractions(10, settings(epochs=3, warmup_share=0.1))
    assert fractions(25, chosen) == whole


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_the_only_step_of_a_run_moves(schedule: str, warmup: float) -> None:
    assert fractions(1, settings(epochs=1, schedule=schedule, warmup_share=warmup)) == [1.0]


def test_all_of_a_run_may_be_warm_up() -> None:
    found = fractions(5, settings(epochs=2, warmup_share=1.0))
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
    chosen = settings(epochs=epochs, schedule=schedule, warmup_share=warmup, lr_drop=lr_drop)
    found = fractions(steps, chosen)
    assert all(0 < fraction <= 1 for fraction in found)
    top = min(max(1, round(warmup * len(found))), len(found)) - 1
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    if schedule != "step":  # the rate of which may have dropped before the warm-up is over
        assert max(found) == 1
