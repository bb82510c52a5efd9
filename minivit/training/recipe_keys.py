"""The keys of recipes as a list to read: name, type, default, unit, meaning, and who uses it.

The meanings are those of the dataclasses' docstrings, types and defaults those of their fields, and
the recipes are read, so that nothing but the units is written twice. `recipes/README.md` is made of
it: `python train.py keys --markdown`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from minivit.training.recipe_toml import read_recipe, recipe_names
from minivit.training.recipes import CaptionRecipe, ClassifyRecipe, Recipe, with_new_names
from minivit.training.settings import Settings

_WIDTH = 100
_SECTIONS = (
    ("how weights move; may differ from phase to phase", Settings),
    ("what is trained, on what", Recipe),
    ("classifiers only", ClassifyRecipe),
    ("captioners only", CaptionRecipe),
)
_PAGE = """\
# The keys of a recipe

A recipe is a TOML file, `NAME.toml` in this folder or one of your own: `train.py classify --recipe
NAME`. `task = "classify"` or `task = "caption"` says what it trains; all other keys are below.
Flags and `--set KEY=VALUE` win over the recipe. A key with the default *required* has to be given.

`python train.py keys` prints the same. This page is made by it, and a test compares both:

    python train.py keys --markdown > minivit/training/recipes/README.md
"""

# Units of the keys that are numbers; "": a number without one.
UNITS = {
    "epochs": "epochs",
    "steps": "steps",
    "batch_size": "samples",
    "accumulate": "parts",
    "lr": "",
    "momentum": "share",
    "beta2": "share",
    "weight_decay": "",
    "layer_decay": "factor",
    "warmup_share": "share",
    "lr_drop": "epochs",
    "grad_clip": "",
    "label_smoothing": "share",
    "ema_decay": "share",
    "patience": "epochs",
    "save_every": "steps",
    "seed": "",
    "num_scenes": "scenes",
    "limit": "samples",
    "workers": "processes",
    "image_size": "pixels",
    "patch_size": "pixels",
    "dim": "channels",
    "depth": "blocks",
    "num_heads": "heads",
    "drop_path": "share",
    "token_loss": "factor",
    "place_loss": "factor",
    "held_out": "share",
    "crop_scale": "share",
    "crop_ratio": "width / height",
    "flip": "share",
    "rotation": "degrees",
    "brightness": "share",
    "contrast": "share",
    "saturation": "share",
    "hue": "turns of the colour circle",
    "rand_augment": "operations",
    "rand_magnitude": "",
    "erasing": "share",
    "mixup": "",
    "cutmix": "",
    "backbone_lr": "",
    "hidden_dim": "channels",
    "encoder_depth": "blocks",
    "decoder_depth": "blocks",
    "head_dim": "channels",
    "dropout": "share",
    "max_length": "words",
    "captions_per_scene": "captions",
}


class RecipeKey(NamedTuple):
    """A key of recipes.

    Attributes:
        name: Name of the key.
        kind: Type of its values in words.
        default: Default as TOML writes it; "": there is none, a recipe has to give the key.
        unit: Unit of its numbers; "": none.
        meaning: Text of the key in its class's docstring.
        recipes: Names of the package's recipes that give it, in a phase at least.
    """

    name: str
    kind: str
    default: str
    unit: str
    meaning: str
    recipes: tuple[str, ...]


def recipe_keys(kind: type[Settings]) -> list[RecipeKey]:
    """The keys that a class of settings adds to those of its base.

    Args:
        kind: `Settings`, or one of the recipes.
    """
    meanings, hints, used = attributes_of(kind), get_type_hints(kind), _used_keys(kind)
    return [
        RecipeKey(
            field.name,
            _type(hints[field.name]),
            _default(field),
            UNITS.get(field.name, ""),
            meanings.get(field.name, ""),
            tuple(name for name, keys in used.items() if field.name in keys),
        )
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
        f"{title}:\n" + "\n".join(_lines(key, kind) for key in recipe_keys(kind))
        for title, kind in _SECTIONS
    )


def keys_page() -> str:
    """The same as a page of markdown, a table a section."""
    sections = []
    for title, kind in _SECTIONS:
        rows = ["| key | type | default | unit | meaning | in the recipes |", "| --- " * 6 + "|"]
        for key in recipe_keys(kind):
            default = f"`{key.default}`" if key.default else "*required*"
            cells = (f"`{key.name}`", key.kind, default, key.unit, key.meaning, _names(key, kind))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        sections.append(f"## {title[0].upper()}{title[1:]}\n\n" + "\n".join(rows) + "\n")
    return "\n".join([_PAGE, *sections])


def recipes_text() -> str:
    """The recipes of the package: their names and purposes, task by task."""
    return "\n\n".join(
        f"train.py {task} --recipe NAME:\n" + "\n".join(_purposes(recipe_names(task)))
        for task in (ClassifyRecipe.task, CaptionRecipe.task)
    )


def _purposes(names: Iterable[str]) -> list[str]:
    return [f"  {name:20} {read_recipe(name).get('about', '')}" for name in names]


def _used_keys(kind: type[Settings]) -> dict[str, set[str]]:
    """The keys of each of the package's recipes that this class belongs to, by its name."""
    used = {}
    for name in recipe_names(getattr(kind, "task", "") or None):
        table = with_new_names(read_recipe(name))
        of_phases = (key for phase in table.get("phases", ()) for key in phase)
        used[name] = {*table, *of_phases} - {"recipe"}  # which read_recipe adds
    return used


def _names(key: RecipeKey, kind: type[Settings]) -> str:
    """The recipes that use a key: all of them, or which."""
    every = recipe_names(getattr(kind, "task", "") or None)
    return "all" if list(key.recipes) == every else ", ".join(key.recipes)


def _lines(key: RecipeKey, kind: type[Settings]) -> str:
    """A key: name, type, default and unit in the first line; below it what it means."""
    default = f"default {key.default}" if key.default else "required"
    head = ", ".join(filter(None, (key.kind, key.unit, default)))
    names = _names(key, kind)
    text = f"{key.meaning} In the recipes: {names}." if names else key.meaning
    indent = " " * 6
    filled = textwrap.fill(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"  {key.name:23} {head}\n{filled}"


def _type(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(hint)))
    if get_origin(hint) is tuple:
        return "list of numbers" if get_args(hint)[0] is float else "tables"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, tuple):
        value = [round(number, 3) for number in value]
    return "" if value is dataclasses.MISSING else json.dumps(value)
