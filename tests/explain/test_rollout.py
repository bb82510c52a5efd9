"""Rollout against a loop on paper, and what must hold always."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivit import Attentions
from minivit.explain import rollout
from minivit.explain.rollout import Fusion


def by_hand(attentions: list[np.ndarray]) -> np.ndarray:
    """One picture, (H, N, N) a block: entry by entry."""
    length = attentions[0].shape[-1]
    flow = [[float(i == j) for j in range(length)] for i in range(length)]
    for attention in attentions:  # the first block first
        mixed = [
            [
                0.5 * sum(head[i, j] for head in attention) / len(attention) + 0.5 * (i == j)
                for j in range(length)
            ]
            for i in range(length)
        ]
        flow = [
            [sum(mixed[i][k] * flow[k][j] for k in range(length)) for j in range(length)]
            for i in range(length)
        ]
    return np.array(flow)


def maps(seed: int, depth: int, length: int, heads: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (3 * torch.randn(2, heads, length, length, generator=generator, dtype=torch.float64))
        .softmax(-1)
        for _ in range(depth)
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_rollout_is_the_loop_on_paper(depth: int) -> None:
    attentions = maps(0, depth, 5)
    flow = rollout(attentions)
    assert flow.shape == (2, 5, 5)
    for picture in range(2):
        expected = by_hand([attention[picture].numpy() for attention in attentions])
        np.testing.assert_allclose(flow[picture].numpy(), expected, atol=1e-12)


def test_blocks_are_walked_from_the_first_to_the_last() -> None:
    """In block 1 token 1 reads token 2, in block 2 token 0 reads token 1: so 0 hears of 2."""
    first, second = torch.eye(3)[None, None], torch.eye(3)[None, None]
    first, second = first.clone(), second.clone()
    first[0, 0, 1] = torch.tensor([0.0, 0.0, 1.0])
    second[0, 0, 0] = torch.tensor([0.0, 1.0, 0.0])
    assert rollout([first, second])[0, 0].tolist() == [0.5, 0.25, 0.25]
    assert rollout([second, first])[0, 0].tolist() == [0.5, 0.5, 0.0]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31 - 1), depth=st.integers(1, 6), length=st.integers(1, 7))
def test_rows_sum_to_one_and_are_not_negative(seed: int, depth: int, length: int) -> None:
    flow = rollout(maps(seed, depth, length))
    assert bool((flow >= 0).all())
    torch.testing.assert_close(flow.sum(-1), torch.ones(2, length, dtype=torch.float64))


def test_attention_to_oneself_alone_moves_nothing() -> None:
    identity = torch.eye(6).expand(2, 3, 6, 6)
    assert torch.equal(rollout([identity] * 4), torch.eye(6).expand(2, 6, 6))


def test_the_given_maps_stay_as_they_are_and_carry_gradients() -> None:
    attentions = [attention.requires_grad_() for attention in maps(1, 3, 4)]
    before = [attention.detach().clone() for attention in attentions]
    rollout(attentions)[:, 0, -1].sum().backward()
    for attention, old in zip(attentions, before, strict=True):
        assert torch.equal(attention, old)
        assert attention.grad is not None and attention.grad.abs().max() > 0


def test_nothing_cannot_be_rolled_out() -> None:
    with pytest.raises(ValueError, match="return_attention=True"):
        rollout([])


def test_rows_cannot_be_rolled_out() -> None:
    with pytest.raises(ValueError, match=r"whole maps .* found \(2, 3, 1, 5\)"):
        rollout([torch.rand(2, 3, 1, 5)])


@pytest.mark.parametrize(
    ("known", "complaint"),
    [({"blocks": (3, 1)}, "blocks in order, found 3, 1"), ({"queries": (1, 0)}, "rows in order")],
)
def test_blocks_and_rows_in_another_order_cannot_be_rolled_out(
    known: dict[str, tuple[int, ...]], complaint: str
) -> None:
    attentions = maps(0, 2, 2)
    assert torch.equal(
        rollout(Attentions(attentions, blocks=(1, 3), queries=(0, 1))), rollout(attentions)
    )
    with pytest.raises(ValueError, match=complaint):
        rollout(Attentions(attentions, **known))


def variant(attention: np.ndarray, fusion: str, residual: float, discard: float) -> np.ndarray:
    """One block of one picture, (H, N, N) to (N, N), with numpy's sort."""
    fused = {"mean": attention.mean(0), "max": attention.max(0), "min": attention.min(0)}[fusion]
    dropped = np.argsort(fused, axis=None)[: int(discard * fused.size)]
    fused.flat[dropped] = 0
    mixed = (1 - residual) * fused + residual * np.eye(len(fused))
    return mixed / mixed.sum(1, keepdims=True)


@pytest.mark.parametrize("discard", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("residual", [0.2, 0.5])
@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_the_variants_are_a_few_lines_of_numpy(
    fusion: Fusion, residual: float, discard: float
) -> None:
    attentions = maps(2, 3, 6)
    flow = rollout(attentions, fusion=fusion, residual=residual, discard=discard)
    torch.testing.assert_close(flow.sum(-1), torch.ones(2, 6, dtype=torch.float64))
    for picture in range(2):
        first, second, third = (
            variant(attention[picture].numpy(), fusion, residual, discard)
            for attention in attentions
        )
        np.testing.assert_allclose(flow[picture].numpy(), third @ second @ first, atol=1e-12)


def test_entries_equal_to_the_smallest_that_stays_stay_too() -> None:
    """Half of four entries would go: one is below .3, the others equal it or lie above."""
    attention = torch.tensor([[0.1, 0.9], [0.3, 0.3]])[None, None]
    assert rollout([attention], discard=0.5)[0].tolist() == [
        [pytest.approx(0.5 / 0.95), pytest.approx(0.45 / 0.95)],
        [pytest.approx(0.15 / 0.8), pytest.approx(0.65 / 0.8)],
    ]


def test_without_a_residual_rollout_is_the_product_of_the_maps() -> None:
    first, second = maps(3, 2, 5, heads=1)
    torch.testing.assert_close(rollout([first, second], residual=0.0), (second @ first)[:, 0])
    assert torch.equal(rollout([first], residual=1.0)[0], torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "median"}, "fusion is 'median': choose from mean, max, min"),
        ({"residual": 1.1}, "residual is 1.1, expected a number from 0 to 1"),
        ({"residual": float("nan")}, "residual is nan, expected"),
        ({"discard": 1.0}, "discard is 1.0, expected a number from 0 to below 1"),
        ({"discard": 0.5, "residual": 0.0}, "would be left with nothing; use a residual above 0"),
    ],
)
def test_what_is_no_rollout_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout(maps(0, 1, 3), **options)
