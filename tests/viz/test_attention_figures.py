"""Figures: is the right part of the photo highlighted, and do the words stay in their place?

Highlights are measured in the rendered pixels, from first principles: which pixels change when
another patch is the one that is looked at. The photo's pixels come from the axes' transformation.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minivit.files import save_figure
from minivit.preprocess import Preprocess
from minivit.viz import attention_figure
from minivit.viz.attention_figures import Region
from minivit.viz.panels import overlay, region_pixels
from tests.viz.rendered import assert_words_fit, highlighted, pixels, screen_pixel

GRID = 14
CELL = (3, 10)


def transform(mode: str) -> Preprocess:
    return Preprocess(
        image_size=(224, 224),
        mode=mode,
        filter="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        multiple_of=16 if mode == "fit_shortest" else 1,
    )


def planted(rows: int, cols: int, *cells: tuple[int, int]) -> torch.Tensor:
    """One map (1, rows, cols) with the attention shared by these cells."""
    maps = torch.zeros(1, rows, cols)
    for row, col in cells:
        maps[0, row, col] = 1 / len(cells)
    return maps


# (width, height) of a photo and, worked out by hand, the box of cell (3, 10): each patch of a
# 224-pixel crop is 1/14 of the photo's shorter side; a whole photo has as many square-ish patches
# as its sides, brought to a shorter side of 224, have times 16 pixels, to the nearest.
CASES = [
    ("crop", (900, 600), (14, 14), (150 + 600 * 10 / 14, 600 * 3 / 14)),
    ("crop", (560, 560), (14, 14), (400, 120)),
    ("crop", (450, 800), (14, 14), (450 * 10 / 14, 175 + 450 * 3 / 14)),
    ("fit_shortest", (900, 600), (14, 21), (900 * 10 / 21, 600 * 3 / 14)),
    ("fit_shortest", (560, 560), (14, 14), (400, 120)),
    ("fit_shortest", (450, 800), (25, 14), (450 * 10 / 14, 800 * 3 / 25)),
]


@pytest.mark.parametrize(("mode", "size", "grid", "corner"), CASES)
def test_the_cell_looked_at_is_highlighted_exactly(
    mode: str, size: tuple[int, int], grid: tuple[int, int], corner: tuple[float, float]
) -> None:
    width, height = size
    photo = Image.new("RGB", size, "gray")
    box = transform(mode).crop_box(width, height)
    rows, cols = grid
    side = min(size) / GRID
    cell_width, cell_height = (side, side) if mode == "crop" else (width / cols, height / rows)
    expected = (corner[0], corner[1], corner[0] + cell_width, corner[1] + cell_height)

    # A second cell keeps the scale the same in both figures, far from the one that is measured.
    other = (rows - 1, 0)
    figures = [
        attention_figure(photo, box, planted(rows, cols, *cells), num_tokens=rows * cols + 1)
        for cells in ((CELL, other), (other,))
    ]
    for panel in (1, 2):  # the average of one head, and that head
        axes = figures[0].axes[panel]
        assert highlighted(*figures, panel) == pytest.approx(
            expected, abs=1.01 * screen_pixel(axes)
        )
        # One unit of the photo is as wide as it is high: the aspect is the photo's.
        frame = axes.get_window_extent()
        assert frame.width / frame.height == pytest.approx(
            (box[2] - box[0]) / (box[3] - box[1]), rel=0.01
        )


def test_the_photo_lies_where_its_coordinates_say() -> None:
    photo = Image.new("RGB", (900, 600))
    photo.paste((255, 255, 255), (300, 120, 420, 240))
    box = transform("crop").crop_box(900, 600)
    blank, maps = Image.new("RGB", (900, 600)), planted(GRID, GRID, (13, 13))
    figures = [attention_figure(p, box, maps, num_tokens=197) for p in (photo, blank)]
    for panel in (0, 1):
        tolerance = 2 * screen_pixel(figures[0].axes[panel]) + 0.9  # resampled twice: soft edges
        assert highlighted(*figures, panel) == pytest.approx((300, 120, 420, 240), abs=tolerance)


def test_smooth_maps_are_neither_shifted_nor_higher_than_cells() -> None:
    axes = Figure().add_subplot()
    maps = planted(5, 8, (1, 6))[0]
    image = overlay(axes, maps, (10.0, 20.0, 90.0, 70.0), smooth=True)
    drawn = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    x = left + (np.arange(drawn.shape[1]) + 0.5) * (right - left) / drawn.shape[1]
    y = top + (np.arange(drawn.shape[0]) + 0.5) * (bottom - top) / drawn.shape[0]
    weight = drawn / drawn.sum()
    # The middle of cell (1, 6), each cell being 10 × 10 pixels.
    assert (weight.sum(0) @ x, weight.sum(1) @ y) == pytest.approx((75, 35), abs=1e-3)
    assert drawn.max() <= 1 and drawn.min() >= 0


def test_the_patch_that_looks_is_outlined_in_every_panel() -> None:
    photo = Image.new("RGB", (900, 600), "gray")
    maps = torch.full((2, GRID, GRID), 1 / 197)
    box = (150.0, 0.0, 750.0, 600.0)
    plain = attention_figure(photo, box, maps, num_tokens=197, heading="x")
    marked = attention_figure(photo, box, maps, num_tokens=197, heading="x", patch=CELL)
    left, top = 150 + 600 * 10 / 14, 600 * 3 / 14
    for panel in range(4):
        axes = plain.axes[panel]
        around = 4 * screen_pixel(axes)  # half the width of the frame
        expected = (left, top, left + 600 / 14, top + 600 / 14)
        assert highlighted(marked, plain, panel) == pytest.approx(expected, abs=around)


def test_the_patch_that_looks_may_still_be_called_query() -> None:
    photo, maps = Image.new("RGB", (60, 40)), planted(2, 2, (0, 0))
    with pytest.warns(DeprecationWarning, match="query is called patch now"):
        old: Figure = attention_figure(
            photo, (0, 0, 60, 40), maps, **{"num_tokens": 5, "query": (1, 0)}
        )
    new = attention_figure(photo, (0, 0, 60, 40), maps, num_tokens=5, patch=(1, 0))
    np.testing.assert_array_equal(pixels(old), pixels(new))


def test_what_the_model_did_not_see_is_veiled_and_the_rest_is_as_it_was() -> None:
    photo = Image.new("RGB", (900, 600), (200, 30, 30))
    maps = planted(GRID, GRID, CELL)
    figure = attention_figure(photo, (150.0, 0.0, 750.0, 600.0), maps, num_tokens=197)
    drawn, axes = pixels(figure), figure.axes[0]

    def colour(x: float, y: float) -> tuple[int, ...]:
        column, row = axes.transData.transform((x, y))
        return tuple(drawn[drawn.shape[0] - 1 - int(row), int(column)])

    assert colour(450, 300) == (200, 30, 30)
    assert min(colour(100, 300)) > 100 and min(colour(800, 300)) > 100


def test_titles_give_head_range_and_share_of_the_patches() -> None:
    maps = torch.zeros(3, 2, 4)
    maps[0, 0, 0], maps[1, 1, 3], maps[2, 1, 1] = 0.9, 0.45, 0.3
    photo = Image.new("RGB", (80, 40))
    figure = attention_figure(photo, (0, 0, 80, 40), maps, num_tokens=10, heads=[2, 0])
    words = [text.get_text() for text in figure.texts]
    assert "mean of all heads: 55 % on patches" in words
    assert "max 0.30 = 3.0 × uniform" in words  # also of the average: 0.9 / 3
    assert "head 2: 30 % on patches" in words and "head 0: 90 % on patches" in words
    assert not any("head 1" in word for word in words)
    assert len(figure.axes) == 2 + 2 + 1
    # The average is of all heads, whichever have a panel; each panel has its own scale.
    mean, head_2, head_0 = (axes.images[-1] for axes in figure.axes[1:4])
    np.testing.assert_allclose(np.asarray(mean.get_array()), maps.mean(0), atol=1e-7)
    assert [image.get_clim() for image in (mean, head_2, head_0)] == [
        pytest.approx((0, largest)) for largest in (0.3, 0.3, 0.9)
    ]


@pytest.mark.parametrize(
    ("size", "num_heads"),
    [((900, 600), 3), ((450, 800), 12), ((1600, 200), 1), ((40, 1600), 16), ((1, 1), 1)],
)
def test_no_text_is_clipped_or_overlaps_another(size: tuple[int, int], num_heads: int) -> None:
    width, height = size
    crop = transform("crop").crop_box(width, height)
    for box in {crop, (0.0, 0.0, float(width), float(height))}:
        figure = attention_figure(
            Image.new("RGB", size),
            box,
            torch.full((num_heads, GRID, GRID), 0.00123),
            num_tokens=197,
            heading="Attention of the class token in block 11 (of 0–11)\n" + "weights " * 40,
            photo_title="a long file name " * 20 + ".jpg\npredicted: " + "a long label " * 20,
        )
        assert_words_fit(figure)
        texts = [t for t in figure.texts if t.get_text()]
        assert any("…" in t.get_text() for t in texts)
        names = ["mean of all heads", *(f"head {head}" for head in range(num_heads))]
        words = [t.get_text() for t in texts]
        assert {f"{name}: 24 % on patches" for name in names} <= set(words)  # these are not cut


def test_many_heads_wrap() -> None:
    photo = Image.new("RGB", (60, 60))
    figure = attention_figure(photo, (0, 0, 60, 60), torch.ones(16, 2, 2), num_tokens=5)
    tops = [round(axes.get_position().y1, 6) for axes in figure.axes[2:-1]]
    rows = sorted(tops.count(top) for top in set(tops))
    assert len(tops) == 16 and len(rows) == 3 and max(rows) <= 6


def test_foreign_text_is_drawn_as_it_is() -> None:
    title = "cost_$5$ 猫 \udc80\x07 <b>\\frac{.jpg\npredicted: $x^2$"
    maps = planted(2, 2, (0, 0))
    figure = attention_figure(
        Image.new("RGB", (60, 40)), (0, 0, 60, 40), maps, num_tokens=5, photo_title=title
    )
    shown = [text.get_text() for text in figure.texts]
    assert "cost_$5$ 猫 �� <b>\\frac{.jpg" in shown and "predicted: $x^2$" in shown
    assert not any(text.get_parse_math() for text in figure.texts)


def test_maps_of_another_shape_or_not_finite_are_refused() -> None:
    photo = Image.new("RGB", (60, 40))
    with pytest.raises(ValueError, match=r"shape \(4, 4\), expected \(heads, rows, cols\)"):
        attention_figure(photo, (0, 0, 60, 40), torch.ones(4, 4), num_tokens=5)
    with pytest.raises(ValueError, match="not finite"):
        attention_figure(photo, (0, 0, 60, 40), torch.full((1, 2, 2), torch.nan), num_tokens=5)


def test_no_figure_is_left_with_pyplot() -> None:
    from matplotlib import pyplot

    attention_figure(Image.new("RGB", (6, 4)), (0, 0, 6, 4), planted(2, 2, (0, 0)), num_tokens=5)
    assert pyplot.get_fignums() == []


def test_heads_share_a_scale_that_the_legend_gives() -> None:
    maps = torch.tensor([[[0.1, 0.2]], [[0.5, 0.01]]])
    photo = Image.new("RGB", (80, 40))
    for shared, tops in ((False, [0.3, 0.2, 0.5]), (True, [0.5, 0.5, 0.5])):
        figure = attention_figure(
            photo, (0, 0, 80, 40), maps, num_tokens=3, shared_scale=shared, colour_map="magma"
        )
        drawn = [axes.images[1] for axes in figure.axes[1:4]]
        assert [image.get_clim()[1] for image in drawn] == pytest.approx(tops)
        assert {image.get_cmap().name for image in drawn} == {"magma"}
        scale = figure.axes[-1]
        assert scale.images[0].get_cmap().name == "magma"
        words = " ".join(text.get_text() for text in figure.texts)
        end = [label.get_text() for label in scale.get_xticklabels()][1]
        assert end == ("0.50" if shared else "maximum")
        assert ("one scale for all panels, from 0 to 0.50" in words) is shared


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_a_region_is_outlined_where_it_lies_and_titles_give_its_share(kind: str) -> None:
    """Cell (1, 2) of 2 x 4 in a photo of 400 x 200, of which all is seen."""
    maps = torch.full((2, 2, 4), 0.1)
    maps[1, 1, 2] = 0.2
    cells = torch.zeros(2, 4)
    cells[1, 2] = 1
    place: tuple[float, ...] | torch.Tensor = (200.0, 100.0, 300.0, 200.0)
    if kind == "mask":
        place = torch.zeros(200, 400, dtype=torch.bool)
        place[100:200, 200:300] = True
    photo, box = Image.new("RGB", (400, 200), "gray"), (0, 0, 400, 200)
    region = Region(cells, place)
    figure = attention_figure(photo, box, maps, num_tokens=9, region=region)
    assert_words_fit(figure)
    texts = [text.get_text() for text in figure.texts]
    for share, ratio in ((12, 1.0), (22, 1.8), (18, 1.4)):  # 1/8, 2/9, 1.5/8.5; each over 1/8
        assert any(t.startswith(f"{kind} {share} % = {ratio}") for t in texts), texts
    plain = attention_figure(photo, box, maps, num_tokens=9, region=Region(cells, (0, 0, 0.1, 0.1)))
    for panel in (1, 2):
        left, top, right, bottom = highlighted(figure, plain, panel)
        near = 4 * screen_pixel(figure.axes[panel])
        assert (right, bottom) == pytest.approx((300, 200), abs=near)
        assert left <= 200 + near and top <= 100 + near  # the other outline is at the corner


def test_dark_photos_are_lifted_below_maps_and_bright_ones_stay() -> None:
    grey = np.random.default_rng(0).integers(40, 256, (60, 90)).astype(np.uint8)
    bright = Image.fromarray(np.maximum(grey, 130))
    dark = Image.fromarray((grey * 0.08).astype(np.uint8))
    box = (0, 0, 90, 60)
    small = dark.resize((1000, 667), Image.Resampling.BICUBIC)
    assert np.median(region_pixels(dark, box, grey=True)) == pytest.approx(128, abs=16)
    assert np.asarray(small).max() < 25 < 250 < region_pixels(dark, box, grey=True).max()
    as_is = bright.resize((1000, 667), Image.Resampling.BICUBIC)
    assert np.array_equal(region_pixels(bright, box, grey=True)[..., 0], np.asarray(as_is))
    lifted, order = region_pixels(dark, box, grey=True)[..., 0], np.asarray(small)
    assert np.all(np.diff(lifted.ravel()[np.argsort(order.ravel())].astype(int)) >= 0)
    black = Image.new("RGB", (90, 60))
    assert region_pixels(black, box, grey=True).max() == 0
    assert np.array_equal(region_pixels(dark, box)[..., 0], np.asarray(small))  # the photo itself


def test_the_map_is_as_strong_in_vector_files_as_in_pixels(tmp_path: Path) -> None:
    """matplotlib applies the opacity of an image twice there; that of its colours only once."""
    figure = attention_figure(
        Image.new("RGB", (40, 40)), (0, 0, 40, 40), torch.rand(1, 2, 2), num_tokens=5
    )
    for axes in figure.axes:
        for image in axes.images:
            assert image.get_alpha() is None
    save_figure(figure, tmp_path / "a.svg")
    images = re.findall(r"<image[^>]*>", (tmp_path / "a.svg").read_text("utf-8"))
    assert len(images) >= 4 and not any("opacity" in image for image in images)
