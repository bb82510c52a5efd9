"""Spearman's correlation: beside ranks counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain.scoring.rank_correlation import rank_correlation


def ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_it_is_the_correlation_of_ranks_that_equal_values_share(levels: int) -> None:
    rng = np.random.default_rng(levels)
    first, second = rng.integers(0, levels, (2, 3, 4, 6)).astype(float)
    second += first / 2
    result = rank_correlation(torch.from_numpy(first), torch.from_numpy(second))
    for index in range(3):
        expected = np.corrcoef(ranks(first[index].ravel()), ranks(second[index].ravel()))[0, 1]
        assert float(result[index]) == pytest.approx(expected, abs=1e-12)


def test_scale_does_not_matter_and_order_does() -> None:
    maps = torch.rand(4, 6)
    assert float(rank_correlation(maps, (5 * maps).exp())) == pytest.approx(1)
    assert float(rank_correlation(maps, -maps)) == pytest.approx(-1)
    assert float(rank_correlation(maps, torch.ones(4, 6))) == 0
    with pytest.raises(ValueError, match="expected equal shapes"):
        rank_correlation(maps, maps.T)
