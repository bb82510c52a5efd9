"""Checks of lesson 5: training and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from minivit.training.settings import Settings, lr_fraction
from minivit.training.task import Epoch
from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_shape,
)

__all__ = [
    "check_adam_step",
    "check_alike_under_turns",
    "check_mirrored",
    "check_rate",
    "check_rescued",
]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@exercise("5.1", "A step of Adam")
def check_adam_step(answer: Callable[[Tensor, Tensor, Tensor, int, float], Any]) -> None:
    random = torch.Generator().manual_seed(5)
    gradient = torch.randn(3, 5, generator=random) * 10
    mean = torch.randn(3, 5, generator=random)
    square = torch.rand(3, 5, generator=random) * 30 + 1
    step, lr = 3, 0.01
    value = ask(answer, gradient, mean, square, step, lr)
    if not isinstance(value, tuple) or len(value) != 3:
        raise NotSolved("three things are expected: the change, the new mean, the new mean square")
    for each, name in zip(value, ("change", "mean", "mean square"), strict=True):
        expect_shape(each, (3, 5), f"the {name}, a number a weight,")
    change, new_mean, new_square = value
    right_mean = BETA1 * mean + (1 - BETA1) * gradient
    right_square = BETA2 * square + (1 - BETA2) * gradient**2
    expect_close(
        new_mean,
        right_mean,
        {
            "the shares of the mean are exchanged: 0.9 of the old mean, 0.1 of the gradient": (
                1 - BETA1
            )
            * mean
            + BETA1 * gradient,
            "the mean keeps 0.9 of the old one and adds the whole gradient: that is SGD's "
            "momentum, Adam adds 0.1 of it": BETA1 * mean + gradient,
            "the mean is returned after the correction: keep the plain one, the correction is "
            "made anew in each step": right_mean / (1 - BETA1**step),
        },
        "the new mean differs from 0.9 · mean + 0.1 · gradient",
    )
    expect_close(
        new_square,
        right_square,
        {
            "the mean square takes the gradient itself: square it": BETA2 * square
            + (1 - BETA2) * gradient,
            "the mean square forgets as fast as the mean: β₂ is 0.999": BETA1 * square
            + (1 - BETA1) * gradient**2,
            "the mean square is returned after the correction: keep the plain one": right_square
            / (1 - BETA2**step),
        },
        "the new mean square differs from 0.999 · square + 0.001 · gradient²",
    )
    m, v = right_mean / (1 - BETA1**step), right_square / (1 - BETA2**step)
    right = -lr * m / (v.sqrt() + EPSILON)
    expect_close(
        change,
        right,
        {
            "the step goes uphill: the change is minus the rate times the ratio": -right,
            "the bias correction is missing: divide the means by 1 - βᵗ, or the first steps "
            "have another length": -lr * right_mean / (right_square.sqrt() + EPSILON),
            "only the mean is corrected: the mean square starts at 0 too": -lr
            * m
            / (right_square.sqrt() + EPSILON),
            "the root is missing: a gradient ten times as long would give a tenth of the step": (
                -lr * m / (v + EPSILON)
            ),
            "the gradient itself is divided: its running mean belongs there": -lr
            * gradient
            / (v.sqrt() + EPSILON),
            "the rate is missing": right / lr,
        },
        "the change differs from -lr · m̂ / (√v̂ + 1e-8); `step` counts from 1 already",
        tolerance=1e-6,
    )
    tiny = torch.tensor([0.0, 1e-8])  # behind a head of zeros the first gradients are 0
    change = ask(answer, tiny, torch.zeros(2), torch.zeros(2), 1, lr)[0]
    expect_close(
        change,
        -lr * tiny / (tiny + EPSILON),
        {},
        "with gradients of 0 and 1e-8 the change is another: 1e-8 is added to the root, outside of "
        "it, and keeps 0 from being divided by 0",
        tolerance=1e-4,
    )


@exercise("5.2", "The rate from the first step to the last")
def check_rate(answer: Callable[[int, int, int], Any]) -> None:
    num_steps, warmup = 40, 10
    values = [ask(answer, step, num_steps, warmup) for step in range(num_steps)]
    if any(not isinstance(value, (int, float)) for value in values):
        raise NotSolved("a number is expected for each step, 0 to 1")
    settings = Settings(epochs=1, batch_size=1, lr=1.0, warmup_share=warmup / num_steps)
    right = [lr_fraction(step, num_steps, settings) for step in range(num_steps)]

    def varied(rise: Callable[[int], float], fall: Callable[[int], float]) -> Tensor:
        return torch.tensor([rise(s) if s < warmup else fall(s) for s in range(num_steps)])

    def risen(step: int) -> float:
        return (step + 1) / warmup

    def cosine(share: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * share))

    expect_close(
        torch.tensor(values, dtype=torch.float64),
        torch.tensor(right),
        {
            "the first step has the rate 0 and is lost: count the steps of the warm-up from 1": (
                varied(lambda s: s / warmup, lambda s: cosine((s - warmup) / (num_steps - warmup)))
            ),
            "the cosine begins before the warm-up ends, so that the rate falls from 1 at once: "
            "count its steps from the end of the warm-up": varied(
                risen, lambda s: cosine(s / num_steps)
            ),
            "the rate does not come down to 0: the cosine has num_steps - warmup steps": varied(
                risen, lambda s: cosine((s - warmup) / num_steps)
            ),
            "the rate gets negative: ½ (1 + cos) is missing, a cosine alone runs from 1 to -1": (
                varied(risen, lambda s: math.cos(math.pi * (s - warmup) / (num_steps - warmup)))
            ),
            "the rate never falls: after the warm-up comes the cosine": varied(
                risen, lambda s: 1.0
            ),
            "the rate never rises: in the first steps it is (step + 1) / warmup": torch.tensor(
                [cosine(s / num_steps) for s in range(num_steps)]
            ),
        },
        f"of {num_steps} steps with {warmup} of warm-up, "
        + _first_apart(values, right)
        + ": compare with the two equations",
    )
    without = ask(answer, 0, num_steps, 0)
    if without != 1:
        raise NotSolved(f"without a warm-up the first step has the whole rate, and yours {without}")


@exercise("5.3", "Adam at 0.01 made to work")
def check_rescued(settings: Any, train: Callable[[Settings], Sequence[Epoch]]) -> None:
    if not isinstance(settings, Settings):
        raise NotSolved(f"`Settings(…)` is expected, and this is a {type(settings).__name__}")
    if settings.optimizer != "adam":
        raise NotSolved(f"the optimizer is {settings.optimizer!r}: it is Adam that is to work")
    if settings.lr != 0.01:
        raise NotSolved(
            f"the rate is {settings.lr}: the head is to have 0.01, as in the failed run"
        )
    if (settings.epochs, settings.batch_size, settings.steps) != (4, 8, 0):
        raise NotSolved(
            f"{settings.epochs} epochs in batches of {settings.batch_size}: 4 and 8 are given, or "
            "the runs cannot be compared"
        )
    if settings.trainable == "head":
        raise NotSolved(
            "only the head moves: that is a linear probe, which leaves the features as they are; "
            "let the blocks move, but less than the head"
        )
    accuracy = train(settings)[-1].val_accuracy
    if accuracy < 0.3 and settings.layer_decay == 1:
        raise NotSolved(
            f"{100 * accuracy:.1f} % of the validation scenes: every weight still moves by about "
            "0.01 a step; which setting gives the blocks a lower rate than the head?"
        )
    if accuracy < 0.7:
        raise NotSolved(
            f"{100 * accuracy:.1f} % of the validation scenes, 70 % are asked for: a layer decay "
            f"of {settings.layer_decay:g} "
            + (
                "leaves the blocks too high a rate: smaller"
                if settings.layer_decay > 0.3
                else "hardly moves the first blocks: larger"
            )
        )


@exercise("5.4", "A caption of the mirrored picture")
def check_mirrored(answer: Callable[[str], Any]) -> None:
    one = ask(answer, "a small red ring to the left of a large blue star")
    if not isinstance(one, str):
        raise NotSolved(f"a sentence is expected, and this is a {type(one).__name__}")
    if one == "a small red ring to the left of a large blue star":
        raise NotSolved(
            "the caption is unchanged, and says left where the mirror shows right: of two calls of "
            "`replace` the second undoes the first"
        )
    if one != "a small red ring to the right of a large blue star":
        raise NotSolved(f"'… to the left of …' became {one!r}: one word is to be changed, to right")
    two = ask(answer, "a star is left of a cross and right of a ring")
    if two in (
        "a star is left of a cross and left of a ring",
        "a star is right of a cross and right of a ring",
    ):
        raise NotSolved(
            "left and right in one caption become the same word: each must be exchanged once, and "
            "none may find what the other wrote"
        )
    if two != "a star is right of a cross and left of a ring":
        raise NotSolved(f"'a star is left of a cross and right of a ring' became {two!r}")
    three = ask(answer, "a ring above a star and below a cross")
    if three != "a ring above a star and below a cross":
        raise NotSolved(
            "above and below are exchanged: a mirror that exchanges left and right leaves them"
        )
    four = ask(answer, "a bright cross to the upper right of a ring")
    if four != "a bright cross to the upper left of a ring":
        raise NotSolved(
            f"'a bright cross to the upper right of a ring' became {four!r}: whole words only"
        )


@exercise("5.5", "How alike turns make the positions")
def check_alike_under_turns(answer: Callable[[Tensor], Any]) -> None:
    for side in (4, 5, 8):  # from 8 on places of other orbits lie as far from the centre
        positions = torch.randn(side**2, 7, generator=torch.Generator().manual_seed(side))
        unit = torch.nn.functional.normalize(positions, dim=-1)
        flat = unit @ unit.T  # (N, N)
        value = ask(answer, flat.view(side, side, side, side))
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise NotSolved("two numbers are expected: of the pairs that turns exchange, of others")
        same, itself = _same_orbit(side), torch.eye(side**2, dtype=torch.bool)
        ring = _distance_from_border(side)
        same_ring = ring[:, None] == ring
        quarter = _same_orbit(side, mirrored=False)
        right = _pair(flat, same & ~itself, ~same)
        expect_close(
            torch.stack([torch.as_tensor(each, dtype=torch.float64) for each in value]),
            right,
            {
                "the two numbers are in the wrong order": right.flip(0),
                "each place is compared with itself too, which adds ones": _pair(flat, same, ~same),
                "each place counts as different from itself, which adds ones to the others": _pair(
                    flat, same & ~itself, ~same | itself
                ),
                "places with the same distance from the border are taken for pairs: a turn brings "
                "no corner to the middle of a side": _pair(flat, same_ring & ~itself, ~same_ring),
                "mirror images are missing: quarter turns are four of the eight ways": _pair(
                    flat, quarter & ~itself, ~quarter
                ),
            },
            f"the numbers differ on a grid of {side} × {side}",
        )


def _first_apart(values: Sequence[float], right: Sequence[float]) -> str:
    step = next(
        (n for n, (a, b) in enumerate(zip(values, right, strict=True)) if abs(a - b) > 1e-5), 0
    )
    return f"step {step} has {values[step]:.4g} and should have {right[step]:.4g}"


def _same_orbit(side: int, *, mirrored: bool = True) -> Tensor:
    """(N, N) Boolean: whether one of the eight ways to lay the grid brings a place to another."""
    numbers = torch.arange(side**2).view(side, side)
    sides = (numbers, numbers.flip(1)) if mirrored else (numbers,)
    ways = torch.stack([torch.rot90(each, k) for each in sides for k in range(4)])
    orbit = ways.amin(dim=0).flatten()  # (8, side, side) -> (N,)
    return orbit[:, None] == orbit


def _distance_from_border(side: int) -> Tensor:
    """(N,): rows and columns that lie between a place and the nearest border."""
    line = torch.minimum(torch.arange(side), side - 1 - torch.arange(side))
    return torch.minimum(line[:, None], line).flatten()


def _pair(flat: Tensor, same: Tensor, others: Tensor) -> Tensor:
    return torch.stack([flat[same].mean(), flat[others].mean()]).double()
