"""The list of keys: complete, and with the words of the docstrings."""

from __future__ import annotations

import dataclasses

import pytest

from minivit.training.recipe_keys import attributes_of, keys_text, recipe_keys, recipes_text
from minivit.training.recipe_toml import recipe_names
from minivit.training.recipes import CaptionRecipe, ClassifyRecipe, Recipe
from minivit.training.settings import Settings

KINDS = (Settings, Recipe, ClassifyRecipe, CaptionRecipe)


class Example:
    """An example.

    Attributes:
        first: Number of things: 1, 2
            or more.
        second: "a" or "b".

    Notes: none.
    """


def test_the_texts_of_attributes_are_read_in_one_line_each() -> None:
    expected = {"first": "Number of things: 1, 2 or more.", "second": '"a" or "b".'}
    assert attributes_of(Example) == expected
    assert attributes_of(int) == {}


@pytest.mark.parametrize("kind", [ClassifyRecipe, CaptionRecipe])
def test_every_key_is_listed_once_with_a_meaning(kind: type[Recipe]) -> None:
    keys = [key for each in (Settings, Recipe, kind) for key in recipe_keys(each)]
    names = [field.name for field in dataclasses.fields(kind)]
    assert sorted(key.name for key in keys) == sorted(names)
    assert all(key.meaning.endswith(".") for key in keys)


def test_defaults_are_written_as_in_toml_and_what_is_required_has_none() -> None:
    kinds = (Settings, ClassifyRecipe)
    defaults = {key.name: key.default for kind in kinds for key in recipe_keys(kind)}
    assert defaults["lr"] == defaults["epochs"] == ""
    assert defaults["optimizer"] == '"adamw"' and defaults["strict"] == "false"
    assert defaults["crop_scale"] == "[]" and defaults["crop_ratio"] == "[0.75, 1.333]"


@pytest.mark.parametrize("kind", KINDS)
def test_a_docstring_names_no_key_that_is_not_there(kind: type[Settings]) -> None:
    assert set(attributes_of(kind)) == {key.name for key in recipe_keys(kind)}


def test_the_text_has_a_line_for_each_key_and_is_not_wider_than_a_page() -> None:
    lines = keys_text().splitlines()
    for kind in KINDS:
        for key in recipe_keys(kind):
            assert any(line.split()[:1] == [key.name] for line in lines)
    assert max(map(len, lines)) <= 100
    assert "  lr                      required     Highest learning rate." in lines


def test_every_recipe_is_listed_with_its_purpose() -> None:
    lines = [line.split(maxsplit=1) for line in recipes_text().splitlines() if line[:1] == " "]
    assert {name for name, _ in lines} == set(recipe_names()) and len(lines) == len(recipe_names())
    assert ["fashion_mnist", "Fashion-MNIST from scratch"] in lines
