"""What the tests of the lessons share: solutions out of a source, and answers told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tutorials.checks.exercise import Check
from tutorials.make_notebooks import notebook_of, sources

_IMPORTS = """
import math
import torch
from torch import Tensor
from einops import rearrange
import minivit
"""

Answer = Any  # a function, a number, or a tuple of what a check takes


def source_of(lesson: str) -> Path:
    """The source of the lesson whose number is `lesson`, "01" say."""
    (path,) = [source for source in sources() if source.name.startswith(f"{lesson}_")]
    return path


def solution(lesson: str, number: str) -> dict[str, Any]:
    """The names that the folded solution of an exercise defines, run on its own.

    A solution finds torch, math, Tensor, einops' rearrange and minivit, as every lesson imports
    them; what it needs besides it imports itself.
    """
    (cell,) = [
        cell
        for cell in notebook_of(source_of(lesson)).cells
        if "solution" in cell.metadata.get("tags", []) and cell.metadata.get("exercise") == number
    ]
    (code,) = re.findall(r"```python\n(.*?)```", cell.source, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(_IMPORTS, names)
    exec(code, names)
    return names


def assert_told_apart(
    check: Check,
    right: Sequence[Answer],
    wrong: Mapping[str, Answer],
) -> None:
    """Right answers pass; each wrong one gets a message of its own, which has its key's words.

    Args:
        check: Check of the exercise.
        right: The solution, and at least one equivalent answer that is written differently.
        wrong: At least three wrong answers by words that their messages hold.
    """
    assert len(right) >= 2 and len(wrong) >= 3
    for answer in right:
        assert check.message(*_several(answer)) is None
    messages = {words: check.message(*_several(answer)) for words, answer in wrong.items()}
    for words, message in messages.items():
        assert message is not None, f"the wrong answer {words!r} passes"
        assert words in message, f"{words!r} is not in: {message}"
    assert len(set(messages.values())) == len(messages), messages


def _several(answer: Answer) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def changed_in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which also changes the first tensor that it is given."""

    def changing(first: torch.Tensor, *others: Any, **options: Any) -> Any:
        value = function(first.clone(), *others, **options)
        with torch.no_grad():
            first.add_(1)
        return value

    return changing
