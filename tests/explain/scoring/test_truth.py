"""Maps held against masks: planted maps, pixels that are left out, numpy beside every figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.data.photos.masks import Cells, Mask, cell_shares
from minivit.explain.scoring.truth import against_truth, average_precision, chance

CELL = 4  # pixels a side


def planted(seed: int, *, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A map of 2 x 3 cells, and an object and what is known in pixels, at random."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, (2, 3)).astype(float)  # few values, so that some are equal
    pixels = rng.random((2 * CELL, 3 * CELL))
    return values, pixels < 0.4, rng.random(pixels.shape) >= unknown


def cells_of(truth: np.ndarray, known: np.ndarray) -> Cells:
    mask = Mask(torch.from_numpy(truth & known), torch.from_numpy(known))
    share, area = cell_shares(mask, (2, 3))
    return Cells(share[None], area[None])


def precision_by_thresholds(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision from its definition: a mask for every threshold."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = (chosen & truth).sum() / truth.sum()
        total += (recall - recall_before) * (chosen & truth).sum() / chosen.sum()
        recall_before = recall
    return float(total)


@pytest.mark.parametrize("seed", range(12))
def test_figures_are_those_of_the_known_pixels_alone(seed: int) -> None:
    values, truth, known = planted(seed, unknown=0.3)
    cells = cells_of(truth, known)
    figures = against_truth(torch.from_numpy(values)[None], cells)
    pixels = np.kron(values, np.ones((CELL, CELL)))
    weights = pixels * known
    assert float(figures.mass) == pytest.approx((weights * truth).sum() / weights.sum(), abs=1e-6)
    expected = precision_by_thresholds(pixels[known], truth[known])
    assert float(figures.precision) == pytest.approx(expected, abs=1e-6)
    best = np.unravel_index(values.argmax(), values.shape)
    inside = tuple(slice(CELL * n, CELL * (n + 1)) for n in best)
    half = (truth & known)[inside].sum() >= known[inside].sum() / 2
    assert float(figures.pointing) == half
    guess = chance(cells)
    assert float(guess.mass) == pytest.approx(truth[known].mean(), abs=1e-6)
    assert torch.equal(guess.precision, guess.mass)


def test_a_cell_of_which_nothing_is_known_is_no_answer() -> None:
    """The strongest cell is unknown, the next one is object, and so half of the known cells are."""
    cells = Cells(torch.tensor([[[0.0, 1, 0]]]), torch.tensor([[[0.0, 1, 1]]]))
    figures = against_truth(torch.tensor([[[9.0, 3, 1]]]), cells)
    assert [float(figure) for figure in figures] == [1, 0.75, 1]
    assert [float(figure) for figure in chance(cells)] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("values", "mass"),
    [([-5.0, 2, 2], 0.5), ([0.0, 0, 0], 2 / 3), ([-1.0, -2, -3], 2 / 3), ([7e30, 0, 0], 1)],
)
def test_mass_counts_no_values_below_0_and_a_map_of_nothing_as_a_flat_one(
    values: list[float], mass: float
) -> None:
    cells = Cells(torch.tensor([[[1.0, 1, 0]]]), torch.ones(1, 1, 3))
    figures = against_truth(torch.tensor([[values]]), cells)
    assert float(figures.mass) == pytest.approx(mass)


def test_precision_of_maps_that_are_known_by_heart() -> None:
    on = torch.tensor([[1.0, 1, 0, 0]]).double().expand(4, 1, 4)
    maps = torch.tensor([[4.0, 3, 2, 1], [1, 2, 3, 4], [1, 1, 1, 1], [4, 1, 3, 2]]).double()
    result = average_precision(maps[:, None], on=on, off=1 - on)
    # perfect; (1/3 + 2/4) / 2; all at once; (1 + 2/4) / 2
    assert result.tolist() == pytest.approx([1, 5 / 12, 0.5, 0.75])


def test_a_picture_without_its_object_scores_nothing_and_no_nan() -> None:
    cells = Cells(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
    figures = against_truth(torch.rand(1, 2, 3), cells)
    assert [float(figure) for figure in figures] == [0, 0, 0]


def test_each_map_of_a_batch_is_scored_alone() -> None:
    parts = [planted(seed) for seed in range(3)]
    cells = [cells_of(truth, known) for _, truth, known in parts]
    maps: list[Tensor] = [torch.from_numpy(values)[None] for values, _, _ in parts]
    together = against_truth(torch.cat(maps), Cells(*map(torch.cat, zip(*cells, strict=True))))
    for index in range(3):
        alone = against_truth(maps[index], cells[index])
        assert [float(figure[index]) for figure in together] == [float(each) for each in alone]
