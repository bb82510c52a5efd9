"""Checks of lesson 7 tell wrong answers apart, and the map ignores what comes after softmax."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

import minivit
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explain import METHODS
from minivit.vit import VisionTransformer
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_deletion,
    check_interval,
    check_pointing_and_mass,
    check_silent,
    check_wrong_map,
    lesson_07,
)

Pair = tuple[Tensor, Tensor]


# ---- 7.1 -----------------------------------------------------------------------------------------


def test_pointing_and_mass() -> None:
    right = solution("07", "7.1")["pointing_and_mass"]

    def one_by_one(maps: Tensor, share: Tensor) -> Pair:
        hits, masses = [], []
        for each, part in zip(maps, share, strict=True):
            row, column = divmod(int(each.argmax()), each.shape[1])
            hits.append(bool(part[row, column] >= 0.5))
            masses.append(float((each / each.sum() * part).sum()))
        return torch.tensor(hits), torch.tensor(masses)

    def of_batch(maps: Tensor, share: Tensor) -> Pair:
        strongest = share.flatten()[maps.argmax()] >= 0.5
        return strongest.expand(len(maps)), right(maps, share)[1]

    def hit_if(rule: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Pair]:
        def answer(maps: Tensor, share: Tensor) -> Pair:
            strongest = maps.flatten(1).argmax(dim=1, keepdim=True)
            return rule(share.flatten(1).gather(1, strongest)[:, 0]), right(maps, share)[1]

        return answer

    def mass_of(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Pair]:
        return lambda maps, share: (right(maps, share)[0], rule(maps, share))

    def any_of_ties(maps: Tensor, share: Tensor) -> Pair:
        ties = maps == maps.amax(dim=(1, 2), keepdim=True)
        return (ties & (share >= 0.5)).any(dim=2).any(dim=1), right(maps, share)[1]

    both = (1, 2)
    assert_told_apart(
        check_pointing_and_mass,
        right=[right, one_by_one],
        wrong={
            "shows any of the object": hit_if(lambda part: part > 0),
            "exactly half object": hit_if(lambda part: part > 0.5),
            "say whether it is at least half": hit_if(lambda part: part),
            "strongest cell of the whole batch": of_batch,
            "strongest in the same cell": lambda maps, share: (
                maps.flatten(1).argmax(dim=1) == share.flatten(1).argmax(dim=1),
                right(maps, share)[1],
            ),
            "the weakest cell": lambda maps, share: (right(-maps, share)[0], right(maps, share)[1]),
            "the two are swapped": lambda maps, share: right(maps, share)[::-1],
            "any of several": any_of_ties,
            "the last of several": lambda maps, share: (
                right(maps.flip(1, 2), share.flip(1, 2))[0],
                right(maps, share)[1],
            ),
            "in the share": lambda maps, share: (
                right(share, maps)[0],
                right(maps, share)[1],
            ),
            "not divided by the sum": mass_of(lambda maps, share: (maps * share).sum(dim=both)),
            "divided by the object's area": mass_of(
                lambda maps, share: (maps * share).sum(dim=both) / share.sum(dim=both)
            ),
            "over the whole batch: `sum": mass_of(
                lambda maps, share: (maps * share).sum(dim=both) / maps.sum()
            ),
            "mean over cells": mass_of(lambda maps, share: (maps * share).mean(dim=both)),
            "wholly or not at all": mass_of(
                lambda maps, share: (maps * (share >= 0.5)).sum(dim=both) / maps.sum(dim=both)
            ),
            "mass, (B,)": mass_of(lambda maps, share: (maps * share).sum()),
            "two values": lambda maps, share: right(maps, share)[0],
            "changed it": changed_in_place(right),
            "nothing comes back": lambda maps, share: None,
        },
    )


# ---- 7.2 -----------------------------------------------------------------------------------------


def test_interval() -> None:
    right = solution("07", "7.2")["interval"]

    def with_numpy(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        seed = int(torch.randint(2**31, (1,), generator=generator))
        random = np.random.default_rng(seed)
        array = values.numpy()
        means = [random.choice(array, size=len(array)).mean() for _ in range(2000)]
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)

    def quantiles(
        low: float, high: float, size: int = 40, count: int = 2000
    ) -> Callable[[Tensor, torch.Generator], tuple[float, float]]:
        def answer(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
            drawn = torch.randint(len(values), (count, size), generator=generator)
            means = values[drawn].mean(dim=1)
            return float(means.quantile(low)), float(means.quantile(high))

        return answer

    def permuted(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        means = torch.stack(
            [values[torch.randperm(40, generator=generator)].mean() for _ in range(100)]
        )
        return float(means.quantile(0.025)), float(means.quantile(0.975))

    def of_pictures(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        drawn = torch.randint(40, (2000, 40), generator=generator)
        return float(values[drawn].quantile(0.025)), float(values[drawn].quantile(0.975))

    def over_resamples(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        drawn = torch.randint(40, (2000, 40), generator=generator)
        means = values[drawn].mean(dim=0)  # the wrong dimension
        return float(means.quantile(0.025)), float(means.quantile(0.975))

    def of_its_own(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        means = values[torch.randint(40, (2000, 40))].mean(dim=1)
        return float(means.quantile(0.025)), float(means.quantile(0.975))

    def around_zero(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        low, high = right(values, generator)
        return low - float(values.mean()), high - float(values.mean())

    def formula(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        half = 1.96 * float(values.std()) / len(values) ** 0.5
        return float(values.mean()) - half, float(values.mean()) + half

    def as_far_on_both_sides(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        drawn = torch.randint(len(values), (2000, len(values)), generator=generator)
        means = values[drawn].mean(dim=1)
        half = 1.96 * float(means.std())
        return float(means.mean()) - half, float(means.mean()) + half

    def fixed_seed(values: Tensor, generator: torch.Generator) -> tuple[float, float]:
        return cast(tuple[float, float], right(values, torch.Generator().manual_seed(0)))

    for same in (formula, fixed_seed):
        message = check_interval.message(same)
        assert message is not None and "another seed gives the same" in message
    for count in (20, 50, 200):
        message = check_interval.message(quantiles(0.025, 0.975, count=count))
        assert message is not None and "are there 2,000 resamples" in message, (count, message)
    assert_told_apart(
        check_interval,
        right=[right, with_numpy],
        wrong={
            "draw with replacement": permuted,
            "percentiles of the pictures": of_pictures,
            "not over the pictures of one": over_resamples,
            "too wide": quantiles(0.025, 0.975, size=10),
            "another seed gives the same": fixed_seed,
            "are there 2,000": quantiles(0.025, 0.975, count=200),
            "as far on both sides": as_far_on_both_sides,
            "90 %": quantiles(0.05, 0.95),
            "68 %": quantiles(0.16, 0.84),
            "99 %": quantiles(0.005, 0.995),
            "half as many": quantiles(0.025, 0.975, size=20),
            "low is above high": quantiles(0.975, 0.025),
            "the same seed": of_its_own,
            "does not lie between": around_zero,
            "two numbers": lambda values, generator: values.mean(),
            "nothing comes back": lambda values, generator: None,
        },
    )


# ---- 7.3 -----------------------------------------------------------------------------------------


def test_silent() -> None:
    right = solution("07", "7.3")["silent"]

    def by_name(model: VisionTransformer) -> list[str]:
        last = f"blocks.{len(model.blocks) - 1}"
        starts = [f"{last}.{part}." for part in ("attn.proj", "norm2", "mlp", "ls1", "ls2")]
        starts += ["norm.", "head."]
        return [name for name, _ in model.named_parameters() if name.startswith(tuple(starts))]

    def less(part: str) -> Callable[[VisionTransformer], set[str]]:
        return lambda model: {name for name in right(model) if part not in name}

    def more(part: str) -> Callable[[VisionTransformer], set[str]]:
        return lambda model: right(model) | {n for n, _ in model.named_parameters() if part in n}

    def of_block_2(model: VisionTransformer) -> set[str]:
        """Right for three blocks only."""
        names = {name for name, _ in model.named_parameters()}
        return {n for n in names if n in right(model) and not n.startswith("blocks.1.")}

    assert_told_apart(
        check_silent,
        right=[right, by_name],
        wrong={
            "the head comes after": less("head"),
            "norm.bias is missing": lambda model: {
                name for name in right(model) if not name.startswith("norm.")
            },
            "the MLP of the last block": less("mlp"),
            "the second norm": less("norm2"),
            "the projection is applied after": less("attn.proj"),
            "LayerScale": less(".ls"),
            "blocks.1.mlp.fc1.bias is missing": of_block_2,
            "third for v": more("blocks.2.attn.qkv."),
            "queries and keys of the last block": more("blocks.2.norm1."),
            "what an earlier block adds": more(".0.mlp."),
            "all tokens begin with it": more("pos_embed"),
            "no parameter 'head'": lambda model: {"head"},
            "these are parameters": lambda model: set(model.parameters()),
            "these are tuple": lambda model: set(model.named_parameters()),
            "a set of names": lambda model: 3,
            "nothing comes back": lambda model: None,
        },
    )


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_what_comes_after_the_last_softmax_moves_no_map(method: str) -> None:
    """The lesson's claim in the library: equal bits, until q and k of the last block change."""
    model = minivit.load_model("scenes")
    images = torch.stack(
        [model.preprocess(make_scene(TEST_SEED, n, image_size=96).image) for n in range(3)]
    )
    changed = copy.deepcopy(model)
    parameters = dict(changed.named_parameters())
    before = METHODS[method](model, images)
    with torch.no_grad():
        for name in solution("07", "7.3")["silent"](model):
            parameters[name].normal_()
    assert not torch.allclose(changed(images), model(images))
    assert torch.equal(METHODS[method](changed, images), before)
    with torch.no_grad():
        parameters["blocks.3.attn.qkv.weight"].mul_(0.5)
    assert not torch.allclose(METHODS[method](changed, images), before)


# ---- 7.4 -----------------------------------------------------------------------------------------


def test_deletion() -> None:
    right = solution("07", "7.4")["deletion"]

    def step_by_step(
        probability: Callable[[Tensor], float], one_map: Tensor, points: int
    ) -> list[float]:
        values = one_map.flatten().tolist()
        left = sorted(range(len(values)), key=lambda number: -values[number])
        return [
            probability(torch.tensor(left[round(i * len(left) / points) :], dtype=torch.long))
            for i in range(points + 1)
        ]

    def kept(
        choose: Callable[[Tensor, int], Tensor],
        flat: bool = True,
        counts: Sequence[int] = (),
    ) -> Callable[[Callable[[Tensor], float], Tensor, int], Tensor]:
        def answer(probability: Callable[[Tensor], float], one_map: Tensor, points: int) -> Tensor:
            ranked = one_map.flatten() if flat else one_map
            order = ranked.argsort(dim=-1, descending=True).flatten()
            removed = counts or torch.linspace(0, len(order), points + 1).round().long().tolist()
            return torch.tensor([probability(choose(order, count)) for count in removed])

        return answer

    def rest(order: Tensor, count: int) -> Tensor:
        return order[count:]

    def as_mask(probability: Callable[[Tensor], float], one_map: Tensor, points: int) -> Tensor:
        keep = one_map.flatten() < 2
        return torch.tensor([probability(keep)] * (points + 1))

    assert_told_apart(
        check_deletion,
        right=[right, step_by_step],
        wrong={
            "this is insertion": kept(lambda order, n: order[:n]),
            "least important patches go first": kept(lambda order, n: order.flip(0)[n:]),
            "wrong way round": kept(lambda order, n: order[len(order) - n :]),
            "the numbers are others": kept(lambda order, n: order[min(n + 1, 15) :]),
            "others were kept": kept(lambda order, n: order[n:] + 1),
            "whole numbers": kept(lambda order, n: order[n:].float()),
            "kept twice": kept(lambda order, n: order[n:], flat=False),
            "the curve has 4 values": lambda *given: right(*given)[:-1],
            "[0, 3, 7, 11, 15] were removed": kept(rest, counts=(0, 3, 7, 11, 15)),
            "[0, 4, 8, 12, 15] were removed": kept(rest, counts=(0, 4, 8, 12, 15)),
            "[0, 3, 6, 9, 12] were removed": kept(rest, counts=(0, 3, 6, 9, 12)),
            "[0, 4, 7, 10, 14] were removed": kept(rest, counts=(0, 4, 7, 10, 14)),
            "the last value is 0": lambda *given: torch.cat([right(*given)[:-1], torch.zeros(1)]),
            "not a mask": as_mask,
            "nothing comes back": lambda *given: None,
            "changed it": lambda probability, one_map, points: (
                one_map.add_(1),
                right(probability, one_map, points),
            )[1],
        },
    )


# ---- 7.5 -----------------------------------------------------------------------------------------


def test_wrong_map() -> None:
    first = solution("07", "7.5")["wrong_map"]
    assert_told_apart(
        check_wrong_map,
        right=[first, 51, torch.tensor(98)],
        wrong={
            "at least half has to be another one": 0,
            "has a single object": 2,
            "choose from 0 to 199": 200,
            "the number of one scene": "5",
            "nothing is written": ...,
        },
    )


def test_a_wrong_map_has_to_leave_the_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this series no scene fails after the first rule, so here the model answers otherwise."""

    def even(model: VisionTransformer, image: Tensor, keep: Tensor) -> Tensor:
        return torch.zeros(1, 48)

    monkeypatch.setattr(lesson_07, "logits_of_kept", even)
    message = check_wrong_map.message(51)
    assert message is not None and "0.02 without the other object" in message
