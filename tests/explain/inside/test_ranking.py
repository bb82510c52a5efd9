"""Ranking of heads and MLPs: against passes by hand in which one of them is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit.explain import intervene, rank_parts
from tests.explain.by_hand import CONFIGS, forward, make_images, make_model
from tests.explain.untouched import untouched


@pytest.mark.parametrize("target", [None, 4, [4, 9]])
@pytest.mark.parametrize("name", ["plain", "registers", "dinov2", "distilled", "mean_fc_norm"])
def test_numbers_are_those_of_passes_by_hand(name: str, target: Any) -> None:
    model, images = make_model(**CONFIGS[name]), make_images()
    logits = forward(model, images)
    numbers = logits.argmax(1) if target is None else torch.tensor(target).expand(2)

    def log_probability(logits: Tensor) -> Tensor:
        return logits[[0, 1], numbers] - logits.exp().sum(1).log()

    def without(silent: tuple[str, int], head: int | None = None) -> Tensor:
        def silence(part: str, block: int, value: Tensor) -> Tensor:
            if (part, block) != silent:
                return value
            if head is None:
                return torch.zeros_like(value)
            value = value.clone()
            value[:, head] = 0
            return value

        changed = log_probability(forward(model, images, silence))
        return (changed - log_probability(logits)).mean()

    ranking = rank_parts(model, images, target)
    heads = torch.stack(
        [torch.stack([without(("heads", i), h) for h in range(4)]) for i in range(3)]
    )
    mlps = torch.stack([without(("mlps", i)) for i in range(3)])
    torch.testing.assert_close(ranking.heads, heads, atol=1e-10, rtol=0)
    torch.testing.assert_close(ranking.mlps, mlps, atol=1e-10, rtol=0)
    torch.testing.assert_close(ranking.log_probability, log_probability(logits), atol=1e-10, rtol=0)


@torch.no_grad()
def test_within_an_intervention_parts_are_ranked_for_what_it_has_left() -> None:
    model, images = make_model(), make_images()
    with intervene(model, patches=[(0, 0), (1, 1)], outputs=[1], by=0.5):
        ranking = rank_parts(model, images, 4)
        before = model(images).log_softmax(1)[:, 4]
        with intervene(model, mlps=[2]):
            expected = model(images).log_softmax(1)[:, 4] - before
        with intervene(model, heads={0: [3]}):
            first = model(images).log_softmax(1)[:, 4] - before
    torch.testing.assert_close(ranking.mlps[2], expected.mean(), atol=1e-12, rtol=0)
    torch.testing.assert_close(ranking.heads[0, 3], first.mean(), atol=1e-12, rtol=0)


def test_progress_is_counted_in_blocks() -> None:
    steps: list[int] = []

    def bar(title: str, total: int) -> Callable[[int], object]:
        assert (title, total) == ("ablate", 3)
        return steps.append

    rank_parts(make_model(), make_images(), bar=bar)
    assert steps == [1, 1, 1]


def test_no_head_and_no_such_class_are_said_in_a_line() -> None:
    with pytest.raises(ValueError, match="the model has no head"):
        rank_parts(make_model(num_classes=0), make_images())
    model, images = make_model(), make_images()
    with untouched(model, images), pytest.raises(ValueError, match="class 10: choose from 0 to 9"):
        rank_parts(model, images, 10)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("error", [False, True])
def test_nothing_is_left_behind(mode: Any, error: bool) -> None:
    model, images = make_model(dropout=0.1, drop_path=0.1).train(), make_images()

    def bar(title: str, total: int) -> Callable[[int], object]:
        def advance(count: int) -> None:
            if error:
                raise KeyError

        return advance

    with untouched(model, images), mode():
        if error:
            with pytest.raises(KeyError):
                rank_parts(model, images, bar=bar)
        else:
            assert not rank_parts(model, images, bar=bar).heads.requires_grad


@torch.no_grad()
def test_the_mean_over_tokens_takes_a_parts_place() -> None:
    model, images = make_model(**CONFIGS["registers"]), make_images()

    def average(part: str, block: int, value: Tensor) -> Tensor:
        if (part, block) == ("mlps", 1):
            return value.mean(1, keepdim=True).expand_as(value)
        return value

    def average_head(part: str, block: int, value: Tensor) -> Tensor:
        if (part, block) != ("heads", 2):
            return value
        value = value.clone()  # (B, H, N, d)
        value[:, 3] = value[:, 3].mean(1, keepdim=True)
        return value

    ranking = rank_parts(model, images, 4, replace="mean")
    before = forward(model, images).log_softmax(1)[:, 4]
    mlp = (forward(model, images, average).log_softmax(1)[:, 4] - before).mean()
    head = (forward(model, images, average_head).log_softmax(1)[:, 4] - before).mean()
    torch.testing.assert_close(ranking.mlps[1], mlp, atol=1e-10, rtol=0)
    torch.testing.assert_close(ranking.heads[2, 3], head, atol=1e-10, rtol=0)


def test_parts_that_are_not_asked_for_are_left_out() -> None:
    model, images = make_model(), make_images()
    whole = rank_parts(model, images)
    heads, mlps = (rank_parts(model, images, parts=parts) for parts in ("heads", "mlps"))  # type: ignore[arg-type]
    assert torch.equal(heads.heads, whole.heads) and heads.mlps.shape == (0,)
    assert torch.equal(mlps.mlps, whole.mlps) and mlps.heads.shape == (3, 0)


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="replace is 'noise': choose from zero, mean"):
        rank_parts(make_model(), make_images(), replace="noise")  # type: ignore[arg-type]
