"""The share of each head in a region: counted pixel by pixel, and of heads known beforehand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import minivit
from minivit.data.photos.masks import Mask, cell_shares
from minivit.explain import box_cells, heads_inside
from minivit.inspected import Attentions

ROWS, COLS, PREFIX, BLOCKS, HEADS = 4, 6, 3, (2, 5), 3


def looked(weights: Tensor) -> Attentions:
    """What a model gives back of class-token rows (blocks, heads, N)."""
    return Attentions(
        list(weights[:, None, :, None]),  # (blocks, heads, N) -> blocks of (1, heads, 1, N)
        image_size=(32, 48),
        grid_size=(ROWS, COLS),
        num_prefix_tokens=PREFIX,
        class_token=True,
        blocks=BLOCKS,
        queries=[0],
    )


def random_rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, HEADS, PREFIX + ROWS * COLS, generator=generator)
    return logits.softmax(dim=-1)


@pytest.mark.parametrize(
    "box", [(10, 20, 47, 61), (0, 0, 120, 80), (13, 7, 14, 8), (60, 5, 200, 33), (20, 10, 40, 30)]
)
def test_a_cell_counts_by_its_pixels_inside_the_box(box: tuple[int, int, int, int]) -> None:
    within = (0, 0, 120, 80)  # cells of 20 x 20 pixels
    left, top, right, bottom = box
    expected = torch.zeros(ROWS, COLS)
    for y, x in itertools.product(range(80), range(120)):
        if left <= x < right and top <= y < bottom:
            expected[y // 20, x // 20] += 1 / 400
    cells = box_cells(box, (ROWS, COLS), within=within)
    torch.testing.assert_close(cells.float(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("within", [(7.5, 3.25, 110.5, 70.0), (0, 0, 97, 61), (10, 10, 50, 90)])
def test_cells_that_are_cut_inside_pixels_count_as_those_of_a_mask_do(
    within: tuple[float, float, float, float],
) -> None:
    """A mask of the box's pixels is measured by other code, which sums over pixels."""
    box = (15, 8, 83, 55)
    mask = torch.zeros(100, 130, dtype=torch.bool)
    mask[8:55, 15:83] = True
    by_mask = cell_shares(Mask(mask, torch.ones_like(mask)), (ROWS, COLS), box=within).share
    cells = box_cells(box, (ROWS, COLS), within=within)
    torch.testing.assert_close(cells.float(), by_mask, atol=1e-6, rtol=0)


def test_shares_are_those_of_a_count_over_all_cells() -> None:
    weights = random_rows()
    cells = box_cells((10, 20, 47, 61), (ROWS, COLS), within=(0, 0, 120, 80))
    heads = heads_inside(looked(weights), cells)
    assert len(heads) == len(BLOCKS) * HEADS
    assert [head.share for head in heads] == sorted((h.share for h in heads), reverse=True)
    for head in heads:
        row = weights[BLOCKS.index(head.block), head.head]
        inside = on_patches = area = 0.0
        for r, c in itertools.product(range(ROWS), range(COLS)):
            weight = float(row[PREFIX + r * COLS + c])
            inside += weight * float(cells[r, c])
            on_patches += weight
            area += float(cells[r, c]) / (ROWS * COLS)
        assert head.share == pytest.approx(inside / on_patches, abs=1e-6)
        assert head.on_patches == pytest.approx(on_patches, abs=1e-6)
        assert head.area == pytest.approx(area) == pytest.approx(37 * 41 / (120 * 80))
        assert head.ratio == pytest.approx(head.share / area, rel=1e-5)


def test_the_head_that_looks_into_the_box_is_the_first_and_a_level_one_has_ratio_1() -> None:
    weights = torch.zeros(2, HEADS, PREFIX + ROWS * COLS)
    weights[..., 0] = 1  # all of it to the class token, but for
    weights[0, 2] = 1 / weights.shape[-1]
    weights[1, 1] = 0
    weights[1, 1, PREFIX + 1 * COLS + 4] = 1
    cells = box_cells((80, 20, 100, 40), (ROWS, COLS), within=(0, 0, 120, 80))  # cell (1, 4)
    first, second, *others = heads_inside(looked(weights), cells)
    assert (first.block, first.head, first.share, first.ratio) == (5, 1, 1.0, ROWS * COLS)
    assert (second.block, second.head) == (2, 2) and second.ratio == pytest.approx(1)
    assert all(head.share == head.on_patches == 0 for head in others)


def test_a_patch_may_look_too_and_models_answer_in_three_lines() -> None:
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name("debug_patch8_64")).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    token = model.num_prefix_tokens + 2 * 8 + 3
    rows = minivit.AttentionRows(blocks=range(2), queries=[0, token])
    _, attentions = model(images, return_attention=rows)
    cells = box_cells((100, 50, 300, 400), attentions.grid_size, within=(0, 0, 512, 512))
    by_class, by_patch = (
        heads_inside(attentions, cells),
        heads_inside(attentions, cells, patch=(2, 3)),
    )
    assert len(by_class) == len(by_patch) == 4 and by_class != by_patch


def test_what_cannot_be_measured_is_refused() -> None:
    everywhere = torch.ones(ROWS, COLS)
    attentions = looked(random_rows())
    with pytest.raises(ValueError, match="left < right"):
        box_cells((30, 20, 10, 40), (ROWS, COLS), within=(0, 0, 120, 80))
    with pytest.raises(ValueError, match="outside of what the model saw"):
        box_cells((0, 0, 20, 80), (ROWS, COLS), within=(20, 0, 100, 80))
    with pytest.raises(ValueError, match="4 rows x 6 cols"):
        heads_inside(attentions, everywhere.T)
    with pytest.raises(ValueError, match="4 rows x 6 cols"):
        heads_inside(attentions, 0 * everywhere)
    two = attentions.with_tensors([torch.cat([each, each]) for each in attentions])
    with pytest.raises(ValueError, match="2 pictures"):
        heads_inside(two, everywhere)
    attentions.class_token = False
    with pytest.raises(ValueError, match="no class token"):
        heads_inside(attentions, everywhere)
