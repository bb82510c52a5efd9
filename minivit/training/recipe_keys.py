"""The keys of recipes as a list to read: name, default, meaning.

The meanings are those of the dataclasses' docstrings, so that nothing is written twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterable
from typing import Any, NamedTuple

from minivit.training.recipe_toml import read_recipe, recipe_names
from minivit.training.recipes import CaptionRecipe, ClassifyRecipe, Recipe
from minivit.training.settings import Settings

_WIDTH = 100
_SECTIONS = (
    ("how weights move; may differ from phase to phase", Settings),
    ("what is trained, on what", Recipe),
    ("classifiers only", ClassifyRecipe),
    ("captioners only", CaptionRecipe),
)


class RecipeKey(NamedTuple):
    """A key of recipes.

    Attributes:
        name: Name of the key.
        default: Default as TOML writes it; "": there is none, a recipe has to give the key.
        meaning: Text of the key in its class's docstring.
    """

    name: str
    default: str
    meaning: str


def recipe_keys(kind: type[Settings]) -> list[RecipeKey]:
    """The keys that a class of settings adds to those of its base.

    Args:
        kind: `Settings`, or one of the recipes.
    """
    meanings = attributes_of(kind)
    return [
        RecipeKey(field.name, _default(field), meanings.get(field.name, ""))
        for field in dataclasses.fields(kind)
        if field.name in kind.__annotations__
    ]


def attributes_of(kind: type) -> dict[str, str]:
    """The texts of the section "Attributes:" of a class's docstring, by name, each in one line."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def keys_text() -> str:
    """All keys of recipes, section by section."""
    return "\n\n".join(
        f"{title}:\n" + "\n".join(map(_line, recipe_keys(kind))) for title, kind in _SECTIONS
    )


def recipes_text() -> str:
    """The recipes of the package: their names and purposes, task by task."""
    return "\n\n".join(
        f"train.py {task} --recipe NAME:\n" + "\n".join(_purposes(recipe_names(task)))
        for task in (ClassifyRecipe.task, CaptionRecipe.task)
    )


def _purposes(names: Iterable[str]) -> list[str]:
    return [f"  {name:20} {read_recipe(name).get('about', '')}" for name in names]


def _line(key: RecipeKey) -> str:
    """A key on as many lines as its meaning takes."""
    head = f"  {key.name:23} {key.default or 'required':12} "
    indent = " " * len(head)
    return textwrap.fill(
        key.meaning, _WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False
    )


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, tuple):
        value = [round(number, 3) for number in value]
    return "" if value is dataclasses.MISSING else json.dumps(value)
