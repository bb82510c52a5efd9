"""What a check of an exercise is made of.

A check is given the reader's answer, tries its properties one after the other, and names the first
that fails with its likely cause:

    @exercise("1.2", "Cut a picture into patches")
    def check_patches(answer: Callable[[Tensor, int], Tensor]) -> None:
        patches = ask(answer, torch.arange(24.0).view(1, 1, 4, 6), 2)
        expect_shape(patches, (1, 6, 4), "(B, N, C·P·P)")
        expect_close(patches, expected, {"columns come before rows": other}, "the numbers differ")

`check_patches(answer)` prints one line and remembers what is solved. A reader's mistake never ends
in a traceback: what an answer raises is said in the same line.
"""

from __future__ import annotations

import dis
import functools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutorials.checks.progress import remember

_NOTHING = "nothing is written yet: put your own lines in the place of `...`"


class NotSolved(Exception):
    """What is wrong with an answer, in one or two sentences for its author."""


class Check:
    """A check of one exercise: called with an answer it prints what is wrong with it."""

    def __init__(self, number: str, title: str, properties: Callable[..., None]) -> None:
        self.number = number
        self.title = title
        self._properties = properties
        functools.update_wrapper(self, properties)

    def message(self, *answers: Any) -> str | None:
        """What is wrong with the answers, or None where nothing is."""
        if any(answer is Ellipsis or answer is None for answer in answers):
            return _NOTHING
        random_state = torch.get_rng_state()
        try:
            with torch.enable_grad():
                self._properties(*answers)
        except NotSolved as wrong:
            return str(wrong)
        finally:
            torch.set_rng_state(random_state)
        return None

    def __call__(self, *answers: Any) -> None:
        """Print one line about the answers, and remember the exercise when they are right."""
        message = self.message(*answers)
        if message is None:
            remember(self.number, self.title)
            print(f"{self.number} solved: {self.title}")
        else:
            print(f"{self.number} not solved: {message}")


EXERCISES: dict[str, Check] = {}


def exercise(number: str, title: str) -> Callable[[Callable[..., None]], Check]:
    """Make a function of properties the check of exercise `number`; a number is given once."""

    def wrap(properties: Callable[..., None]) -> Check:
        if number in EXERCISES:
            raise ValueError(f"two checks for exercise {number}")
        EXERCISES[number] = Check(number, title, properties)
        return EXERCISES[number]

    return wrap


def ask(answer: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """The answer's value for inputs, which it may not change.

    Raises:
        NotSolved: It raised an error, returned nothing, or changed a tensor that it was given.
    """
    if not callable(answer):
        raise NotSolved(f"a function is expected, and this is {_kind(answer)}")
    before = [value.detach().clone() if isinstance(value, Tensor) else value for value in inputs]
    try:
        value = answer(*inputs, **options)
    except NotImplementedError:
        raise NotSolved(_NOTHING) from None
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        own = [step for step in traceback.extract_tb(error.__traceback__) if _is_readers(step)]
        place = f" (line {(own or [line])[-1].lineno} of your cell)" if own else ""
        lines = str(error).strip().splitlines() or [""]
        cause = (
            lines[-1] if type(error).__name__ == "EinopsError" else lines[0]
        )  # einops: at the end
        raise NotSolved(
            f"your lines end in {type(error).__name__}{place}: {cause.strip()}"
        ) from None
    if value is None and _is_stub(answer):
        raise NotSolved(
            "nothing is written yet, so nothing comes back: is `return` missing, or `...` still "
            "there?"
        )
    if value is None or value is Ellipsis:
        raise NotSolved("nothing comes back: is `return` missing, or `...` still there?")
    for given, then in zip(inputs, before, strict=True):
        if isinstance(given, Tensor) and not torch.equal(given.detach(), then):
            raise NotSolved(
                "the tensor that you were given has other numbers afterwards: an operation in "
                "place (`+=`, `x[...] =`, a name that ends in _) changed it; make a new tensor"
            )
    return value


def expect_shape(value: Any, shape: Sequence[int], letters: str) -> None:
    """A tensor of `shape`, whose dimensions are called `letters`, as in "(B, N, D)"."""
    if not isinstance(value, Tensor):
        raise NotSolved(f"a tensor {letters} is expected, and this is {_kind(value)}")
    if tuple(value.shape) != tuple(shape):
        raise NotSolved(
            f"the shape is {tuple(value.shape)}, and {letters} = {tuple(shape)} is expected"
        )


def expect_close(
    value: Any,
    expected: Tensor | float,
    mistakes: Mapping[str, Tensor | float],
    otherwise: str,
    *,
    tolerance: float = 1e-5,
) -> None:
    """The expected numbers; `mistakes` are messages with the numbers that known mistakes lead to.

    Args:
        value: What the reader's lines gave.
        expected: What is right.
        mistakes: Values of wrong answers by what to say of them, the likeliest first.
        otherwise: What to say of other numbers.
        tolerance: Largest difference, relative to numbers above 1.
    """
    if _same(value, expected, tolerance):
        return
    for message, wrong in mistakes.items():
        if _same(value, wrong, tolerance):
            raise NotSolved(message)
    raise NotSolved(otherwise)


def expect_gradient(value: Tensor, source: Tensor, name: str) -> None:
    """A gradient that flows from `value` back to `source`, which requires one."""
    if value.grad_fn is not None:
        (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
        if gradient is not None:
            return
    raise NotSolved(
        f"no gradient reaches {name}: `.detach()`, `.item()`, `.numpy()` or `torch.no_grad()` "
        "stands on the way, or a tensor was made anew from numbers"
    )


def _same(value: Any, expected: Tensor | float, tolerance: float) -> bool:
    try:
        ours = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    theirs = torch.as_tensor(expected, dtype=torch.float64)
    return ours.shape == theirs.shape and torch.allclose(
        ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{value!r}"[:60] if isinstance(value, (int, float, str)) else type(value).__name__


def _is_stub(answer: Callable[..., Any]) -> bool:
    """Whether a function does nothing at all: a docstring and `...`, or `pass`."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    nothing = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    return all(step.opname in nothing for step in dis.get_instructions(code))


def _is_readers(step: traceback.FrameSummary) -> bool:
    """A line of a notebook's cell, not of a package."""
    return "ipykernel_" in step.filename or step.filename.startswith("<")
