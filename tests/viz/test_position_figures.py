"""The figure of positions: is each patch's map in its place, and which patches have one?

As in the tests of attention, what is drawn is measured in pixels: which ones change with one value.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from minivit.viz import positions_figure
from tests.viz.rendered import assert_words_fit, highlighted, pixels, screen_pixel


@pytest.mark.parametrize("grid", [(3, 5), (8, 8), (24, 24)])
def test_every_small_map_is_in_its_place_and_readable(grid: tuple[int, int]) -> None:
    rows, cols = grid
    similarity = torch.zeros(rows, cols, rows, cols)
    similarity[0, 0, 0, 1], similarity[0, 0, 1, 0] = 0, 1  # both figures have these colours
    row, col, seen_row, seen_col = 1, cols - 1, rows - 1, 2
    plain = positions_figure(similarity, all_patches=True)
    similarity[row, col, seen_row, seen_col] = 1  # one of rows² · cols² values
    figure = positions_figure(similarity, all_patches=True)
    axes = figure.axes[0]

    # In units of cells, with a line of one cell between maps; pixels are edges half a cell lower.
    left = col * (cols + 1) + seen_col - 0.5
    top = row * (rows + 1) + seen_row - 0.5
    assert highlighted(figure, plain, 0) == pytest.approx((left, top, left + 1, top + 1), abs=0.1)
    cell = 1 / screen_pixel(axes)
    assert round(cell) >= 2 and cell == pytest.approx(round(cell), abs=1e-6)

    # Gaps are white, and each label stands at the middle of its maps.
    drawn = pixels(figure)
    x, y = axes.transData.transform((cols, 0))
    assert tuple(drawn[drawn.shape[0] - 1 - int(y), int(x)]) == (255, 255, 255)
    labels = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert labels[0] == 0 and len(labels) <= 16
    middles = [number * (rows + 1) + (rows - 1) / 2 for number in labels]
    assert list(axes.get_yticks()) == pytest.approx(middles)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input patch column", "input patch row")
    assert figure.axes[1].get_ylabel() == "cosine similarity"


def test_a_large_grid_has_maps_of_some_rows_and_columns() -> None:
    rows, cols = 37, 20
    similarity = torch.zeros(rows, cols, rows, cols)
    similarity[0, 0, 0, 1] = 1
    plain = positions_figure(similarity)
    axes = plain.axes[0]
    shown_rows = [int(label.get_text()) for label in axes.get_yticklabels()]
    shown_cols = [int(label.get_text()) for label in axes.get_xticklabels()]
    assert len(shown_rows) == len(shown_cols) == 14
    note = (
        "maps of 14 of 37 rows × 14 of 20 columns, each of all 37 × 20 patches; black: the patch "
    )
    assert f"{note}itself" in [text.get_text() for text in plain.texts]

    # The label of a place tells whose map stands there, and the map has all cells of the grid.
    place = (5, 12)
    similarity[shown_rows[place[0]], shown_cols[place[1]], 36, 3] = 1
    left, top = place[1] * (cols + 1) + 3 - 0.5, place[0] * (rows + 1) + 36 - 0.5
    assert highlighted(positions_figure(similarity), plain, 0) == pytest.approx(
        (left, top, left + 1, top + 1), abs=0.1
    )
    assert list(axes.get_yticks()) == pytest.approx([38 * i + 18 for i in range(14)])
    assert list(axes.get_xticks()) == pytest.approx([21 * i + 9.5 for i in range(14)])


@pytest.mark.parametrize("count", [1, 2, 13, 14, 15, 16, 24, 27, 28, 32, 37, 64])
def test_the_rows_that_have_maps_run_evenly_from_border_to_border(count: int) -> None:
    axes = positions_figure(torch.zeros(count, 1, count, 1)).axes[0]
    shown = np.array([int(label.get_text()) for label in axes.get_yticklabels()])
    assert len(shown) == min(count, 14) and shown[0] == 0 and shown[-1] == count - 1
    assert np.array_equal(shown, count - 1 - shown[::-1])  # the same from either side
    steps = np.diff(shown)
    assert (steps > 0).all() and (not len(steps) or np.ptp(steps) <= 1)


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (3, 14)])
def test_a_small_grid_is_drawn_whole(grid: tuple[int, int]) -> None:
    similarity = torch.rand(*grid, *grid, generator=torch.Generator().manual_seed(0))
    figure, whole = positions_figure(similarity), positions_figure(similarity, all_patches=True)
    assert np.array_equal(pixels(figure), pixels(whole))
    assert figure.axes[0].images[0].get_array().shape == tuple(n * (n + 1) - 1 for n in grid)
    assert [text.get_text() for text in figure.texts] == ["black: the patch itself"]


@pytest.mark.parametrize("all_patches", [False, True])
@pytest.mark.parametrize("grid", [(37, 37), (12, 20), (24, 3), (3, 5)])
def test_words_fit_and_cells_are_whole_pixels(grid: tuple[int, int], all_patches: bool) -> None:
    heading = f"Position embeddings, {grid[0]} × {grid[1]} patches\nweights: vit.safetensors"
    similarity = torch.zeros(*grid, *grid)
    figure = positions_figure(similarity, heading=heading, all_patches=all_patches)
    assert_words_fit(figure)
    cell = 1 / screen_pixel(figure.axes[0])
    assert round(cell) >= 1 and cell == pytest.approx(round(cell), abs=1e-6)


@pytest.mark.parametrize(
    ("lowest", "highest", "limits"),
    [
        (-0.64, 0.31, (-0.7, 0.4)),
        (0.62, 0.68, (0.6, 0.7)),
        (0.5, 0.5, (0.4, 0.5)),
        (1, 1, (0.9, 1)),
    ],
)
def test_the_scale_is_that_of_the_pairs_and_a_patch_itself_is_black(
    lowest: float, highest: float, limits: tuple[float, float]
) -> None:
    similarity = torch.full((2, 3, 2, 3), highest)
    similarity[1, 0, 0, 2] = lowest
    similarity.view(6, 6).fill_diagonal_(1)
    drawn = positions_figure(similarity).axes[0].images[0]
    assert drawn.get_clim() == pytest.approx(limits)
    colours = drawn.to_rgba(drawn.get_array())
    black = np.argwhere((colours == (0, 0, 0, 1)).all(axis=2)).tolist()
    # Patch (r, c) stands at (r, c) of its own map, and maps are 2 x 3 cells and a line apart.
    assert black == [[3 * r + r, 4 * c + c] for r in range(2) for c in range(3)]


@pytest.mark.parametrize("grid", [(3, 24), (24, 3), (1, 30), (2, 14)])
def test_numbers_of_a_flat_grid_do_not_collide(grid: tuple[int, int]) -> None:
    figure = positions_figure(torch.zeros(*grid, *grid), heading="Positions\nof a flat grid")
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert boxes
        for one, other in itertools.pairwise(boxes):
            assert not one.padded(-0.5).overlaps(other)


def test_similarity_of_a_patch_with_itself_is_left_out_of_one_patch_too() -> None:
    assert positions_figure(torch.ones(1, 1, 1, 1)).axes[0].images[0].get_clim() == (0.9, 1)


def test_the_scale_is_that_of_the_whole_grid() -> None:
    similarity = torch.ones(1, 15, 1, 15)
    hidden = 7  # 14 of 15 leave out the one in the middle
    similarity[0, hidden, 0, 0] = -0.5
    figure = positions_figure(similarity)
    assert str(hidden) not in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert figure.axes[0].images[0].get_clim() == (-0.5, 1)


def test_similarities_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(rows, cols, rows, cols\)"):
        positions_figure(torch.ones(4, 4))


def test_no_figure_is_left_with_pyplot() -> None:
    from matplotlib import pyplot

    positions_figure(torch.ones(2, 2, 2, 2))
    assert pyplot.get_fignums() == []
