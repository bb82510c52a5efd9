"""Recipes as text: TOML files (https://toml.io), and single settings from the command line."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minivit.files import not_a_file

if sys.version_info >= (3, 11):
    import tomllib
else:  # the package that became tomllib
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe that cannot be followed; one line that names the file and the key."""


def recipe_names(task: str | None = None) -> list[str]:
    """The names of the package's recipes, of one task or of all."""
    return sorted(
        path.stem
        for path in FOLDER.glob("*.toml")
        if task is None or read_recipe(path.stem)["task"] == task
    )


def read_recipe(name: str) -> dict[str, Any]:
    """The table of a recipe, with the keys as the file has them.

    Args:
        name: Name of a recipe of the package, or a file.

    Raises:
        RecipeError: No such recipe, or not TOML.
    """
    inside = FOLDER / f"{name}.toml"
    path = inside if inside.exists() else Path(name)
    try:
        if not path.is_dir() and (kind := not_a_file(path)):
            raise RecipeError(f"{path}: {kind}; give a TOML file")
        text = path.read_text(encoding="utf-8")
        return {"recipe": path.stem, **tomllib.loads(text)}
    except (FileNotFoundError, IsADirectoryError):
        known = recipe_names()
        raise RecipeError(
            f"{name}: no such recipe; give a TOML file or one of {', '.join(known)}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not a TOML file ({error})") from None


def parse_recipe(text: str) -> dict[str, Any]:
    """The table of a recipe that `to_toml` wrote."""
    return dict(tomllib.loads(text))


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Keys and values of KEY=VALUE texts; a value is written as in TOML, a text also unquoted.

    Raises:
        RecipeError: A text without "=".
    """
    return {key: _value(text) for key, text in map(split_setting, texts)}


def split_setting(text: str) -> tuple[str, str]:
    """KEY=VALUE -> the key and the text of the value.

    Raises:
        RecipeError: A text without "=".
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"{text!r}: expected KEY=VALUE, such as weight_decay=0.05")
    return key.strip(), value.strip()


def _value(text: str) -> Any:
    """A value of TOML; a text that is none is itself, or a number that Python reads, such as .5."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"value = {text}")["value"]
    return float(text) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", text) else text


def values_of(text: str) -> list[Any]:
    """The values of a text that has commas between them; a text with a comma needs quotes."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        if values := tomllib.loads(f"values = [{text}]")["values"]:
            return list(values)
    return [_value(part.strip()) for part in text.split(",")]


def to_toml(values: Mapping[str, Any]) -> str:
    """A table of plain values as TOML; lists of tables come last.

    Args:
        values: Numbers, texts, booleans and lists of them, which JSON and TOML write alike but for
            the character 127; or lists of such tables.
    """
    plain, tables = "", ""
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            tables += "".join(f"\n[[{key}]]\n{to_toml(table)}" for table in value)
        else:
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            plain += f"{key} = {text}\n"
    return plain + tables
