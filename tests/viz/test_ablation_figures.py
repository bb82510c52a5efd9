"""The figure of a ranking: every number in its place, colours around 0, words that fit."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from minivit.viz.ablation_figures import AblatedBlock, ablation_figure
from tests.viz.rendered import assert_all_words_are_on_the_page, assert_apart, pixels

PHOTO = Image.effect_noise((90, 60), 60).convert("RGB")
BOX = (15.0, 0.0, 75.0, 60.0)
RAGGED = [
    AblatedBlock("ViT 0", [-0.5, 0.25], -1.0),
    AblatedBlock("decoder words 0", [0.125, 0.0, 1.0], None),
]


def random_blocks(depth: int, num_heads: int, size: float = 1.0) -> list[AblatedBlock]:
    generator = np.random.default_rng(0)
    return [
        AblatedBlock(
            f"block {block}",
            (size * generator.normal(size=num_heads)).tolist(),
            size * float(generator.normal()),
        )
        for block in range(depth)
    ]


def colour_at(figure: Figure, x: float, y: float) -> np.ndarray:
    """Of the grid, at a place in cells, as matplotlib drew it."""
    image = pixels(figure)
    col, row = figure.axes[1].transData.transform((x, y))
    return image[image.shape[0] - 1 - int(row), int(col)]


def test_numbers_stand_in_their_row_and_column() -> None:
    figure = ablation_figure(PHOTO, BOX, RAGGED)
    _, grid, scale = figure.axes
    texts = {}
    for text in grid.texts:
        x, y = text.get_position()
        texts[math.floor(x), y] = text.get_text()
    assert texts == {
        (0, 0.5): "−0.50", (1, 0.5): "+0.25", (3, 0.5): "−1.00",
        (0, 1.5): "+0.12", (1, 1.5): "0", (2, 1.5): "+1.00",
    }  # fmt: skip
    assert [label.get_text() for label in grid.get_xticklabels()] == ["0", "1", "2", "MLP"]
    assert [label.get_text() for label in grid.get_yticklabels()] == ["ViT 0", "decoder words 0"]
    assert [label.get_text() for label in scale.get_xticklabels()] == ["−1.00", "0", "+1.00"]


def test_blue_is_below_zero_red_above_and_what_is_not_there_is_white() -> None:
    figure = ablation_figure(PHOTO, BOX, RAGGED)
    red, _, blue = colour_at(figure, 0.1, 0.1)
    assert blue > red + 20
    red, _, blue = colour_at(figure, 2.1, 1.1)
    assert red > blue + 20
    assert colour_at(figure, 2.5, 0.5).tolist() == [255, 255, 255]  # the ViT has two heads
    zero = colour_at(figure, 1.1, 1.1)
    assert zero.min() > 240 and np.ptp(zero) < 6


@pytest.mark.parametrize(
    "blocks",
    [
        random_blocks(4, 3),
        random_blocks(12, 12, 40),
        random_blocks(24, 16, 1e-3),
        random_blocks(2, 32),
        [AblatedBlock("block 0", [-2.0], None)],
        [AblatedBlock(f"block {block}", [], 0.0) for block in range(40)],
        RAGGED,
    ],
)
def test_all_words_fit(blocks: list[AblatedBlock]) -> None:
    size = {4: (30, 300), 2: (300, 30)}.get(len(blocks), (90, 60))
    title = "photo.png\n“" + "a red circle is above " * 6 + "”\nlog-probability -9.1525"
    figure = ablation_figure(
        PHOTO.resize(size),
        (0.0, 0.0, *map(float, size)),
        blocks,
        heading="heading " * 40 + "\nweights: w",
        photo_title=title,
    )
    assert_all_words_are_on_the_page(figure)
    assert_apart(figure)
    shortened = [text.get_text() for text in figure.texts if "…" in text.get_text()]
    assert len(shortened) == 1 and shortened[0].startswith("heading")  # a long title is broken
    count = sum(len(block.heads) + (block.mlp is not None) for block in blocks)
    labels = figure.axes[1].texts
    assert len(labels) == count
    extents = [label.get_window_extent() for label in labels]
    for first, second in pairwise(extents):
        assert not first.padded(-0.5).overlaps(second.padded(-0.5))


def test_no_number_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="no part was replaced"):
        ablation_figure(PHOTO, BOX, [AblatedBlock("block 0", [], None)])
    with pytest.raises(ValueError, match="not finite"):
        ablation_figure(PHOTO, BOX, [AblatedBlock("block 0", [float("inf")], None)])
    with pytest.raises(ValueError, match="not finite"):
        ablation_figure(PHOTO, BOX, [AblatedBlock("block 0", [float("nan"), 1.0], None)])
