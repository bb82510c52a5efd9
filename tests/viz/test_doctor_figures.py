"""The page of the doctor: three panels, and every finding in words that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.explain import Symptom
from minivit.viz.doctor_figures import doctor_figure, symptom_lines
from tests.viz.rendered import assert_words_fit


def symptoms(count: int, present: int) -> list[Symptom]:
    return [
        Symptom(
            name=f"symptom {index}",
            number=2.5 if index < present else 0.123456,
            threshold=1.0,
            text=f"measured {index}: " + "many words of what was measured " * (1 + 3 * index),
            advice=f"advice {index}",
        )
        for index in range(count)
    ]


def page(size: tuple[int, int] = (96, 64), count: int = 9, present: int = 4, **others: Any) -> Any:
    maps = torch.arange(24.0).view(4, 6)
    seen = Image.effect_noise(size, 60).convert("RGB")
    options: dict[str, Any] = {"block": 3, "heading": "photo.png\nweights: w"} | others
    return doctor_figure(seen, maps / 300, maps + 1, symptoms(count, present), **options)


@pytest.mark.parametrize(
    ("size", "count", "present"),
    [((96, 64), 9, 0), ((64, 64), 9, 4), ((30, 300), 3, 3), ((300, 30), 9, 4)],
)
def test_all_words_fit(size: tuple[int, int], count: int, present: int) -> None:
    figure = page(size, count, present, heading="name " * 90 + "\nweights: w")
    assert_words_fit(figure)
    shortened = [text.get_text() for text in figure.texts if "…" in text.get_text()]
    assert len(shortened) == 1 and shortened[0].startswith("name")  # no finding is


def test_panels_show_the_picture_and_both_maps() -> None:
    figure = page()
    photo, attention, norms, _ = figure.axes
    assert len(photo.images) == 1
    for axes, largest in ((attention, 23 / 300), (norms, 24.0)):
        _, overlay = axes.images
        assert overlay.get_array().shape == (4, 6)
        assert float(overlay.get_array().max()) == pytest.approx(largest)
        assert overlay.norm.vmin == 0 and overlay.norm.vmax == pytest.approx(largest)
        assert overlay.get_extent() == [0, 96, 64, 0]
    words = "\n".join(text.get_text() for text in figure.texts)
    assert "96 × 64 pixels, 4 × 6 patches" in words and "after block 3" in words
    assert "median 12.5, max 24" in words and f"{np.arange(24).sum() / 300:.0%} on patches" in words


def test_every_finding_is_on_the_page_with_number_threshold_and_advice() -> None:
    figure = page()
    words = " ".join(text.get_text() for text in figure.texts)
    assert "4 findings, worst first" in words
    for index in range(4):
        assert f"symptom {index}: 2.5 (threshold 1)" in words
        assert f"measured {index}:" in words and f"What to do: advice {index}." in words
    for index in range(4, 9):
        assert f"symptom {index} 0.123 (1)" in words


def test_lines_say_when_nothing_is_found_and_when_one_is() -> None:
    assert [title for title, _ in symptom_lines(symptoms(2, 0))] == [
        "Nothing found", "Looked at and below the threshold (in brackets)",
    ]  # fmt: skip
    assert symptom_lines(symptoms(1, 1))[0] == ("1 finding, worst first", "")
    assert len(symptom_lines(symptoms(1, 1))) == 2


def test_maps_of_another_shape_or_damaged_are_refused() -> None:
    seen, good = Image.new("RGB", (8, 8)), torch.ones(2, 2)
    for attention, norms in ((good[None], good), (good, good * float("nan"))):
        with pytest.raises(ValueError, match=r"attention: found shape|norms: found values"):
            doctor_figure(seen, attention, norms, symptoms(1, 0), block=0)
