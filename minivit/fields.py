"""The fields of frozen dataclasses: checked in one way, and written as plain values and read back.

A config, a transform or a set of settings checks itself in `__post_init__`::

    require(self, "dim", self.dim >= 1, "at least 1")
    require_choice(self, "activation", Activation)

and comes from JSON or TOML by `from_dict`, which also reads the names that fields had before.
`config.py`, `preprocess.py` and the settings of training call it; names of arguments that have
changed are taken here too, for whatever function had them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar, get_args

Kind = TypeVar("Kind")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_LONGEST_SHOWN = 240  # letters of a value in a message
_IN_BETWEEN = ("minivit", "torch")  # packages whose frames stand between a user and a warning


# ---- checks --------------------------------------------------------------------------------------


def require(instance: object, name: str, good: bool, expected: str, *, what: str = "") -> None:
    """Raises a ValueError that names a field, what it holds and what it should, unless it is good.

    Args:
        instance: Dataclass whose field is checked.
        name: Name of the field.
        good: Result of the check.
        expected: What would have been right, such as "at least 1".
        what: Word before the field's name, where the name alone does not say whose field it is.
    """
    if not good:
        value = shown(getattr(instance, name))
        raise ValueError(f"{what} {name} is {value}, expected {expected}".lstrip())


def require_choice(instance: object, name: str, choices: Any, *, what: str = "") -> None:
    """The same for a field that holds one of a few words.

    Args:
        instance: Dataclass whose field is checked.
        name: Name of the field.
        choices: A Literal type, or the words themselves.
        what: Word before the field's name, as in `require`.
    """
    words = tuple(get_args(choices) or choices)
    value = getattr(instance, name)
    if value not in words:
        raise ValueError(
            f"{what} {name} is {shown(value)}: choose from {', '.join(words)}".lstrip()
        )


def shown(value: object) -> str:
    """A value of a file for a message: as Python writes it, the middle of a long one left out."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # lists in lists without end, a number of 5,000 digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 20]} … {text[-17:]}"


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether this is a finite int or float (no bool) from `low` to `high`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    # Not by isfinite, which turns an int of 400 digits into a float first and fails.
    return -math.inf < value < math.inf and low <= value <= high


def is_whole(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether this is an int (no bool) from `low` to `high`."""
    return isinstance(value, int) and is_number(value, low, high)


def require_bools(instance: object, *names: str) -> None:
    """Raises a ValueError unless each of these fields is True or False."""
    for name in names:
        require(instance, name, isinstance(getattr(instance, name), bool), "true or false")


def is_tuple(value: object, length: int, check: Callable[[object], bool]) -> bool:
    """Whether this is a tuple of so many values that all pass a check."""
    return isinstance(value, tuple) and len(value) == length and all(map(check, value))


def is_range(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether this is a tuple (a, b) of numbers, low <= a <= b <= high."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(is_number(edge, low, high) for edge in value) and value[0] <= value[1]


# ---- plain values --------------------------------------------------------------------------------


def to_dict(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON knows them: tuples become lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(instance).items()
    }


def from_dict(
    kind: type[Kind],
    values: Mapping[str, Any],
    what: str,
    *,
    old_names: Mapping[str, str] = {},
    required: Collection[str] = (),
) -> Kind:
    """A dataclass from plain values: the reverse of `to_dict`.

    Args:
        kind: Dataclass to make.
        values: Fields by name; lists become tuples.
        what: Name of the thing in messages, such as "ViT config".
        old_names: Names that fields had before, and their names now.
        required: Fields that must be there although they have a default.

    Raises:
        ValueError: An unknown field (the valid ones are listed), a missing or an invalid one.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is {shown(values)}, expected a table of fields")
    for old, new in old_names.items():
        if old in values and new in values:
            raise ValueError(
                f"{what} has {old}, the old name of {new}, and {new}: give {new} alone"
            )
    values = {old_names.get(name, name): value for name, value in values.items()}
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    valid = sorted(field.name for field in fields)
    unknown = sorted(set(values) - set(valid))
    needed = [field.name for field in fields if _is_needed(field) or field.name in required]
    missing = [name for name in needed if name not in values]
    for problem, names in (("unknown", unknown), ("missing", missing)):
        if names:
            first = ", ".join(names)[:_LONGEST_SHOWN]
            raise ValueError(f"{problem} {what} field {first}; valid: {', '.join(valid)}")
    tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return kind(**tuples)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def with_way_in(advice: str) -> Callable[[type[Kind]], type[Kind]]:
    """Has a dataclass of many fields say how it is made otherwise, where it is made wrongly.

    A field that is missing or unknown, and a value without a name, are a TypeError as they are for
    every function, whose message names the fields and ends with the advice.

    Args:
        advice: What to write instead, such as "ViTConfig.from_name(…) has them all".
    """

    def decorate(kind: type[Kind]) -> type[Kind]:
        plain_init = kind.__init__
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        valid = [field.name for field in fields]
        needed = [field.name for field in fields if _is_needed(field)]

        @functools.wraps(plain_init)
        def init(self: Kind, *args: Any, **kwargs: Any) -> None:
            missing = [name for name in needed if name not in kwargs]
            problem = ""
            if args:
                problem = f"takes fields by name only, and was given {args[0]!r}"
            elif unknown := [name for name in kwargs if name not in valid]:
                problem = f"has no field {', '.join(unknown)}; valid: {', '.join(sorted(valid))}"
            elif missing:
                problem = f"needs {', '.join(missing)} too"
            if problem:
                raise TypeError(f"{kind.__name__} {problem}; {advice}")
            plain_init(self, **kwargs)

        kind.__init__ = init  # type: ignore[assignment, method-assign]
        return kind

    return decorate


# ---- names that things had before ----------------------------------------------------------------


def renamed_arguments(
    **old_names: str,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Lets a function take keyword arguments by their old names for one more release.

    A DeprecationWarning says the new name.

    Args:
        **old_names: Old name = "new name".
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for old, new in old_names.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{old} is the old name of {new}: give {new} alone")
                    warn_renamed(old, new)
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_fields(old_names: Mapping[str, str]) -> Callable[[type[Kind]], type[Kind]]:
    """Lets a dataclass be made, replaced and read by old names of its fields for one more release.

    Args:
        old_names: Old name -> name now.
    """

    def decorate(kind: type[Kind]) -> type[Kind]:
        plain_init = kind.__init__

        @functools.wraps(plain_init)
        def init(self: Kind, *args: Any, **kwargs: Any) -> None:
            for old in old_names.keys() & kwargs.keys():
                warn_renamed(old, old_names[old])
                # Also where the new name is there: dataclasses.replace gives all fields by it.
                kwargs[old_names[old]] = kwargs.pop(old)
            plain_init(self, *args, **kwargs)

        kind.__init__ = init  # type: ignore[assignment, method-assign]
        for old, new in old_names.items():
            setattr(kind, old, property(functools.partial(_read_old, old=old, new=new)))
        return kind

    return decorate


def _read_old(instance: object, *, old: str, new: str) -> Any:
    warn_renamed(old, new)
    return getattr(instance, new)


def warn_renamed(old: str, new: str) -> None:
    """A DeprecationWarning at the line that still uses the old name.

    Python shows such a warning to whoever wrote that line and to nobody else, so it must not be
    laid at the door of this library, or of torch, which calls `forward` for a module.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _IN_BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=level)
