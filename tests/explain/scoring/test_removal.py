"""Deletion and insertion: the order of the patches, the places on the curve, the area."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.explain.kept import logits_of_kept
from minivit.explain.scoring import removal as module
from minivit.explain.scoring.removal import rank_patches, removal
from tests.explain.scored_models import sharp


def test_equal_patches_rank_by_their_number() -> None:
    maps = torch.tensor([[[1.0, 3, 1], [3, 0, 1]], [[0, 0, 0], [0, 0, 0]]])
    assert rank_patches(maps).tolist() == [[1, 3, 0, 2, 5, 4], [0, 1, 2, 3, 4, 5]]
    large = torch.randint(3, (1, 150, 200), generator=torch.Generator().manual_seed(0)).float()
    expected = np.argsort(-large.numpy().ravel(), kind="stable")
    np.testing.assert_array_equal(rank_patches(large)[0], expected)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_curves_are_probabilities_of_the_kept_patches(pooling: str) -> None:
    """Beside a loop over pictures and points in numpy; 24 patches, 5 points, some not whole."""
    model, images, maps = sharp(pooling=pooling), torch.randn(2, 3, 32, 48), torch.rand(2, 4, 6)
    target = torch.tensor([3, 1])
    result = removal(model, images, maps, target, points=5)
    fewest = 0 if pooling == "cls" else 1
    numbers = [int(np.round(n)) for n in np.linspace(fewest, 24, 6)]
    for picture in range(2):
        order = np.argsort(-maps[picture].numpy().ravel(), kind="stable")

        def probability(keep: np.ndarray, picture: int = picture) -> float:
            logits = logits_of_kept(
                model, images[picture : picture + 1], torch.from_numpy(keep.copy())[None]
            )
            powers = np.exp(logits[0].double().numpy())
            return float(powers[target[picture]] / powers.sum())

        up = [probability(order[:number]) for number in numbers]
        down = [probability(order[24 - number :]) for number in reversed(numbers)]
        np.testing.assert_allclose(result.insertion[picture], up, atol=1e-5)
        np.testing.assert_allclose(result.deletion[picture], down, atol=1e-5)
        x = np.array(numbers) / 24
        width = x[-1] - x[0]
        area = ((np.array(up)[1:] + up[:-1]) / 2 * np.diff(x)).sum() / width
        assert float(result.insertion_area[picture]) == pytest.approx(area, abs=1e-5)
        removed = 1 - x[::-1]
        area = ((np.array(down)[1:] + down[:-1]) / 2 * np.diff(removed)).sum() / width
        assert float(result.deletion_area[picture]) == pytest.approx(area, abs=1e-5)


def test_a_map_of_what_the_class_hangs_on_falls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted model: its class is there as long as patch 9 is."""

    def planted(model: object, images: Tensor, keep: Tensor) -> Tensor:
        there = (keep == 9).any(dim=1).float()
        return 40 * torch.stack([there, 1 - there], dim=1)

    monkeypatch.setattr(module, "logits_of_kept", planted)
    right, wrong = torch.zeros(1, 4, 6), torch.ones(1, 4, 6)
    right[0, 1, 3], wrong[0, 1, 3] = 1, 0
    target = torch.tensor([0])
    model, images = sharp(), torch.randn(1, 3, 32, 48)
    good = removal(model, images, right, target, points=24)
    bad = removal(model, images, wrong, target, points=24)
    assert good.deletion[0].round().tolist() == [1] + [0] * 24
    assert good.insertion[0].round().tolist() == [0] + [1] * 24
    assert bad.deletion[0].round().tolist() == [1] * 24 + [0]
    assert bad.insertion[0].round().tolist() == [0] * 24 + [1]
    assert float(good.deletion_area) == pytest.approx(0.5 / 24)
    assert float(good.insertion_area) == pytest.approx(1 - 0.5 / 24)


def test_without_a_head_there_is_no_class() -> None:
    model, images = sharp(num_classes=0), torch.randn(1, 3, 32, 48)
    with pytest.raises(ValueError, match="no head"):
        removal(model, images, torch.rand(1, 4, 6), torch.tensor([0]))
    with pytest.raises(ValueError, match="points is 0"):
        removal(sharp(), images, torch.rand(1, 4, 6), torch.tensor([0]), points=0)
