"""Maps planted on a grid of 3:2 hit, miss, and give their weight to the object."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minivit.explain.pointing import covered, pointing_game

ROWS, COLS = 2, 3


def test_what_the_game_counts() -> None:
    """A picture of 20 x 30 pixels and one object: cell (0, 2) whole and half of cell (1, 2).

    map   .1  .0  .2        object   0  0  1
          .0  .1  .6                 0  0  .5
    """
    object_mask = torch.zeros(1, 20, 30)
    object_mask[0, :15, 20:] = 1
    cells = covered(object_mask, (ROWS, COLS))
    torch.testing.assert_close(cells, torch.tensor([[[0, 0, 1], [0, 0, 0.5]]]))
    game = pointing_game(torch.tensor([[[0.1, 0, 0.2], [0, 0.1, 0.6]]]), cells)
    assert game.hits.tolist() == [True]  # the strongest cell, .6, shows some of the object
    assert game.chance.tolist() == [pytest.approx(2 / 6)]  # two of six cells do
    assert game.mass.tolist() == [pytest.approx(0.2 + 0.6 / 2)]
    assert game.area.tolist() == [pytest.approx(0.25)]


def test_a_cell_of_less_than_half_an_object_hits_by_one_rule_only() -> None:
    """The strongest cell is 0.6, then half, then 0.4 object; booleans are whole or nothing."""
    maps = torch.tensor([[0.0, 0.9, 0.1]]).reshape(1, 1, 3).expand(3, 1, 3)
    cells = torch.tensor([[0.0, 0.6, 1.0], [0.0, 0.5, 1.0], [0.0, 0.4, 1.0]]).reshape(3, 1, 3)
    some, half = (pointing_game(maps, cells, rule=rule) for rule in ("some", "half"))
    assert some.hits.tolist() == [True, True, True]
    assert half.hits.tolist() == [True, True, False]
    assert some.chance.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert half.chance.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert torch.equal(some.mass, half.mass)
    assert torch.equal(some.hits, pointing_game(maps, cells).hits)  # the rule where none is given
    whole = pointing_game(maps, cells > 0.5, rule="half")
    assert whole.hits.tolist() == [True, False, False]


def test_a_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="rule is 'most': choose from some, half"):
        pointing_game(torch.rand(1, 2, 3), torch.rand(1, 2, 3), rule="most")  # type: ignore[arg-type]


def planted(row: int, col: int) -> Tensor:
    """A map that gives 0.75 to one cell and 0.05 to each other one."""
    cells = torch.full((ROWS, COLS), 0.05)
    cells[row, col] = 0.75
    return cells


PLACES = [(row, col) for row in range(ROWS) for col in range(COLS)]


@pytest.mark.parametrize("place", PLACES)
def test_only_the_map_that_peaks_on_the_object_hits(place: tuple[int, int]) -> None:
    """An object in each cell in turn, and all maps at once: rows and columns are not confused."""
    cells = torch.zeros(ROWS, COLS)
    cells[place] = 1.0
    game = pointing_game(torch.stack([planted(*each) for each in PLACES]), cells[None])
    assert game.hits.tolist() == [each == place for each in PLACES]
    expected = [0.75 if each == place else 0.05 for each in PLACES]
    assert game.mass.tolist() == pytest.approx(expected)
    assert game.chance.tolist() == game.area.tolist() == pytest.approx([1 / 6] * 6)


def test_a_uniform_map_has_the_mass_of_the_area() -> None:
    cells = torch.rand(4, ROWS, COLS)
    game = pointing_game(torch.full((4, ROWS, COLS), 1 / 6), cells)
    torch.testing.assert_close(game.mass, game.area)
    torch.testing.assert_close(game.area, cells.mean((1, 2)))


def test_a_random_peak_hits_as_often_as_chance_says() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(20_000, ROWS, COLS, generator=generator)
    cells = torch.tensor([[True, False, True], [False, False, True]])
    game = pointing_game(maps, cells)
    assert game.hits.float().mean() == pytest.approx(0.5, abs=0.015)
    assert game.chance.mean() == pytest.approx(0.5)


def test_heads_share_an_object() -> None:
    """(n, H, rows, cols) maps and (n, 1, rows, cols) objects give (n, H) figures."""
    maps, cells = torch.rand(4, 5, ROWS, COLS), torch.rand(4, 1, ROWS, COLS)
    cells[:, :, 0] = 0.0
    together = pointing_game(maps, cells)
    for head in range(5):
        alone = pointing_game(maps[:, head], cells[:, 0])
        for figures, own in zip(together, alone, strict=True):
            assert figures.shape == (4, 5)
            torch.testing.assert_close(figures[:, head], own)


def test_an_object_that_is_not_there_is_never_hit() -> None:
    game = pointing_game(torch.rand(3, ROWS, COLS), torch.zeros(3, ROWS, COLS))
    assert not game.hits.any()
    assert game.chance.sum() == game.mass.sum() == game.area.sum() == 0


def test_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="maps have 2 x 3 cells and the objects 3 x 2: bring"):
        pointing_game(torch.rand(1, ROWS, COLS), torch.rand(1, COLS, ROWS))
