"""The list of keys: complete, and with the words of the docstrings."""

from __future__ import annotations

import dataclasses
import re

import pytest

import train
from minivit.training.recipe_keys import (
    UNITS,
    attributes_of,
    keys_page,
    keys_text,
    recipe_keys,
    recipes_text,
)
from minivit.training.recipe_toml import FOLDER, read_recipe, recipe_names
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
    at = lines.index("  warmup_share            number, share, default 0.0")
    assert lines[at + 1].startswith(
        "      Share of all steps in which the rate rises from 0. In the "
    )
    assert "  lr                      number, required" in lines
    assert "  seed                    whole number, default 0" in lines


def test_types_are_said_in_words_and_every_number_has_its_unit_or_none() -> None:
    keys = {key.name: key for kind in KINDS for key in recipe_keys(kind)}
    assert keys["schedule"].kind == 'one of "cosine", "step", "constant"'
    assert keys["strict"].kind == "true or false" and keys["weights"].kind == "text"
    assert keys["crop_scale"].kind == "list of numbers" and keys["phases"].kind == "tables"
    assert keys["rotation"].unit == "degrees" and keys["strict"].unit == ""
    numbers = {"number", "whole number", "list of numbers"}
    assert set(UNITS) == {name for name, key in keys.items() if key.kind in numbers}


def test_the_recipes_that_give_a_key_are_named() -> None:
    """Also those that give it in a phase alone."""
    used: dict[str, set[str]] = {}
    for kind in KINDS:
        for key in recipe_keys(kind):
            used.setdefault(key.name, set()).update(key.recipes)
    assert used["lr"] == set(recipe_names())
    assert used["rotation"] == {"pets_adam_sgd", "pets_sgd"}
    assert "pets_adam_sgd" in used["momentum"]  # of its second phase
    assert used["recipe"] == set()
    for name in recipe_names():
        for key in read_recipe(name).keys() - {"task", "recipe"}:
            assert name in used[key]


def test_the_page_beside_the_recipes_is_that_of_the_code() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == keys_page(), "make it anew: train.py keys --markdown"
    for kind in KINDS:
        for key in recipe_keys(kind):
            meaning = re.escape(key.meaning)
            rows = re.findall(rf"^\| `{key.name}` \|.*\| {meaning} \|", page, re.MULTILINE)
            assert len(rows) == 1


def test_the_command_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["keys", "--markdown"]) == 0
    assert capsys.readouterr().out == keys_page()
    assert train.main(["keys"]) == 0
    assert capsys.readouterr().out == keys_text() + "\n"


def test_every_recipe_is_listed_with_its_purpose() -> None:
    lines = [line.split(maxsplit=1) for line in recipes_text().splitlines() if line[:1] == " "]
    assert {name for name, _ in lines} == set(recipe_names()) and len(lines) == len(recipe_names())
    assert ["fashion_mnist", "Fashion-MNIST from scratch"] in lines
