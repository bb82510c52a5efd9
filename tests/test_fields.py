"""Dataclasses that check themselves, are written as plain values and come back from them."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivit.fields import (
    from_dict,
    is_number,
    is_range,
    is_tuple,
    is_whole,
    renamed_arguments,
    renamed_fields,
    require,
    require_choice,
    to_dict,
)

Taste = Literal["sweet", "sour"]


@renamed_fields({"flavour": "taste"})
@dataclass(frozen=True, kw_only=True)
class Fruit:
    weight: int
    taste: Taste = "sweet"
    size: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        require(self, "weight", is_whole(self.weight, 1), "a whole number, at least 1")
        require_choice(self, "taste", Taste)


def read(values: Any, **options: Any) -> Fruit:
    return from_dict(Fruit, values, "fruit", old_names={"flavour": "taste"}, **options)


# ---- checks ------------------------------------------------------------------------------------


def test_a_field_that_is_wrong_is_named_with_what_it_holds_and_what_it_should() -> None:
    with pytest.raises(ValueError, match=r"^weight is 0, expected a whole number, at least 1$"):
        Fruit(weight=0)
    with pytest.raises(ValueError, match=r"^taste is 'bitter': choose from sweet, sour$"):
        Fruit(weight=1, taste="bitter")  # type: ignore[arg-type]


def test_a_word_may_say_whose_field_it_is() -> None:
    fruit = Fruit(weight=3)
    with pytest.raises(ValueError, match=r"^fruit weight is 3, expected less$"):
        require(fruit, "weight", False, "less", what="fruit")
    with pytest.raises(ValueError, match=r"^fruit weight is 3: choose from 1, 2$"):
        require_choice(fruit, "weight", ("1", "2"), what="fruit")


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -math.inf, [1], 1 + 0j])
def test_what_is_no_finite_number(value: object) -> None:
    assert not is_number(value) and not is_whole(value)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)), st.integers())
def test_numbers_lie_within_their_bounds(value: float, bound: int) -> None:
    assert is_number(value)
    assert is_number(value, bound) == (value >= bound)
    assert is_number(value, high=bound) == (value <= bound)
    assert is_whole(value, bound) == (isinstance(value, int) and value >= bound)


def test_a_whole_number_beyond_every_float_is_a_number() -> None:
    """JSON may hold one; it must be refused by name, not by an OverflowError."""
    assert is_whole(10**400) and not is_whole(10**400, high=100)


def test_tuples_and_ranges() -> None:
    assert is_tuple((1, 2), 2, is_whole) and is_tuple((), 0, is_whole)
    assert not is_tuple([1, 2], 2, is_whole) and not is_tuple((1, 2), 3, is_whole)
    assert not is_tuple((1, 2.5), 2, is_whole)
    assert is_range((0.5, 1), 0, 1) and is_range((1, 1))
    for value in ((1, 0.5), (0.5, 2), (-1, 0.5), (0, 1, 1), [0, 1], 0.5, (0, math.nan)):
        assert not is_range(value, 0, 1)


# ---- plain values ------------------------------------------------------------------------------


def test_a_dataclass_survives_json() -> None:
    fruit = Fruit(weight=3, taste="sour", size=(4, 5))
    values = to_dict(fruit)
    assert values == {"weight": 3, "taste": "sour", "size": [4, 5]}
    assert read(json.loads(json.dumps(values))) == fruit


def test_unknown_and_missing_fields_are_named_and_the_valid_ones_listed() -> None:
    with pytest.raises(ValueError, match="unknown fruit field colour, shape; valid: size, taste, "):
        read({"weight": 1, "shape": 1, "colour": 2})
    with pytest.raises(ValueError, match="missing fruit field weight; valid: size, taste, weight"):
        read({"taste": "sour"})
    assert read({"weight": 1}) == Fruit(weight=1)
    with pytest.raises(ValueError, match="missing fruit field taste; valid"):
        read({"weight": 1}, required=("taste",))


@pytest.mark.parametrize("values", [None, 3, "weight", ["weight"]])
def test_what_is_no_table_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"fruit is .*, expected a table of fields"):
        read(values)


# ---- names that things had before --------------------------------------------------------------


def test_old_names_of_fields_are_read_without_a_warning() -> None:
    """A stored file is nobody's mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read({"weight": 1, "flavour": "sour"}) == Fruit(weight=1, taste="sour")
    with pytest.raises(ValueError, match="fruit has flavour, the old name of taste, and taste"):
        read({"weight": 1, "flavour": "sour", "taste": "sweet"})


def test_old_names_of_fields_are_taken_and_read_with_a_warning_at_the_line_that_uses_them() -> None:
    with pytest.warns(DeprecationWarning, match="flavour is called taste now") as warned:
        fruit = Fruit(weight=1, flavour="sour")  # type: ignore[call-arg]
    assert fruit == Fruit(weight=1, taste="sour") and warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="flavour is called taste now") as warned:
        assert fruit.flavour == "sour"  # type: ignore[attr-defined]
    assert warned[0].filename == __file__


def test_old_names_of_arguments_are_taken_with_a_warning() -> None:
    @renamed_arguments(colour="paint")
    def draw(*, paint: str) -> str:
        """Draws."""
        return paint

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(paint="red") == "red" and draw.__doc__ == "Draws."
    with pytest.warns(DeprecationWarning, match="colour is called paint now") as warned:
        assert draw(colour="red") == "red"  # type: ignore[call-arg]
    assert warned[0].filename == __file__
    with pytest.raises(TypeError, match="colour is the old name of paint: give paint alone"):
        draw(paint="red", colour="blue")  # type: ignore[call-arg]
