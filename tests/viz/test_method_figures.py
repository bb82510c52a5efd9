"""The figure of methods: is a cell where it belongs, and are scales and words as they should be?"""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from minivit.viz import methods_figure
from minivit.viz.panels import DIVERGING_MAP
from tests.viz.rendered import assert_words_fit, highlighted, screen_pixel

LONG = [
    "attention_gradient",
    "class_similarity",
    "principal_component",
    "integrated_gradients",
    *(f"method_{number}" for number in range(11)),
]
PHOTOS = [
    ((600, 400), (100, 0, 500, 400)),
    ((900, 120), (0, 0, 900, 120)),
    ((80, 400), (0, 160, 80, 240)),
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("size", "box"), PHOTOS)
def test_a_cell_is_painted_on_its_place(
    size: tuple[int, int], box: tuple[float, ...], signed: bool
) -> None:
    photo = Image.effect_noise(size, 60).convert("RGB")
    names = ["first", "second"]
    maps = {name: torch.zeros(3, 5) for name in names}
    maps["second"][0, 1] = 0.5  # so that all else keeps its colour when a cell becomes brighter
    bright = {name: values.clone() for name, values in maps.items()}
    bright["second"][2, 3] = -0.4 if signed else 0.5
    figures = [
        methods_figure(photo, box, each, signed=["second"] if signed else [])
        for each in (bright, maps)
    ]
    left, top, right, bottom = box
    wide, high = (right - left) / 5, (bottom - top) / 3
    expected = (left + 3 * wide, top + 2 * high, left + 4 * wide, top + 3 * high)
    pixel = screen_pixel(figures[0].axes[2])
    assert highlighted(*figures, 2) == pytest.approx(expected, abs=1.5 * pixel)


def test_scales_run_over_the_own_range_or_evenly_about_zero() -> None:
    photo = Image.new("RGB", (60, 40))
    maps = {
        "plain": torch.tensor([[2.0, 3.0]]),
        "signed": torch.tensor([[-1.0, 4.0]]),
        "level": torch.full((1, 2), 0.5),
        "nothing": torch.zeros(1, 2),
    }
    figure = methods_figure(photo, (0, 0, 60, 40), maps, signed={"signed", "nothing", "absent"})
    drawn = [axes.images[1] for axes in figure.axes[1:5]]
    assert [image.get_clim() for image in drawn] == [(2, 3), (-4, 4), (0.5, 0.5), (-1, 1)]
    assert [image.get_cmap().name == DIVERGING_MAP for image in drawn] == [False, True, False, True]
    texts = [text.get_text() for text in figure.texts]
    for line in ("2 to 3", "−1 to 4", "0.5 to 0.5", "0 to 0"):
        assert line in texts
    words = " ".join(texts)
    assert "from the lowest value of the panel" in words and "red is above 0, blue below" in words
    plain = methods_figure(photo, (0, 0, 60, 40), {"plain": maps["plain"]}, signed={"signed"})
    assert "red is above" not in " ".join(text.get_text() for text in plain.texts)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 15])
@pytest.mark.parametrize(("size", "box"), PHOTOS)
def test_words_fit(count: int, size: tuple[int, int], box: tuple[float, ...]) -> None:
    maps = {name: -torch.rand(3, 5) * 1e-5 for name in LONG[:count]}
    note = "integrated_gradients: " + ", ".join(["the parts sum to 12.34 of 12.34"] * 6)
    figure = methods_figure(
        Image.new("RGB", size),
        box,
        maps,
        signed=LONG[::2],
        heading="Explained: class 281 tabby, tabby cat (45.1%), the predicted one\nweights: w",
        photo_title="a rather long name of a photo.jpg\npredicted: tabby, tabby cat (45.1%)",
        notes=f"{note}\nanother line",
    )
    assert_words_fit(figure)
    titles = [text.get_text() for text in figure.texts]
    assert all(name in titles for name in maps)  # none is shortened
    assert f"{note} another line" in " ".join(titles)  # nor is this, over several lines
    assert "veiled" in " ".join(titles) or box == (0, 0, *size)


def test_maps_that_are_no_maps_are_refused() -> None:
    photo = Image.new("RGB", (60, 40))
    with pytest.raises(
        ValueError, match=r"rollout: found shape \(1, 3, 5\), expected \(rows, cols\)"
    ):
        methods_figure(photo, (0, 0, 60, 40), {"rollout": torch.zeros(1, 3, 5)})
    with pytest.raises(ValueError, match="not finite"):
        methods_figure(photo, (0, 0, 60, 40), {"rollout": torch.full((3, 5), torch.nan)})
