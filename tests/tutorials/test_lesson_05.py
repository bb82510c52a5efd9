"""Lesson 5's checks tell answers apart, and turns give places one gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minivit import VisionTransformer, ViTConfig
from minivit.training.classify.data import turn
from minivit.training.optimizers import make_optimizers
from minivit.training.settings import Settings
from minivit.training.task import Epoch
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_adam_step,
    check_alike_under_turns,
    check_mirrored,
    check_rate,
    check_rescued,
)

Step = tuple[Tensor, Tensor, Tensor]


def _adam(
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    power: int = 2,
    corrected: tuple[bool, bool] = (True, True),
    root: float = 0.5,
    sign: float = -1,
) -> Callable[[Tensor, Tensor, Tensor, int, float], Step]:
    """Adam, with something wrong in it."""

    def step(gradient: Tensor, mean: Tensor, square: Tensor, step: int, lr: float) -> Step:
        mean = torch.lerp(mean, gradient, 1 - betas[0])
        square = torch.lerp(square, gradient**power, 1 - betas[1])
        m = mean / (1 - betas[0] ** step) if corrected[0] else mean
        v = square / (1 - betas[1] ** step) if corrected[1] else square
        return sign * lr * m / (v.abs() ** root + 1e-8), mean, square

    return step


def test_a_step_of_adam() -> None:
    right = solution("05", "5.1")["adam_step"]
    assert_told_apart(
        check_adam_step,
        [right, _adam()],
        {
            "shares of the mean are exchanged": _adam(betas=(0.1, 0.999)),
            "square it": _adam(power=1),
            "forgets as fast": _adam(betas=(0.9, 0.9)),
            "bias correction is missing": _adam(corrected=(False, False)),
            "only the mean is corrected": _adam(corrected=(True, False)),
            "the root is missing": _adam(root=1),
            "uphill": _adam(sign=1),
            "has other numbers afterwards": changed_in_place(right),
            "nothing comes back": lambda *_: None,
            "three things": lambda *inputs: right(*inputs)[0],
            "the shape is": lambda *inputs: tuple(each.sum(dim=0) for each in right(*inputs)),
        },
    )


def _varied(
    rise: Callable[[int, int], float], fall: Callable[[int, int, int], float]
) -> Callable[[int, int, int], float]:
    def rate(step: int, num_steps: int, warmup: int) -> float:
        return rise(step, warmup) if step < warmup else fall(step, num_steps, warmup)

    return rate


def _rise(step: int, warmup: int) -> float:
    return (1 + step) / warmup


def _fall(step: int, num_steps: int, warmup: int) -> float:
    return math.cos(math.pi / 2 * (step - warmup) / (num_steps - warmup)) ** 2


def test_the_rate() -> None:
    assert_told_apart(
        check_rate,
        [solution("05", "5.2")["rate"], _varied(_rise, _fall)],
        {
            "is lost": _varied(lambda s, w: s / w, _fall),
            "falls from 1 at once": _varied(_rise, lambda s, n, w: _fall(s, n, 0)),
            "does not come down": _varied(_rise, lambda s, n, w: _fall(s, n + w, w)),
            "gets negative": _varied(_rise, lambda s, n, w: math.cos(math.pi * (s - w) / (n - w))),
            "never falls": _varied(_rise, lambda s, n, w: 1.0),
            "never rises": lambda s, n, w: _fall(s, n, 0),
            "ZeroDivisionError": lambda s, n, w: (
                _rise(s, w) if _rise(s, w) <= 1 else _fall(s, n, w)
            ),
            "compare with the two equations": _varied(_rise, lambda s, n, w: 1 - s / n),
            "nothing comes back": lambda *_: None,
        },
    )


def _pretended(settings: Settings) -> list[Epoch]:
    """A training that ends as the real one did with this layer decay."""
    accuracy = {1.0: 0.12, 0.3: 0.81, 0.5: 0.76, 0.2: 0.79}.get(settings.layer_decay, 0.45)
    return [Epoch(4, 0.0, 0.1, 0.7, accuracy, 2.0)]


def test_adam_rescued() -> None:
    right = solution("05", "5.3")["rescued"]
    change = dataclasses.replace
    assert_told_apart(
        check_rescued,
        [(right, _pretended), (change(right, layer_decay=0.5, warmup_share=0.0), _pretended)],
        {
            "the optimizer is 'sgd'": (change(right, optimizer="sgd"), _pretended),
            "the rate is 0.001": (change(right, lr=0.001), _pretended),
            "8 epochs": (change(right, epochs=8), _pretended),
            "linear probe": (change(right, trainable="head"), _pretended),
            "which setting": (change(right, layer_decay=1.0), _pretended),
            "too high a rate: smaller": (change(right, layer_decay=0.9), _pretended),
            "hardly moves the first blocks": (change(right, layer_decay=0.01), _pretended),
            "is a dict": ({"layer_decay": 0.3}, _pretended),
            "nothing is written": (..., _pretended),
        },
    )


def _exchange(caption: str) -> str:
    return caption.replace("left", "§").replace("right", "left").replace("§", "right")


def _whole_words(caption: str) -> str:
    padded = f" {caption} ".replace(" left ", " § ").replace(" right ", " left ")
    return padded.replace(" § ", " right ").strip()


def test_mirrored_captions() -> None:
    assert_told_apart(
        check_mirrored,
        [solution("05", "5.4")["mirrored"], _whole_words],
        {
            "is unchanged": lambda caption: caption,
            "what the other wrote": lambda caption: (
                caption.replace("left", "right").replace("right", "left")
                if "right" in caption
                else caption.replace("left", "right")
            ),
            "above and below are exchanged": lambda caption: (
                _whole_words(caption)
                .replace("above", "§")
                .replace("below", "above")
                .replace("§", "below")
            ),
            "whole words only": _exchange,
            "one word is to be changed": lambda caption: "right",
            "a sentence is expected": lambda caption: caption.split(),
            "nothing comes back": lambda caption: None,
        },
    )


def _by_hand(similarity: Tensor) -> tuple[float, float]:
    """The solution by loops over places."""
    side = len(similarity)
    same, others = [], []
    for r in range(side):
        for c in range(side):
            m = side - 1
            images = {(r, c), (c, m - r), (m - r, m - c), (m - c, r)}
            images |= {(column, row) for row, column in images}
            for row in range(side):
                for column in range(side):
                    value = similarity[r, c, row, column].item()
                    if (row, column) not in images:
                        others.append(value)
                    elif (row, column) != (r, c):
                        same.append(value)
    return sum(same) / len(same), sum(others) / len(others)


def _by_group(
    group: Callable[[int], Tensor], *, itself: bool = False
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def alike(similarity: Tensor) -> tuple[Tensor, Tensor]:
        side = len(similarity)
        names = group(side).flatten()
        same = names[:, None] == names
        other = torch.ones_like(same) if itself else ~torch.eye(side**2, dtype=torch.bool)
        flat = similarity.reshape(side**2, side**2)
        return flat[same & other].mean(), flat[~same].mean()

    return alike


def _ways(side: int, mirrors: bool = True) -> Tensor:
    numbers = torch.arange(side**2).view(1, 1, side, side)
    return torch.stack([turn(numbers, None, way)[0][0, 0] for way in range(8 if mirrors else 4)])


def _ring(side: int) -> Tensor:
    line = torch.minimum(torch.arange(side), torch.arange(side).flip(0))
    return torch.minimum(line[:, None], line)


def _distance_from_the_centre(side: int) -> Tensor:
    """Twice the distance, squared, of each place: whole numbers."""
    places = 2 * torch.arange(side) - side + 1
    return (places[:, None] ** 2 + places**2).flatten()


def test_alike_under_turns() -> None:
    right = solution("05", "5.5")["alike_under_turns"]
    assert_told_apart(
        check_alike_under_turns,
        [right, _by_hand],
        {
            "wrong order": lambda similarity: right(similarity)[::-1],
            "compared with itself": _by_group(lambda side: _ways(side).amin(dim=0), itself=True),
            "distance from the border": _by_group(_ring),
            "mirror images are missing": _by_group(lambda side: _ways(side, False).amin(dim=0)),
            "on a grid of 8": _by_group(_distance_from_the_centre),
            "two numbers": lambda similarity: right(similarity)[0],
            "the numbers differ": lambda similarity: (similarity.mean(), similarity.mean()),
            "has other numbers afterwards": changed_in_place(right),
            "nothing comes back": lambda similarity: None,
        },
    )


def test_pictures_in_eight_ways_give_exchanged_places_one_gradient() -> None:
    torch.manual_seed(0)
    side = 4
    model = VisionTransformer(
        ViTConfig(
            image_size=(side * 2, side * 2),
            patch_size=(2, 2),
            dim=16,
            depth=2,
            num_heads=2,
            hidden_dim=32,
            num_classes=5,
            activation="gelu",
            layer_norm_eps=1e-6,
        )
    )
    torch.nn.init.normal_(model.head.weight)  # type: ignore[arg-type]
    assert model.pos_embed is not None
    with torch.no_grad():
        model.pos_embed.zero_()
    plain = torch.randn(3, 3, side, side).repeat_interleave(2, 2).repeat_interleave(2, 3)
    labels = torch.tensor([0, 3, 1])
    gradients = []
    for ways in (range(1), range(8)):
        model.zero_grad()
        for way in ways:
            F.cross_entropy(model(turn(plain, None, way)[0]), labels).backward()
        gradient = model.pos_embed.grad
        assert gradient is not None
        gradients.append(gradient[0, 1:].clone())
    upright, turned = gradients
    group = _ways(side).amin(dim=0).flatten()
    for name in group.unique():
        for gradient, alike in ((turned, True), (upright, False)):
            own = gradient[group == name]
            assert torch.allclose(own, own[:1].expand_as(own), atol=1e-4) is alike


def test_the_first_step_of_adam_moves_every_weight_by_the_rate() -> None:
    layer = torch.nn.Linear(7, 5)
    before = layer.weight.detach().clone()
    (optimizer,) = make_optimizers(
        layer, Settings(epochs=1, batch_size=1, lr=0.01, optimizer="adam")
    )
    (layer(torch.randn(3, 7)).square().sum() * 1e-3).backward()
    optimizer.step()
    assert torch.allclose((layer.weight - before).abs(), torch.full_like(before, 0.01), atol=1e-5)
