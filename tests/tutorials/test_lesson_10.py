"""Lesson 10: its checks tell mistakes apart, and what it says of the shipped model holds."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import TEST_SEED, ScenesDataset
from minivit.explain import intervene
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_colour_head,
    check_colour_of_logits,
    check_moved_share,
    check_silenced_set,
    check_without_head,
)


def test_the_output_without_one_head() -> None:
    def other(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        matrices = rearrange(weight, "e (h d) -> h d e", h=outputs.shape[2])
        written = torch.einsum("bnhd,hde->bhne", outputs, matrices)
        return written.sum(1) - written[:, head] + bias

    def alone(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        d = outputs.shape[-1]
        return outputs[:, :, head] @ weight[:, head * d : (head + 1) * d].T + bias

    def sliced(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        d = outputs.shape[-1]
        value = outputs.flatten(2) @ weight.T + bias
        value[..., head * d : (head + 1) * d] = 0
        return value

    def rows(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        d = outputs.shape[-1]
        weight = weight.clone()
        weight[head * d : (head + 1) * d] = 0
        return outputs.flatten(2) @ weight.T + bias

    def written_into(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        outputs[:, :, head] = 0
        return outputs.flatten(2) @ weight.T + bias

    def token(outputs: Tensor, weight: Tensor, bias: Tensor, head: int) -> Tensor:
        kept = outputs.clone()
        kept[:, head] = 0
        return kept.flatten(2) @ weight.T + bias

    assert_told_apart(
        check_without_head,
        right=[solution("10", "10.1")["without_head"], other],
        wrong={
            "nothing is silenced": lambda o, w, b, h: o.flatten(2) @ w.T + b,
            "a slice of the projected output": sliced,
            "this is the head alone: it": alone,
            "the bias is gone": lambda o, w, b, h: other(o, w, b, h) - b,
            "rows of the weight are set to 0": rows,
            "rows of the weight are used": lambda o, w, b, h: other(o, w.T, b, h),
            "a token is silenced": token,
            "(d, H) is flattened": lambda o, w, b, h: (
                (o * (torch.arange(3)[:, None] != h)).transpose(2, 3).flatten(2) @ w.T + b
            ),
            "another one is silenced": lambda o, w, b, h: other(o, w, b, h - 1),
            "wrong for another": lambda o, w, b, h: other(o, w, b, 1),
            "has other numbers afterwards": written_into,
            "heads still": lambda o, w, b, h: o.clone(),
            "nothing comes back": lambda o, w, b, h: None,
            "the shape is": lambda o, w, b, h: other(o, w, b, h)[0],
        },
    )


def test_the_colour_in_the_logits() -> None:
    def other(logits: Tensor) -> Tensor:
        return logits.softmax(-1).reshape(*logits.shape[:-1], 6, 8).sum(-2).log()

    def folded(logits: Tensor, *, rows: int = 6) -> Tensor:
        return logits.log_softmax(-1).unflatten(-1, (rows, 48 // rows))

    assert_told_apart(
        check_colour_of_logits,
        right=[solution("10", "10.2")["colour_log_probability"], other],
        wrong={
            "take their logarithm": lambda logits: other(logits).exp(),
            "logits were added, not": lambda logits: logits.unflatten(-1, (6, 8)).sum(-2),
            "right but for a constant": lambda x: x.unflatten(-1, (6, 8)).logsumexp(-2),
            "multiplies probabilities": lambda logits: folded(logits).sum(-2),
            "the best shape": lambda logits: folded(logits).amax(-2),
            "folded as (8, 6)": lambda logits: folded(logits, rows=8).logsumexp(-1),
            "logits were added over the shapes: add probabilities (logsumexp)": lambda x: (
                x.unflatten(-1, (6, 8)).sum(-2).log_softmax(-1)
            ),
            "averaged over the shapes": lambda x: x.unflatten(-1, (6, 8)).mean(-2).log_softmax(-1),
            "made to sum to 1": lambda x: x.unflatten(-1, (6, 8)).amax(-2).log_softmax(-1),
            "probabilities of 8 things": lambda x: x[..., :8].log_softmax(-1),
            "their exponentials must sum": lambda x: x[..., :8],
            "with logits (2, 5, 48) the numbers differ": lambda x: (
                x.log_softmax(1).unflatten(-1, (6, 8)).logsumexp(-2)
            ),
            "with logits (48,) the numbers differ": lambda x: other(x) * (1 if x.dim() > 1 else 2),
            "these are 6 shapes": lambda logits: folded(logits).logsumexp(-1),
            "over the colours of one shape": lambda logits: (
                logits.unflatten(-1, (6, 8)).log_softmax(-1).logsumexp(-2)
            ),
            "nothing comes back": lambda logits: None,
            "has other numbers afterwards": changed_in_place(other),
        },
    )
    only_two = check_colour_of_logits.message(lambda x: other(x) if x.dim() == 2 else other(x[0]))
    assert only_two is not None and "(B, rows, 8)" in only_two


def test_the_share_that_moved() -> None:
    def other(picture: Tensor, donor: Tensor, patched: Tensor) -> float:
        ends = picture.sum().item(), donor.sum().item()
        return (patched.sum().item() - ends[0]) / (ends[1] - ends[0])

    assert_told_apart(
        check_moved_share,
        right=[solution("10", "10.3")["moved_share"], other],
        wrong={
            "mean of the ratios": lambda a, b, p: ((p - a) / (b - a)).mean(),
            "counted from the donor": lambda a, b, p: 1 - other(a, b, p),
            "the sign is turned": lambda a, b, p: -other(a, b, p),
            "upside down": lambda a, b, p: 1 / other(a, b, p),
            "is not subtracted": lambda a, b, p: p.mean() / b.mean(),
            "not its share": lambda a, b, p: (p - a).mean(),
            "percentage": lambda a, b, p: 100 * other(a, b, p),
            "one number is expected": lambda a, b, p: (p - a) / (b - a),
            "nothing comes back": lambda a, b, p: None,
            "must give 0": lambda a, b, p: 0.5,
            "both differences are sizes": lambda a, b, p: (
                (p - a).abs().mean() / (b - a).abs().mean()
            ),
            "the ways are sizes": lambda a, b, p: (p - a).abs().mean() / (b - a).mean(),
            "the distances are sizes": lambda a, b, p: (p - a).mean() / (b - a).abs().mean(),
            "the sign is lost": lambda a, b, p: abs(other(a, b, p)),
            "cut to [0, 1]": lambda a, b, p: min(max(other(a, b, p), 0.0), 1.0),
            "above and below the line": lambda a, b, p: (p - a).median() / (b - a).median(),
            "not of ratios": lambda a, b, p: ((p - a) / (b - a)).median(),
            "right at the ends": lambda a, b, p: other(a, b, p) ** 2,
        },
    )


def test_the_head_that_finds_colour() -> None:
    names = solution("10", "10.4")
    assert_told_apart(
        check_colour_head,
        right=[
            ((names["colour_block"], names["colour_head"]),),
            ([torch.tensor(1), torch.tensor(2)],),
        ],
        wrong={
            "carries both halves": ((3, 2),),
            "mostly for the shape": ((3, 1),),
            "done at the patches": ((1, 0),),
            "hardly anything depends": ((0, 2),),
            "counted from 0": ((2, 3),),
            "the block is the text 'block 1'": (("block 1", 2),),
            "the block is the text '1'": (("1", "2"),),
            "head must be a whole number": ((1, 2.5),),
            "block 4": ((4, 0),),
            "several things": (((1, 2), None),),
            "the head is missing": ((1, ...),),
            "two numbers are expected": ((1, 2, 0),),
            "nothing is written": ((..., ...),),
        },
    )
    message = check_colour_head.message((0, 1))
    assert message is not None and "-0 %" not in message and "on other scenes" in message


def test_the_colours_taken_away() -> None:
    assert_told_apart(
        check_silenced_set,
        right=[
            solution("10", "10.5")["silenced"],
            {3: (2,), 2: (1,), 1: (2,), 0: (1, 0)},  # one head less, and tuples
        ],
        wrong={
            "the other way round": {3: [0, 1, 2]},
            "comes in other ways": {1: [2]},
            "looks better than": {0: [0, 1], 1: [2]},
            "no head is named": {},
            "named twice in [2, 2]": {1: [2, 2]},
            "too much is silenced": {block: [0, 1, 2] for block in range(4)},
            "a dictionary is expected": [(1, 2)],
            "give a list of heads": {1: 2},
            "heads 0 to 2": {1: [3]},
            "is no number": {1: ["2"]},
        },
    )
    message = check_silenced_set.message({1: [2]})
    assert message is not None and message.startswith("1 head: on scenes that the check draws")


def test_colour_and_shape_come_apart_in_the_shipped_model() -> None:
    model = minivit.load_model("scenes")
    assert isinstance(model, minivit.VisionTransformer)
    data = ScenesDataset(TEST_SEED, 32, image_size=96)
    pixels, labels = (
        torch.stack(column) for column in zip(*(data[i] for i in range(32)), strict=True)
    )
    images = pixels / 127.5 - 1

    def right(heads: dict[int, list[int]], tokens: list[int] | None = None) -> tuple[float, float]:
        with torch.no_grad(), intervene(model, heads=heads, tokens=tokens):
            folded = model(images).softmax(-1).unflatten(-1, (6, 8))
        colour = (folded.sum(1).argmax(-1) == labels % 8).float().mean().item()
        shape = (folded.sum(2).argmax(-1) == labels // 8).float().mean().item()
        return colour, shape

    colour, shape = right({3: [0, 1, 2]})
    assert colour > 0.9 and shape < 0.4
    assert min(right({1: [2]})) > 0.9  # the head that finds colour is not needed
    colour, shape = right(solution("10", "10.5")["silenced"], [0])
    assert colour < 0.4 and shape > 0.85
