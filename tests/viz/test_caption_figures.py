"""The figure of a caption: is each word's map where it belongs, and can all of it be read?"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minivit.viz import caption_figure
from minivit.viz.panels import Box
from minivit.word_maps import Caption, Word
from tests.viz.rendered import assert_words_fit, highlighted, pixels, screen_pixel

FIVE = "a woman holding an umbrella"
THIRTY = (
    "a young girl with hair sits at a table in front of a large window and is eating a piece of "
    "chocolate cake with a silver fork while smiling happily"
)
SHAPES = [(640, 480), (480, 480), (360, 640)]


def make(
    text: str,
    maps: torch.Tensor | None = None,
    *,
    box: Box = (0.0, 0.0, 640.0, 480.0),
    grid: tuple[int, int] = (14, 19),
    log_prob: float = -0.5,
    end: bool = True,
) -> Caption:
    """A caption whose words are single tokens; the same map for all unless they are given."""
    words = text.split(" ") if text else []
    if maps is None:
        maps = torch.full((len(words), *grid), 1 / math.prod(grid))
    return Caption(
        text=text,
        tokens=words,
        token_ids=list(range(len(words))),
        log_probs=[log_prob] * len(words),
        attention=maps,
        words=[Word(word, (i,), log_prob, maps[i]) for i, word in enumerate(words)],
        end_log_prob=-0.1 if end else None,
        end_attention=torch.full(grid, 1 / math.prod(grid)) if end else None,
        box=box,
    )


def planted(rows: int, cols: int, *cells: tuple[int, int]) -> torch.Tensor:
    """(1, rows, cols): one map with the attention shared by these cells."""
    maps = torch.zeros(1, rows, cols)
    for row, col in cells:
        maps[0, row, col] = 1 / len(cells)
    return maps


def shown(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def noise(count: int, rows: int = 14, cols: int = 19) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, rows, cols, generator=generator).pow(4).add(1e-3)


# ---- where a map lies ---------------------------------------------------------------------------

# Size of the photo, grid, box, cell, and by hand what of the cell is on the photo.
PLACES = [
    # cells fill the photo
    ((640, 480), (12, 16), (0, 0, 640, 480), (3, 10), (400, 120, 440, 160)),
    ((480, 480), (8, 8), (0, 0, 480, 480), (0, 7), (420, 0, 480, 60)),
    ((360, 640), (16, 9), (0, 0, 360, 640), (15, 2), (80, 600, 120, 640)),
    # the last row and column reach over the edge, by half a cell and by a fifth of one
    ((500, 320), (7, 11), (0, 0, 550, 350), (2, 4), (200, 100, 250, 150)),
    ((500, 315), (7, 11), (0, 0, 528, 336), (6, 10), (480, 288, 500, 315)),
    # cells of 40 that are centred on pixels: the first reach over the edge
    ((640, 480), (13, 17), (-19, -19, 661, 501), (0, 0), (0, 0, 21, 21)),
    ((640, 480), (13, 17), (-19, -19, 661, 501), (12, 5), (181, 461, 221, 480)),
    # … and the last end before the other edges: what is left there is nearest to them
    ((640, 480), (12, 16), (-19, -19, 621, 461), (11, 15), (581, 421, 640, 480)),
    ((640, 480), (12, 16), (-19, -19, 621, 461), (4, 2), (61, 141, 101, 181)),
    # the middle square only
    ((640, 480), (8, 8), (80, 0, 560, 480), (1, 7), (500, 60, 560, 120)),
]


@pytest.mark.parametrize(("size", "grid", "box", "cell", "expected"), PLACES)
@pytest.mark.parametrize("layout", [None, (2, 2)])
def test_the_cell_looked_at_is_highlighted_exactly(
    size: tuple[int, int],
    grid: tuple[int, int],
    box: Box,
    cell: tuple[int, int],
    expected: tuple[int, ...],
    layout: tuple[int, int] | None,
) -> None:
    photo = Image.new("RGB", size, "gray")
    # A second cell keeps the scale the same in both figures.
    other = (grid[0] // 2, 0 if cell[1] else grid[1] - 1)
    figures = [
        caption_figure(photo, make("word", planted(*grid, *cells), box=box), layout=layout)
        for cells in ((cell, other), (other,))
    ]
    axes = figures[0].axes[1]
    assert highlighted(*figures, 1) == pytest.approx(expected, abs=1.01 * screen_pixel(axes))
    # Nothing is squeezed: a unit of the photo is as wide as it is high, and stays on the photo.
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    frame = axes.get_window_extent()
    assert frame.width / frame.height == pytest.approx((right - left) / (bottom - top), rel=0.01)
    assert left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]


@pytest.mark.parametrize("box", [(-19, -19, 661, 501), (80, 0, 560, 480)])
def test_photo_and_maps_show_the_same_region_in_place(box: Box) -> None:
    photo = Image.new("RGB", (640, 480))
    photo.paste((255, 255, 255), (300, 120, 420, 240))
    figures = [
        caption_figure(p, make("word", planted(12, 16, (11, 0)), box=box))
        for p in (photo, Image.new("RGB", (640, 480)))
    ]
    for panel in (0, 1):
        tolerance = 2 * screen_pixel(figures[0].axes[panel]) + 0.9
        assert highlighted(*figures, panel) == pytest.approx((300, 120, 420, 240), abs=tolerance)


def test_only_what_the_captioner_did_not_see_is_veiled() -> None:
    photo = Image.new("RGB", (640, 480), (200, 30, 30))

    def colour(figure: Figure, x: float, y: float) -> tuple[int, ...]:
        drawn = pixels(figure)
        column, row = figure.axes[0].transData.transform((x, y))
        return tuple(drawn[drawn.shape[0] - 1 - int(row), int(column)])

    crop = caption_figure(photo, make("word", box=(80, 0, 560, 480)))
    assert colour(crop, 320, 240) == (200, 30, 30) and min(colour(crop, 40, 240)) > 100
    assert any("veiled" in text for text in shown(crop))
    for box in ((-19, -19, 621, 461), (0, 0, 670, 500)):
        whole = caption_figure(photo, make("word", box=box, grid=(12, 16)))
        assert colour(whole, 4, 4) == colour(whole, 636, 476) == (200, 30, 30)
        assert not any("veiled" in text for text in shown(whole))


# ---- colours ------------------------------------------------------------------------------------


def test_each_map_has_its_own_scale_from_zero_to_the_maximum_of_its_title() -> None:
    maps = torch.zeros(2, 2, 4)
    maps[0, 0, 0], maps[0, 1, 1], maps[1, :] = 0.75, 0.25, 1 / 8
    figure = caption_figure(Image.new("RGB", (80, 40)), make("one two", maps, box=(0, 0, 80, 40)))
    images = [axes.images[-1] for axes in figure.axes[1:3]]
    for image, expected in zip(images, maps, strict=True):
        np.testing.assert_allclose(np.asarray(image.get_array()), expected)
        assert image.get_clim() == (0, float(expected.max()))
    assert {"max 6.0 × uniform", "max 1.0 × uniform"} <= set(shown(figure))
    assert any(
        "own scale" in text and "0.12" in text and "8 cells" in text for text in shown(figure)
    )


def test_relative_maps_share_a_scale_around_one() -> None:
    maps = torch.ones(3, 2, 2) / 4
    maps[2] = torch.tensor([[0.7, 0.1], [0.1, 0.1]])
    caption = make("one two three", maps, box=(0, 0, 60, 40))
    figure = caption_figure(Image.new("RGB", (60, 40)), caption, relative=True)
    images = [axes.images[-1] for axes in figure.axes[1:4]]
    # The mean of the first cell is 0.4, that of the others 0.2.
    for image, ratios in zip(images, ([0.625, 1.25], [0.625, 1.25], [1.75, 0.5]), strict=True):
        first, second = ratios
        drawn = np.asarray(image.get_array())
        np.testing.assert_allclose(drawn, [[first, second], [second, second]], rtol=1e-5)
        low, high = image.get_clim()
        assert (low, high) == (0.5, 2.0) and image.norm(1.0) == pytest.approx(0.5)
    assert "max 1.8 × average" in shown(figure) or "max 1.7 × average" in shown(figure)
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["≤ 1/2", "1", "≥ 2"]
    assert figure.axes[-1].images[0].get_cmap().name == images[0].get_cmap().name == "RdBu_r"
    assert any("divided by its mean" in text for text in shown(figure))


def test_ratios_beyond_the_scale_take_the_colour_of_its_end_and_leave_no_hole() -> None:
    maps = torch.eye(20).reshape(20, 4, 5)  # ratios 20 and 0
    caption = make(" ".join(["word"] * 20), maps, box=(0, 0, 50, 40))
    figure = caption_figure(Image.new("RGB", (50, 40), "gray"), caption, relative=True)
    image = figure.axes[1].images[-1]
    drawn = np.ma.asarray(image.get_array())
    assert not np.ma.is_masked(image.norm(drawn)) and np.isfinite(image.norm(drawn)).all()
    assert image.norm(drawn)[0, 0] == pytest.approx(1)
    assert image.norm(drawn)[1, 1] == pytest.approx(0, abs=1e-6)
    assert "max 20 × average" in shown(figure)
    figure.canvas.draw()


def test_the_average_of_relative_maps_counts_words_that_have_no_panel() -> None:
    maps = noise(6)
    whole = caption_figure(Image.new("RGB", (640, 480)), make("a b c d e f", maps), relative=True)
    cut = caption_figure(
        Image.new("RGB", (640, 480)), make("a b c d e f", maps), relative=True, layout=(1, 3)
    )
    for panel in (1, 2):
        one, other = (figure.axes[panel].images[-1] for figure in (whole, cut))
        np.testing.assert_array_equal(one.get_array(), other.get_array())
        assert one.get_clim() == other.get_clim()


# ---- words --------------------------------------------------------------------------------------


def test_titles_give_words_and_their_probabilities_in_order() -> None:
    caption = make("a small cat", log_prob=math.log(0.874))
    pieces = Word("snowboarders", (3, 4, 5), math.log(0.001), torch.full((14, 19), 1 / 266))
    caption.words.append(pieces)
    figure = caption_figure(Image.new("RGB", (640, 480)), caption)
    titles = [text for text in shown(figure) if text.split(" ")[-1] in ("0.87", "<0.01")]
    assert titles == ["a 0.87", "small 0.87", "cat 0.87", "snowboarders <0.01"]
    assert "a small cat" in shown(figure)  # above the photo
    assert any("word-pieces" in text for text in shown(figure))
    assert not any(
        "word-pieces" in text
        for text in shown(caption_figure(Image.new("RGB", (6, 4)), make("a", box=(0, 0, 6, 4))))
    )


def test_each_title_stands_above_its_own_map() -> None:
    maps = torch.stack([planted(4, 5, (i // 5, i % 5))[0] for i in range(20)])
    words = [f"w{i}" for i in range(20)]
    for layout in (None, (4, 6), (6, 4)):
        caption = make(" ".join(words), maps, box=(0, 0, 100, 80))
        figure = caption_figure(Image.new("RGB", (100, 80)), caption, layout=layout)
        for index, axes in enumerate(figure.axes[1:-1]):
            frame = axes.get_window_extent()
            (title,) = [t for t in figure.texts if t.get_text() == f"w{index} 0.61"]
            place = title.get_window_extent()
            assert (place.x0 + place.x1) / 2 == pytest.approx((frame.x0 + frame.x1) / 2, abs=1)
            assert 0 < place.y0 - frame.y1 < 40
            assert int(np.asarray(axes.images[-1].get_array()).argmax()) == index


def test_the_end_has_a_panel_only_where_it_is_asked_for() -> None:
    photo = Image.new("RGB", (640, 480))
    assert not any("(end)" in text for text in shown(caption_figure(photo, make(FIVE))))
    figure = caption_figure(photo, make(FIVE), show_end=True)
    assert len(figure.axes) == 1 + 6 + 1 and "(end) 0.90" in shown(figure)
    figure = caption_figure(photo, make(FIVE, end=False), show_end=True)
    assert len(figure.axes) == 1 + 5 + 1
    assert any("cut" in text for text in shown(figure))


@pytest.mark.parametrize("words", [0, 1])
def test_captions_of_no_word_and_of_one(words: int) -> None:
    for relative in (False, True):
        caption = make("cat" if words else "")
        figure = caption_figure(Image.new("RGB", (640, 480)), caption, relative=relative)
        assert len(figure.axes) == 2 + words
        assert ("cat" if words else "(no word)") in shown(figure)
        assert_words_fit(figure)


# ---- pages --------------------------------------------------------------------------------------


LONG = "Donaudampfschifffahrtsgesellschaft " * 11 + "x" * 99
PAGES: list[tuple[tuple[int, int], str, tuple[int, int] | None]] = [
    (size, text, None) for size in SHAPES for text in (FIVE, THIRTY)
]
PAGES += [((640, 480), THIRTY, (4, 4)), ((360, 640), THIRTY, (4, 4)), ((480, 480), LONG, (2, 9))]
PAGES += [((640, 480), LONG, None), ((360, 640), LONG, (4, 4))]
PAGES += [(size, THIRTY, None) for size in ((1600, 200), (40, 1600), (1, 1))]


@pytest.mark.parametrize(("size", "text", "layout"), PAGES)
@pytest.mark.parametrize("relative", [False, True])
def test_no_text_is_clipped_or_overlaps_another(
    size: tuple[int, int], text: str, layout: tuple[int, int] | None, relative: bool
) -> None:
    words = text.split()
    figure = caption_figure(
        Image.new("RGB", size),
        make(text, noise(len(words)), box=(0, 0, *size), end=False),
        layout=layout,
        relative=relative,
        heading="a long file name " * 20 + ".jpg; weights: catr\ndecoder block 5 (of 0–5)",
    )
    assert_words_fit(figure)
    panels = figure.axes[1:-1]
    assert len(panels) == min(len(words), layout[0] * layout[1] - 1 if layout else 100)
    for word, axes in zip(words, panels, strict=False):
        assert axes.get_window_extent().height >= 40
        if len(word) < 12:
            assert f"{word} 0.61" in shown(figure)
    # Long words are shortened, never their probability.
    assert sum(text.endswith(" 0.61") for text in shown(figure)) == len(panels)
    frames = [axes.get_window_extent().padded(-1) for axes in figure.axes[:-1]]
    for index, frame in enumerate(frames):
        assert not any(frame.overlaps(other) for other in frames[index + 1 :])


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("text", [FIVE, THIRTY])
def test_panels_are_large_enough_to_see(size: tuple[int, int], text: str) -> None:
    caption = make(text, box=(0, 0, *size))
    figure = caption_figure(Image.new("RGB", size), caption)
    width, height = figure.get_size_inches()
    assert width <= 11.1 and height <= 15
    for axes in figure.axes[1:-1]:
        frame = axes.get_window_extent()
        assert math.sqrt(frame.width * frame.height) / figure.dpi > 1.2
    photo = figure.axes[0].get_window_extent()
    assert photo.width * photo.height >= 0.9 * frame.width * frame.height


def test_a_caption_is_shown_whole_above_the_photo() -> None:
    for size in SHAPES:
        figure = caption_figure(Image.new("RGB", size), make(THIRTY, box=(0, 0, *size)))
        photo = figure.axes[0].get_window_extent()
        middle = [
            text
            for text in figure.texts
            if text.get_window_extent().y0 > photo.y1
            and text.get_window_extent().x0 < photo.x1
            and "0.61" not in text.get_text()
        ]
        lines = sorted(middle, key=lambda text: -text.get_window_extent().y0)
        assert " ".join(text.get_text() for text in lines if text.get_text()) == THIRTY


@pytest.mark.parametrize(
    ("layout", "panels", "rest"), [((4, 4), 15, 15), ((1, 1), 0, 30), ((6, 6), 30, 0)]
)
def test_a_layout_is_kept_and_words_that_do_not_fit_are_named(
    layout: tuple[int, int] | None, panels: int, rest: int
) -> None:
    figure = caption_figure(Image.new("RGB", (640, 480)), make(THIRTY), layout=layout)
    assert len(figure.axes) == 1 + panels + 1
    names = f"{rest} more words: {' '.join(THIRTY.split()[panels:])}"
    assert (names in " ".join(shown(figure))) == bool(rest)  # on one line or several
    short = caption_figure(Image.new("RGB", (640, 480)), make(FIVE), layout=layout)
    widths = [f.axes[0].get_window_extent().width for f in (figure, short)]
    assert widths[0] == pytest.approx(widths[1])  # the page does not depend on the caption
    one = caption_figure(Image.new("RGB", (640, 480)), make(FIVE), layout=(1, 5))
    assert "1 more word: umbrella" in shown(one)


@pytest.mark.parametrize("layout", [(0, 4), (4, 21), (-1, 2)])
def test_an_impossible_layout_is_refused(layout: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"layout {layout[0]}x{layout[1]}: expected 1x1 to 20x20"):
        caption_figure(Image.new("RGB", (6, 4)), make(FIVE), layout=layout)


def test_maps_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        caption_figure(Image.new("RGB", (6, 4)), make("a", torch.full((1, 2, 2), torch.nan)))


# ---- foreign text -------------------------------------------------------------------------------


def test_foreign_words_are_drawn_as_they_are() -> None:
    words = ["$x^2$", "cost_\\frac{", "猫", "🐈", "a\nb", "\udc80\x07", "{", "\\", "%", "ﷺ", "<b>"]
    caption = make("words", torch.ones(1, 14, 19))
    caption.words[:] = [Word(word, (0,), -0.5, torch.ones(14, 19)) for word in words]
    object.__setattr__(caption, "text", "$\\frac{ 猫 🐈\n_^ \udc80 <b>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = caption_figure(Image.new("RGB", (640, 480)), caption, heading="$\\x_")
    titles = [text.removesuffix(" 0.61") for text in shown(figure) if text.endswith(" 0.61")]
    assert titles == [*words[:4], "a b", "��", *words[6:]]
    assert "$\\frac{ 猫 🐈 _^ � <b>" in shown(figure) and "$\\x_" in shown(figure)
    assert not any(text.get_parse_math() for text in figure.texts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.canvas.draw()
    assert_words_fit(figure)


def test_no_figure_is_left_with_pyplot() -> None:
    from matplotlib import pyplot

    caption_figure(Image.new("RGB", (6, 4)), make("a", box=(0, 0, 6, 4)))
    assert pyplot.get_fignums() == []
