"""Checks of lesson 10: taking a model apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

import minivit
from minivit import VisionTransformer
from minivit.data.scenes.dataset import ScenesDataset
from minivit.explain import Recording, intervene, record
from tutorials.checks.exercise import NotSolved, ask, exercise, expect_close, expect_shape

__all__ = [
    "check_colour_head",
    "check_colour_of_logits",
    "check_moved_share",
    "check_silenced_set",
    "check_without_head",
]


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("10.1", "The output without one head")
def check_without_head(answer: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """`answer(outputs (B, N, H, d), weight (D, H·d), bias (D,), head)` is (B, N, D)."""
    batch, tokens, heads, width, head = 2, 5, 3, 4, 1
    outputs, bias = _noise(batch, tokens, heads, width), _noise(heads * width, seed=1)
    weight = _noise(heads * width, heads * width, seed=2)
    value = ask(answer, outputs, weight, bias, head)
    if isinstance(value, Tensor) and value.shape == (batch, tokens, heads, width):
        raise NotSolved("these are heads still: flatten (H, d) and project them")
    expect_shape(value, (batch, tokens, heads * width), "(B, N, D)")
    other = torch.arange(heads)[:, None] != head  # (H, 1)

    def project(parts: Tensor, matrix: Tensor = weight) -> Tensor:
        return parts.flatten(2) @ matrix.T + bias

    full = project(outputs)
    sliced = full.clone()
    sliced[..., head * width : (head + 1) * width] = 0
    without_rows = weight.clone()
    without_rows[head * width : (head + 1) * width] = 0
    turned = (outputs * other).transpose(2, 3)  # (B, N, d, H)
    mistakes = {
        "nothing is silenced: this is the whole output": full,
        "a slice of the projected output is zero, and every head has written into it: silence "
        "before the projection": sliced,
        "this is the head alone: it is to be left out": project(outputs * ~other),
        "this is the head alone, without the bias": project(outputs * ~other) - bias,
        "the bias is gone: it belongs to no head": project(outputs * other) - bias,
        "rows of the weight are set to 0: those are channels of the output; what reads head h are "
        "the columns weight[:, h·d : (h + 1)·d]": project(outputs, without_rows),
        "rows of the weight are used for columns: torch computes x @ weight.T": project(
            outputs * other, weight.T
        ),
        "(d, H) is flattened where (H, d) is laid out": project(turned),
        "a token is silenced and not a head: the heads are dimension 2": project(
            outputs * (torch.arange(tokens) != head)[:, None, None]
        ),
        "heads are counted from 0: another one is silenced": project(
            outputs * (torch.arange(heads)[:, None] != head - 1)
        ),
    }
    expect_close(
        value,
        project(outputs * other),
        mistakes,
        "the numbers differ: it must be the sum over the other heads of o_h @ weight[:, columns of "
        "h].T, plus the bias",
        tolerance=1e-4,
    )
    second = ask(answer, outputs, weight, bias, 0)
    expect_close(
        second,
        project(outputs * (torch.arange(heads)[:, None] != 0)),
        {},
        "right for one head and wrong for another: is its number written into your lines?",
        tolerance=1e-4,
    )


@exercise("10.2", "The colour in the logits")
def check_colour_of_logits(answer: Callable[[Tensor], Tensor]) -> None:
    """`answer(logits (…, 48))` is (…, 8) log-probabilities of the colours."""
    logits = 3 * _noise(3, 48)
    value = ask(answer, logits)
    if isinstance(value, Tensor) and value.shape == (3, 6):
        raise NotSolved("these are 6 shapes: sum over the shapes, dimension -2 of (…, 6, 8)")
    expect_shape(value, (3, 8), "(…, 8)")
    every = logits.log_softmax(-1)
    folded = every.unflatten(-1, (6, 8))
    right = folded.logsumexp(-2)
    mistakes = {
        "these are probabilities: take their logarithm": right.exp(),
        "the logits were added, not the probabilities: softmax over all 48 first": (
            logits.unflatten(-1, (6, 8)).sum(-2)
        ),
        "logits without their softmax: the result is right but for a constant a picture": (
            logits.unflatten(-1, (6, 8)).logsumexp(-2)
        ),
        "logarithms were added: that multiplies probabilities; use logsumexp": folded.sum(-2),
        "logarithms were averaged: use logsumexp": folded.mean(-2),
        "logits were added over the shapes: add probabilities (logsumexp)": (
            folded.sum(-2).log_softmax(-1)
        ),
        "logits were averaged over the shapes: add probabilities (logsumexp)": (
            folded.mean(-2).log_softmax(-1)
        ),
        "this is the best shape of each colour, made to sum to 1: add over the shapes": (
            folded.amax(-2).log_softmax(-1)
        ),
        "this is the best shape of each colour, not the sum over shapes": folded.amax(-2),
        "classes are folded as (8, 6): class 8 · shape + colour is (6 shapes, 8 colours)": (
            every.unflatten(-1, (8, 6)).logsumexp(-1)
        ),
        "softmax ran over the shapes of one colour: it must run over all 48 classes": (
            logits.unflatten(-1, (6, 8)).log_softmax(-2).logsumexp(-2)
        ),
        "softmax ran over the colours of one shape: it must run over all 48 classes": (
            logits.unflatten(-1, (6, 8)).log_softmax(-1).logsumexp(-2)
        ),
    }
    totals = value.exp().sum(-1)
    expect_close(
        value,
        right,
        mistakes,
        "the numbers differ: they are probabilities of 8 things, but not the sums over the 6 "
        "shapes of a colour"
        if torch.allclose(totals, torch.ones_like(totals), atol=1e-3)
        else "the numbers differ: their exponentials must sum to 1 over the 8 colours",
        tolerance=1e-4,
    )
    for shape, letters in (((2, 5, 48), "(B, rows, 8)"), ((48,), "(8,)")):
        other = 3 * _noise(*shape, seed=1)
        result = ask(answer, other)
        expect_shape(result, (*shape[:-1], 8), letters)
        expect_close(
            result,
            other.log_softmax(-1).unflatten(-1, (6, 8)).logsumexp(-2),
            {},
            f"right for (3, 48), but with logits {shape} the numbers differ: count dimensions "
            "from the end, -1 for the classes",
            tolerance=1e-4,
        )


@exercise("10.3", "The share that moved")
def check_moved_share(answer: Callable[[Tensor, Tensor, Tensor], float | Tensor]) -> None:
    """`answer(picture (B,), donor (B,), patched (B,))` is a number."""
    picture, donor = _noise(7) - 8, _noise(7, seed=1) + 6
    patched = picture + 0.3 * (donor - picture) * torch.linspace(0.4, 1.6, 7) ** 2
    _expect_share(answer, picture, donor, patched)
    # differences of both signs; a patch that overshoots, and one that moves backwards
    start, end = 2 * _noise(7, seed=2), 2 * _noise(7, seed=3) + 1.5
    for factor in (1.6, -0.4):
        way = factor * (end - start) * torch.linspace(0.7, 1.3, 7) + 0.3 * _noise(7, seed=4)
        _expect_share(answer, start, end, start + way)


def _expect_share(
    answer: Callable[[Tensor, Tensor, Tensor], float | Tensor],
    picture: Tensor,
    donor: Tensor,
    patched: Tensor,
) -> None:
    value = torch.as_tensor(ask(answer, picture, donor, patched))
    if value.numel() != 1:
        raise NotSolved(
            f"one number is expected, and this has the shape {tuple(value.shape)}: take the means "
            "over the pictures"
        )
    ways, distances = patched - picture, donor - picture
    way, all_the_way = ways.mean(), distances.mean()
    share = way / all_the_way
    sizes = "sizes without their sign (abs): a pair that moves the other way must count against"
    medians = "a median is taken: the means over the pictures are asked for"
    mistakes = {
        "this is the mean of the ratios: divide the mean way by the mean distance": (
            (ways / distances).mean()
        ),
        "counted from the donor: 0 is the picture, and 1 the donor": (
            (donor - patched).mean() / all_the_way
        ),
        "the sign is lost (abs): a patch that moves away from the donor has a share below 0": (
            share.abs()
        ),
        "the sign is turned: one difference is taken the other way round": -share,
        "the ratio is upside down": 1 / share,
        "what the picture itself has is not subtracted": patched.mean() / donor.mean(),
        "the way is measured, not its share: divide by the distance to the donor": way,
        "the denominator lacks the picture: distance is donor minus picture": way / donor.mean(),
        "the numerator lacks the picture: way is patched minus picture": patched.mean()
        / all_the_way,
        "this is a percentage: 1 is all of the way": 100 * share,
        "the share is cut to [0, 1]: a patch may overshoot, or move backwards": share.clamp(0, 1),
        f"both differences are {sizes}": ways.abs().mean() / distances.abs().mean(),
        f"the ways are {sizes}": ways.abs().mean() / all_the_way,
        f"the distances are {sizes}": way / distances.abs().mean(),
        f"{medians}, above and below the line": ways.median() / distances.median(),
        f"{medians}, and not of ratios": (ways / distances).median(),
        f"{medians}, of the scores": (patched.median() - picture.median())
        / (donor.median() - picture.median()),
    }
    ends = "a patch that changes nothing must give 0, and one that gives the donor's scores 1"
    try:
        expect_close(value.reshape(()), share, mistakes, ends)
    except NotSolved as wrong:
        if str(wrong) == ends and _right_at_the_ends(answer, picture, donor):
            raise NotSolved(
                "0 and 1 are right at the ends, and what lies elsewhere is not: divide the mean of "
                "(patched - picture) by the mean of (donor - picture)"
            ) from None
        raise


def _right_at_the_ends(
    answer: Callable[[Tensor, Tensor, Tensor], float | Tensor], picture: Tensor, donor: Tensor
) -> bool:
    """Whether no way gives 0 and all of it 1."""
    try:
        values = [float(ask(answer, picture, donor, end)) for end in (picture, donor)]
    except (NotSolved, TypeError, ValueError, RuntimeError):
        return False
    return abs(values[0]) < 1e-4 and abs(values[1] - 1) < 1e-4


@cache
def _model() -> VisionTransformer:
    model = minivit.load_model("scenes")
    assert isinstance(model, VisionTransformer)
    return model


@cache
def _scenes(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, 96, 96) as the model takes them, and labels (B,)."""
    data = ScenesDataset(seed, count, image_size=96)
    pixels, labels = zip(*(data[index] for index in range(count)), strict=True)
    return torch.stack(pixels) / 127.5 - 1, torch.stack(labels)


def _colour_and_shape(logits: Tensor) -> tuple[Tensor, Tensor]:
    folded = logits.log_softmax(-1).unflatten(-1, (6, 8))
    return folded.logsumexp(-2), folded.logsumexp(-1)


class _Pairs:
    """Pictures and donors that differ in colour and shape, and what a patch moves."""

    def __init__(self) -> None:
        images, labels = _scenes(77, 24)
        other = labels.roll(1)
        differ = (labels % 8 != other % 8) & (labels // 8 != other // 8)
        self.takers, donors = images[differ], images.roll(1, dims=0)[differ]
        self.mine, self.theirs = labels[differ], other[differ]
        with record(_model(), "heads") as self.donors:
            self.end = self.scores(_model()(donors))
        self.start = self.scores(_model()(self.takers))

    def scores(self, logits: Tensor) -> Tensor:
        colours, shapes = _colour_and_shape(logits)
        pair = torch.arange(len(self.mine))
        colour = colours[pair, self.theirs % 8] - colours[pair, self.mine % 8]
        shape = shapes[pair, self.theirs // 8] - shapes[pair, self.mine // 8]
        return torch.stack([colour.mean(), shape.mean()])

    def moved(self, block: int, head: int, tokens: list[int] | None) -> tuple[float, float]:
        """Shares of colour and shape that a head moves."""
        donors: Recording = self.donors
        with intervene(_model(), heads={block: [head]}, tokens=tokens, by=donors):
            scores = self.scores(_model()(self.takers))
        colour, shape = ((scores - self.start) / (self.end - self.start)).tolist()
        return colour, shape


@cache
def _pairs() -> _Pairs:
    return _Pairs()


@exercise("10.4", "Find the head that finds colour")
def check_colour_head(found: Any) -> None:
    """(block, head), from 0, that move the colour at the class token and not the shape."""
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise NotSolved("two numbers are expected: (colour_block, colour_head)")
    if all(number is Ellipsis or number is None for number in found):
        raise NotSolved("nothing is written yet: put your own lines in the place of `...`")
    numbers = []
    for name, number, count in (("block", found[0], 4), ("head", found[1], 3)):
        if number is Ellipsis or number is None:
            raise NotSolved(f"the {name} is missing: give two numbers, the block's and the head's")
        if isinstance(number, str):
            raise NotSolved(f"the {name} is the text {number!r}: give a number, without quotes")
        if isinstance(number, (tuple, list)):
            raise NotSolved(
                f"the {name} is {number!r}, several things: colour_block is one number, and "
                "colour_head another"
            )
        try:
            whole = int(number)
            is_whole = bool(whole == number)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            is_whole = False
        if not is_whole:
            raise NotSolved(f"the {name} must be a whole number from 0 to {count - 1}")
        if not 0 <= whole < count:
            raise NotSolved(f"{name} {whole}: the model has {count}, counted from 0 to {count - 1}")
        numbers.append(whole)
    with torch.no_grad():
        colour, shape = _pairs().moved(numbers[0], numbers[1], [0])
        if colour > 0.15 and abs(shape) < 0.1:
            return
        everywhere = _pairs().moved(numbers[0], numbers[1], None)
    moves = "on other scenes than yours, at the class token, it moves colour by "
    moves += f"{round(100 * colour)} % and shape by {round(100 * shape)} %"
    if colour > 0.15:
        raise NotSolved(f"{moves}: it carries both halves of the answer, not the colour alone")
    if shape > 0.15:
        raise NotSolved(f"{moves}: that one is mostly for the shape")
    if max(everywhere) > 0.15:
        raise NotSolved(
            f"{moves}; its work is done at the patches (all tokens: colour "
            f"{round(100 * everywhere[0])} %, shape {round(100 * everywhere[1])} %)"
        )
    raise NotSolved(f"{moves}: hardly anything depends on it here")


@exercise("10.5", "Take the colours away")
def check_silenced_set(silenced: Mapping[int, Sequence[int]]) -> None:
    """Heads by block that take the colour away at the class token and leave the shape."""
    if not isinstance(silenced, Mapping):
        raise NotSolved("a dictionary is expected: {block: [head, …], …}")
    heads: dict[int, list[int]] = {}
    for block, numbers in silenced.items():
        if isinstance(numbers, int) or not isinstance(numbers, Sequence):
            raise NotSolved(f"block {block}: give a list of heads, [2] for head 2")
        for number in (block, *numbers):
            if not isinstance(number, int):
                raise NotSolved(f"{number!r} is no number of a block or a head")
        if not 0 <= block < 4 or not all(0 <= number < 3 for number in numbers):
            raise NotSolved("blocks are 0 to 3 and heads 0 to 2")
        if len(set(numbers)) < len(numbers):
            raise NotSolved(f"block {block}: a head is named twice in {list(numbers)}")
        heads[block] = sorted(numbers)
    count = sum(map(len, heads.values()))
    if not count:
        raise NotSolved("no head is named: an empty dictionary (or list) silences nothing")
    images, labels = _scenes(78, 32)
    with torch.no_grad(), intervene(_model(), heads=heads, tokens=[0]):
        colours, shapes = _colour_and_shape(_model()(images))
    colour = float((colours.argmax(-1) == labels % 8).float().mean())
    shape = float((shapes.argmax(-1) == labels // 8).float().mean())
    if colour <= 0.3 and shape >= 0.75:
        return
    result = f"{count} head{'s' if count > 1 else ''}: on scenes that the check draws, colour "
    result += f"right in {100 * colour:.0f} %, shape in {100 * shape:.0f} %"
    if colour > 0.3 and shape < 0.75:
        raise NotSolved(f"{result}; the shape goes and the colour stays: the other way round")
    if colour > 0.3:
        raise NotSolved(
            f"{result} (30 at most, and 75 at least); the colour still comes in other ways: "
            "silence more of them. Where you found it, the best set of a search looks better than "
            "on other scenes"
        )
    raise NotSolved(f"{result}; too much is silenced: the shape goes with the colour")
