"""Checks of lesson 7: whether a map tells the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from numbers import Integral

import torch
from torch import Tensor

import minivit
from minivit.config import ViTConfig
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explain import METHODS, logits_of_kept
from minivit.explain.pointing import covered
from minivit.vit import VisionTransformer
from tutorials.checks.exercise import NotSolved, ask, exercise, expect_close, expect_shape

__all__ = [
    "check_deletion",
    "check_interval",
    "check_pointing_and_mass",
    "check_silent",
    "check_wrong_map",
]

_SEARCHED = 200  # scenes of the test series among which exercise 7.5 searches


# ---- 7.1 -----------------------------------------------------------------------------------------


@exercise("7.1", "Pointing and mass of a map")
def check_pointing_and_mass(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Maps of 4 x 3 cells that do not sum to 1.

    One strongest cell shows a little object; one is on the object, and another cell more so; in
    two maps several cells are strongest.
    """
    random, count = torch.Generator().manual_seed(7), 6
    maps = torch.rand(count, 4, 3, generator=random)
    share = torch.rand(count, 4, 3, generator=random) * 0.4
    maps[0, 3, 1], share[0, 3, 1] = 2.0, 0.5  # exactly half of the cell: on the object
    maps[1, 0, 2], share[1, 0, 2] = 5.0, 0.3  # some of it, and not half
    maps[2, 2, 0], share[2, 2, 0] = 1.5, 1.0
    maps[1, 2, 2], share[1, 2, 2] = 0.0, 0.9  # the weakest cell is on the object
    maps[3, 1, 1], share[3, 1, 1], share[3, 0, 0] = 2.5, 0.6, 0.95
    maps[4], share[4, 0, 0], share[4, 2, 1] = 0.5, 0.2, 0.9  # all are strongest; a miss
    share[4, 3, 2] = 0.1
    maps[5, 0, 1] = maps[5, 3, 0] = 4.0
    share[5, 0, 1], share[5, 3, 0] = 0.8, 0.1  # the first counts; a hit
    value = ask(answer, maps, share)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise NotSolved("two values are expected, `return hits, mass`")
    hits, mass = value
    expect_shape(hits, (count,), "hits, (B,)")
    expect_shape(mass, (count,), "mass, (B,)")
    flat, shares = maps.flatten(1), share.flatten(1)  # (B, rows, cols) -> (B, M)
    strongest = flat.argmax(dim=1)
    numbers = torch.arange(count)
    whole = (maps * share).sum(dim=(1, 2))
    right = shares[numbers, strongest] >= 0.5
    if torch.equal(mass.double(), right.double()):
        raise NotSolved("the two are swapped: `return hits, mass`")
    ties = flat == flat.amax(dim=1, keepdim=True)  # (B, M)
    last = flat.shape[1] - 1 - flat.flip(1).argmax(dim=1)
    expect_close(
        hits.detach().double(),
        right.double(),
        {
            "a hit is counted where the strongest cell shows any of the object: at least half of "
            "the cell has to be object, `>= 0.5`": (shares[numbers, strongest] > 0).double(),
            "a strongest cell that is exactly half object is a hit: `>=`, not `>`": (
                shares[numbers, strongest] > 0.5
            ).double(),
            "hits are asked of the strongest cell of the whole batch: `argmax` needs a dimension, "
            "so that each map has a strongest cell of its own": (
                shares.flatten()[maps.argmax()].expand(count) >= 0.5
            ).double(),
            "the share of the strongest cell came back; say whether it is at least half": shares[
                numbers, strongest
            ].double(),
            "whether the map and the object are strongest in the same cell is another question: a "
            "hit is a strongest cell of the map that is at least half object": (
                strongest == shares.argmax(dim=1)
            ).double(),
            "the weakest cell was looked up: `argmax`, not `argmin`": (
                shares[numbers, flat.argmin(dim=1)] >= 0.5
            ).double(),
            "any of several strongest cells may point in your lines, and a constant map then hits "
            "every object: the first of them, row by row, counts": (ties & (shares >= 0.5))
            .any(dim=1)
            .double(),
            "the last of several strongest cells counts in your lines, and the first, row by row, "
            "is asked for": (shares[numbers, last] >= 0.5).double(),
            "the object's cells of the largest share were looked up in the map; look up the map's "
            "strongest cell in the share": (flat[numbers, shares.argmax(dim=1)] >= 0.5).double(),
        },
        "the hits are others: look up the share of object at the map's strongest cell, "
        "`share.flatten(1).gather(1, strongest)`",
    )
    expect_close(
        mass.detach().double(),
        (whole / maps.sum(dim=(1, 2))).double(),
        {
            "the mass is not divided by the sum of the map: these maps do not sum to 1": (
                whole.double()
            ),
            "the mass is divided by the object's area: divide by the sum of the map": (
                whole / share.sum(dim=(1, 2))
            ).double(),
            "the mass is divided by the sum over the whole batch: `sum(dim=(1, 2))`": (
                whole / maps.sum()
            ).double(),
            "the mass is a mean over cells: sum over the cells, then divide by the map's sum": (
                whole / 12
            ).double(),
            "cells are counted wholly or not at all: count each by its share of object": (
                (maps * (share >= 0.5)).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
            ).double(),
        },
        "the mass is another number: sum of map times share, divided by the sum of the map",
    )


# ---- 7.2 -----------------------------------------------------------------------------------------


@exercise("7.2", "The interval of a mean")
def check_interval(answer: Callable[[Tensor, torch.Generator], tuple[float, float]]) -> None:
    """Values of 40 pictures; the width of the interval names what was done instead."""
    values = torch.rand(40, generator=torch.Generator().manual_seed(3)).square() + 0.2
    error = float(values.std(correction=0)) / math.sqrt(len(values))  # of the mean

    def limits(seed: int = 5, of: Tensor = values) -> tuple[float, float]:
        value = ask(answer, of, torch.Generator().manual_seed(seed))
        try:
            low, high = (float(each) for each in value)
        except (TypeError, ValueError, RuntimeError):
            raise NotSolved("two numbers are expected, `return low, high`") from None
        return low, high

    low, high = limits()
    if low > high:
        raise NotSolved("low is above high: the 2.5 % quantile comes first")
    mean = float(values.mean())
    if high - low < 0.02 * error:
        raise NotSolved(
            "low and high are equal: every resample holds each picture once, as a permutation "
            "does, and so has the same mean; draw with replacement"
        )
    if low <= float(values.quantile(0.05)) and high >= float(values.quantile(0.95)):
        raise NotSolved(
            "these are percentiles of the pictures, not of means: take the mean of each resample "
            "first, over the pictures (dim 1 of (2000, n))"
        )
    if not low < mean < high:
        raise NotSolved(
            f"the mean, {mean:.3f}, does not lie between {low:.3f} and {high:.3f}: are they "
            "quantiles of the resamples' means?"
        )
    if limits() != (low, high):
        raise NotSolved(
            "the same seed gives another interval: draw with the generator that you were given"
        )
    several = torch.tensor([limits(seed) for seed in range(16)], dtype=torch.float64)  # (16, 2)
    if torch.equal(several, several[:1].expand_as(several)):
        raise NotSolved(
            "another seed gives the same interval: draw with the generator that you were given, "
            "and not with a seed of your own; a formula (1.96 s/√n) draws nothing"
        )
    spread = float(several.std(dim=0).mean()) / error  # of an end, from seed to seed: 0.06 expected
    too_few = (
        f"the ends of the interval move by {spread:.2f} standard errors from seed to seed, and "
        "0.06 is expected: are there 2,000 resamples?"
    )
    width = float((several[:, 1] - several[:, 0]).mean()) / (2 * error)  # 1.96 expected
    if spread > 0.3:
        raise NotSolved(too_few)
    ways = {
        1.0: "one standard deviation of the means on either side is 68 %: take the quantiles 0.025 "
        "and 0.975",
        1.645: "this is 90 %, quantiles 0.05 and 0.95: 2.5 % are cut off on either side, not 5 %",
        1.96
        * 2**0.5: "the resamples hold half as many pictures as there are: the width belongs to a "
        "mean over n, so draw n",
        2.576: "this is 99 %: cut off 2.5 % on either side",
        0.26: "the mean ran over the resamples and not over the pictures of one: dim 1 of "
        "(2000, n)",
    }
    if abs(width - 1.96) > 0.13:
        for known, message in ways.items():
            if abs(width - known) < 0.13:
                raise NotSolved(message)
        size = "wide" if width > 1.96 else "narrow"
        raise NotSolved(
            f"the interval is too {size}, {width / 1.96:.2f} times as wide as expected: 2,000 "
            "resamples of n pictures each, and the quantiles 0.025 and 0.975 of their means"
        )
    if spread > 0.11:
        raise NotSolved(too_few)
    one_in_eight = torch.zeros(8)
    one_in_eight[2] = 1  # a mean of k/8 where k of 8 draws hit it: 0 and 3 are the quantiles
    low, high = limits(of=one_in_eight)
    if abs(low) > 0.02 or abs(high - 0.375) > 0.02:
        raise NotSolved(
            f"of seven zeros and a one the interval is {low:.3f} to {high:.3f}, and 0 to 0.375 is "
            "expected: take the quantiles 0.025 and 0.975 of the means themselves, and not the "
            "mean plus and minus 1.96 deviations, which is as far on both sides; draw n = "
            "len(values) pictures"
        )


# ---- 7.3 -----------------------------------------------------------------------------------------


@cache
def _models() -> list[VisionTransformer]:
    """Two small models of other depths, one with LayerScale."""

    def config(depth: int, num_classes: int, layer_scale: float | None) -> ViTConfig:
        return ViTConfig(
            image_size=(8, 12),
            patch_size=(4, 4),
            dim=8,
            depth=depth,
            num_heads=2,
            hidden_dim=16,
            num_classes=num_classes,
            activation="gelu",
            layer_norm_eps=1e-6,
            layer_scale=layer_scale,
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [
            VisionTransformer(config(3, 5, 0.1)),
            VisionTransformer(config(2, 4, None)),
        ]


@exercise("7.3", "Parameters that the map does not know of")
def check_silent(answer: Callable[[VisionTransformer], Iterable[str]]) -> None:
    """Which names are missing, and which are too many, says what was overlooked."""
    for model in _models():
        value = ask(answer, model)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise NotSolved("a set of names is expected")
        value = list(value)
        if others := [each for each in value if not isinstance(each, str)]:
            kind = "parameters" if isinstance(others[0], Tensor) else type(others[0]).__name__
            raise NotSolved(
                f"a set of names is expected, and these are {kind}: `model.named_parameters()` "
                "gives pairs (name, parameter), of which the first is asked for"
            )
        names = set(value)
        known = {name for name, _ in model.named_parameters()}
        if strange := sorted(str(name) for name in names - known):
            raise NotSolved(
                f"the model has no parameter {strange[0]!r}: give the names of "
                "`model.named_parameters()`, in full"
            )
        last = f"blocks.{len(model.blocks) - 1}."
        _refuse_too_many(names, last)
        after = (".attn.proj.", ".norm2.", ".mlp.", ".ls1.", ".ls2.")
        expected = {
            name
            for name in known
            if name.startswith(("head.", "norm."))
            or (name.startswith(last) and any(part in name for part in after))
        }
        _refuse_missing(expected - names, last)


def _refuse_too_many(names: set[str], last: str) -> None:
    embeddings = ("patch_embed.", "cls_token", "pos_embed")
    for name in sorted(names):
        if name.startswith((f"{last}norm1.", f"{last}attn.qkv.")):
            raise NotSolved(
                f"{name} moves the map: queries and keys of the last block are made with it, "
                "before softmax"
                + (
                    "; that its third for v is silent does not make the whole silent"
                    if ".qkv." in name
                    else ""
                )
            )
        if name.startswith("blocks.") and not name.startswith(last):
            raise NotSolved(
                f"{name} moves the map: what an earlier block adds is the last block's input. Is "
                "the number of the last block written into your lines? This model's is "
                f"{last.split('.')[1]}"
            )
        if name.startswith(embeddings):
            raise NotSolved(f"{name} moves the map: all tokens begin with it")


def _refuse_missing(missing: set[str], last: str) -> None:
    reasons = {
        "head.": "the head comes after all blocks",
        "norm.": "the model's norm comes after the last block",
        f"{last}mlp.": "the MLP of the last block comes after its attention",
        f"{last}norm2.": "the second norm of the last block feeds its MLP, after its attention",
        f"{last}attn.proj.": "the projection is applied after softmax, to what was mixed",
        f"{last}ls": "LayerScale (ls1, ls2) scales what the last block adds, after softmax",
    }
    for prefix, reason in reasons.items():
        for name in sorted(missing):
            if name.startswith(prefix):
                raise NotSolved(f"{name} is missing: {reason}")


# ---- 7.4 -----------------------------------------------------------------------------------------


@exercise("7.4", "The curve of deletion")
def check_deletion(answer: Callable[[Callable[[Tensor], float], Tensor, int], Tensor]) -> None:
    """A picture of 3 x 5 patches, each of which has a part of its own in the probability.

    15 patches do not go into 4 equal steps, and without a patch the probability is not 0.
    """
    random = torch.Generator().manual_seed(11)
    one_map = torch.randperm(15, generator=random).view(3, 5) / 15
    parts = torch.rand(15, generator=random, dtype=torch.float64)
    parts *= 0.9 / parts.sum()
    points = 4

    problems: list[str] = []  # of what `probability` was given, the first of which is told

    def probability(keep: Tensor) -> float:
        if not isinstance(keep, Tensor) or keep.dim() != 1 or keep.is_floating_point():
            problems.append(
                "`probability` takes the numbers of the kept patches, (K,), whole numbers"
            )
        elif keep.dtype == torch.bool:
            problems.append("`probability` takes the numbers of the kept patches, not a mask")
        elif len(keep.unique()) < len(keep):
            problems.append(
                "a patch is kept twice: flatten the map before sorting, else each row of the grid "
                "is sorted alone, and its numbers are those of columns"
            )
        elif len(keep) and not 0 <= int(keep.min()) <= int(keep.max()) < 15:
            problems.append("there are rows · cols patches, counted from 0, and others were kept")
        return 0.0 if problems else 0.1 + float(parts[keep].sum())

    curve = ask(answer, probability, one_map, points)
    if problems:
        raise NotSolved(problems[0])
    if isinstance(curve, (list, tuple)):
        curve = torch.tensor([float(value) for value in curve])
    if isinstance(curve, Tensor) and tuple(curve.shape) in ((points,), (points - 1,)):
        raise NotSolved(
            f"the curve has {len(curve)} values: with all patches and after each of {points} steps "
            f"are {points + 1}"
        )
    expect_shape(curve, (points + 1,), "(points + 1,)")
    order = one_map.flatten().argsort(descending=True)
    rounded = (0, 4, 8, 11, 15)

    def along(kept: Callable[[int], Tensor], counts: Sequence[int] = rounded) -> Tensor:
        return torch.stack([0.1 + parts[kept(count)].sum() for count in counts])

    def removed(count: int) -> Tensor:
        return order[count:]

    upwards = order.flip(0)
    right = along(removed)
    never_asked = right.clone()
    never_asked[-1] = 0
    rounding = (
        "{} were removed, and {} is asked for: after step i, round(i · M / points) patches are "
        "gone, the last time all"
    )
    mistakes = {
        rounding.format(list(counts), list(rounded)): along(removed, counts)
        for counts in (
            (0, 3, 7, 11, 15),  # cut
            (0, 4, 8, 12, 15),  # up, or in equal steps to the end
            (0, 3, 6, 9, 12),  # in equal steps, which do not reach the end
            (0, 3, 6, 9, 15),
            (0, 4, 7, 11, 15),
            (0, 4, 7, 10, 14),  # one patch is left
            (0, 3, 7, 10, 14),
        )
    }
    expect_close(
        curve.detach().double(),
        right,
        mistakes
        | {
            "the last value is 0, and it is what `probability` gives when no patch is kept: ask "
            "it, with an empty tensor of whole numbers": never_asked,
            "this is insertion: it begins with no patch and puts the most important back; deletion "
            "begins with all (or was `probability` given the removed patches?)": along(
                lambda count: order[:count]
            ),
            "the least important patches go first: sort with `descending=True`": along(
                lambda count: upwards[count:]
            ),
            "the curve is the wrong way round: its first value is that with all patches": along(
                lambda count: order[15 - count :]
            ),
        },
        "the numbers are others: flatten the map before sorting, remove the first n of the order "
        "and keep the rest, n = round(i · M / points) for i = 0 … points",
    )


# ---- 7.5 -----------------------------------------------------------------------------------------


@cache
def _scenes_model() -> VisionTransformer:
    model = minivit.load_model("scenes")
    assert isinstance(model, VisionTransformer)
    return model


@exercise("7.5", "A map that convinces and is wrong")
def check_wrong_map(number: int) -> None:
    """Measures the scene: what the map points at, and what the answer does without it."""
    if isinstance(number, Tensor) and number.numel() == 1:
        number = number.item()
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise NotSolved("the number of one scene is expected, as in `wrong_map = 17`")
    if not 0 <= number < _SEARCHED:
        raise NotSolved(f"scene {number}: choose from 0 to {_SEARCHED - 1}")
    model, scene = _scenes_model(), make_scene(TEST_SEED, int(number), image_size=96)
    if len(scene.objects) == 1:
        raise NotSolved(
            f"scene {number} has a single object, and the map is to lie on another than the main "
            "one"
        )
    image = model.preprocess(scene.image)[None]  # (1, C, height, width)
    strongest = METHODS["attention"](model, image, block=1).argmax()
    masks = torch.stack([torch.from_numpy(each.mask) for each in scene.objects])
    shares = covered(masks, model.grid_size).flatten(1)  # (objects, rows, cols) -> (objects, M)
    main = f"{scene.objects[0].colour} {scene.objects[0].shape}"
    other = 1 + int(shares[1:, strongest].argmax())
    if shares[other, strongest] < 0.5:
        raise NotSolved(
            f"scene {number}: {float(shares[0, strongest]):.0%} of the strongest cell is covered "
            f"by the main object, the {main}, and {float(shares[other, strongest]):.0%} by another "
            "one; at least half has to be another one"
        )
    with torch.no_grad():
        right = int(model(image).argmax()) == scene.label
    stays, falls = (
        float(
            logits_of_kept(model, image, (shares[each] == 0).nonzero()[:, 0]).softmax(dim=1)[
                0, scene.label
            ]
        )
        for each in (other, 0)
    )
    if not (right and stays > 0.9 and falls < 0.5):
        raise NotSolved(
            f"scene {number}: the answer is {'right' if right else 'wrong'}, and its probability "
            f"is {stays:.2f} without the other object and {falls:.2f} without the {main}; right, "
            "above 0.9 and below 0.5 is asked for"
        )
