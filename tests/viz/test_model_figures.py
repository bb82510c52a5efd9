"""The figure of a model: what is drawn where, and that words fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from minivit.viz import model_figure
from tests.viz.rendered import assert_words_fit, screen_pixel


def draw(
    *,
    grid: tuple[int, int] = (4, 6),
    patch: tuple[int, int, int] = (3, 8, 8),
    depth: int = 3,
    **others: Any,
) -> Any:
    filters = torch.linspace(-1, 1, 10 * math.prod(patch)).reshape(10, *patch)
    options: dict[str, Any] = {
        "distances": torch.arange(2.0 * depth).reshape(depth, 2),
        "entropies": torch.full((depth, 2), 1.5),
    } | others
    return model_figure(
        filters,
        torch.eye(math.prod(grid)).reshape(*grid, *grid),
        options["distances"],
        options["entropies"],
        shares=torch.full((10,), 0.05),
        uniform_distance=40.0,
        num_tokens=27,
        heading="3 blocks of 2 heads, patches of 8 × 8 pixels\nweights: some.safetensors",
        notes="distance and entropy: a dot a head\nanother line",
    )


def test_filters_are_drawn_about_grey_in_their_order() -> None:
    filters = torch.zeros(10, 3, 4, 5)
    filters[8, 2, 3, 1] = -0.25  # of the second row, the second one
    figure = model_figure(
        filters,
        torch.ones(2, 2, 2, 2),
        None,
        None,
        shares=torch.full((10,), 0.05),
        uniform_distance=0.0,
        num_tokens=1,
    )
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (2 * 5 - 1, 7 * 6 - 1, 3)
    assert np.allclose(picture[5 + 3, 6 + 1], (0.5, 0.5, 0.0))
    inside = np.ones(picture.shape[:2], dtype=bool)
    inside[4], inside[:, 5::6], inside[5:, 3 * 6 :] = False, False, False
    inside[8, 7] = False
    assert np.allclose(picture[inside], 0.5) and np.allclose(picture[4], 1)
    assert np.allclose(picture[:, 5::6], 1) and np.allclose(picture[5:, 18:], 1)
    texts = [text.get_text() for text in figure.texts]
    assert "Patch filters: first 10 principal components, 50% of their variance" in texts
    assert [axes.texts[0].get_text()[:12] for axes in figure.axes[3:]] == ["not measured"] * 2


def test_each_head_is_a_dot_above_its_block() -> None:
    figure = draw()
    distance, entropy = figure.axes[3:]
    dots = distance.collections[0].get_offsets()
    assert dots.tolist() == [[0, 0], [0, 1], [1, 2], [1, 3], [2, 4], [2, 5]]
    assert entropy.collections[0].get_offsets()[:, 1].tolist() == [1.5] * 6
    for axes, uniform in ((distance, 40), (entropy, math.log(27))):
        assert axes.lines[0].get_ydata()[0] == pytest.approx(uniform)
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > uniform
    assert "all patches alike, 40 pixels" in distance.get_xlabel()
    assert "all 27 tokens alike, 3.3 nats" in entropy.get_xlabel()


def test_positions_are_drawn_as_their_own_figure_draws_them() -> None:
    figure = draw(grid=(20, 4))
    tiles = figure.axes[1].images[0].get_array()
    assert tiles.shape == (14 * 21 - 1, 4 * 5 - 1)
    assert tiles[0, 0] > 1 and tiles[1, 0] == 0  # the patch itself is above the scale
    note = "maps of 14 of 20 rows × 4 of 4 columns, each of all 20 × 4 patches; black: the patch "
    assert f"{note}itself" in " ".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("grid", [(4, 6), (37, 37), (24, 3), (1, 1), (3, 24)])
@pytest.mark.parametrize("patch", [(3, 8, 8), (1, 14, 14), (4, 16, 16), (3, 4, 32), (3, 32, 4)])
def test_words_fit_and_cells_are_whole_pixels(
    grid: tuple[int, int], patch: tuple[int, int, int]
) -> None:
    figure = draw(grid=grid, patch=patch, depth=40)
    assert_words_fit(figure)
    for axes in figure.axes[:2]:
        if axes.images:
            cell = 1 / screen_pixel(axes)
            assert round(cell) >= 1 and cell == pytest.approx(round(cell), abs=1e-6)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(
        ValueError, match="distance in pixels that the model sees: found values that are not finite"
    ):
        draw(distances=torch.full((3, 2), torch.nan))
    with pytest.raises(
        ValueError, match=r"entropy in nats: found shape \(3,\), expected \(blocks, heads"
    ):
        draw(entropies=torch.ones(3))
