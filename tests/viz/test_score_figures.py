"""The figure of scores: every row once, in its own look, and words that fit."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from matplotlib.lines import Line2D

from minivit.viz.score_figures import scores_figure
from tests.viz.rendered import assert_all_words_are_on_the_page, assert_apart


@dataclass
class Row:
    name: str
    probed: int = 16
    deletion_curve: tuple[float, ...] = (0.9, 0.5, 0.1)
    insertion_curve: tuple[float, ...] = (0.1, 0.8, 0.9)
    steps: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    below_chance: tuple[str, ...] = ()


def rows(names: list[str], blocks: int = 2) -> list[Row]:
    steps = ["head", *(f"block {index}" for index in reversed(range(blocks))), "embeddings"]
    return [
        Row(
            name,
            steps={step: (1 - 0.1 * place - 0.02 * index,) * 3 for place, step in enumerate(steps)},
            agreement={other: 1.0 if other == name else 0.25 for other in names},
        )
        for index, name in enumerate(names)
    ]


MANY = ["attention", "rollout", "gradient_rollout", "attention_gradient", "legrad", "value_norm"]
MANY += ["input_gradient", "smooth_gradient", "integrated_gradients", "occlusion", "relevance"]
MANY += [f"attention, block 11, head {head}" for head in range(12)]
MANY += ["attention, block 11, the head chosen on the other half", "random", "centre", "edges"]


@pytest.mark.parametrize("names", [["attention", "random", "centre", "edges"], MANY])
def test_all_rows_are_drawn_and_all_words_fit(names: list[str]) -> None:
    scored = rows(names, blocks=2 if len(names) < 9 else 12)
    scored[0].below_chance = ("pointing", "mass", "precision", "insertion")
    figure = scores_figure(scored, heading="151 photos of pets, masks of trimaps\nweights: w")
    deletion, insertion, training, agreement = figure.axes
    assert [len(axes.get_lines()) for axes in (deletion, insertion)] == [len(names)] * 2
    assert len(training.get_lines()) == len(names) + 1  # and zero
    assert len(agreement.texts) == (len(names) ** 2 if len(names) <= 20 else 0)
    words = [text.get_text() for text in figure.texts]
    for number, name in enumerate(names, start=1):
        assert any(word.startswith(f"{number}  {name}") for word in words), name
    assert (
        "1  attention  ▼ pointing, mass, precision, insertion" in words
        and "▼ below chance" in words
    )
    assert_all_words_are_on_the_page(figure)
    assert_apart(figure)


def test_a_long_name_stays_in_its_column() -> None:
    figure = scores_figure(rows(["a method whose name goes on " * 9, "random", "centre", "edges"]))
    assert_all_words_are_on_the_page(figure)
    assert_apart(figure)


def test_curves_are_what_the_rows_say() -> None:
    figure = scores_figure(rows(["attention", "random", "centre", "edges"]))
    line = figure.axes[0].get_lines()[0]
    assert line.get_xdata().tolist() == [0, 0.5, 1] and line.get_ydata().tolist() == [0.9, 0.5, 0.1]
    steps = figure.axes[2].get_lines()[1]
    assert steps.get_ydata().tolist() == pytest.approx([1, 0.98, 0.88, 0.78, 0.68])
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert labels == ["–", "head", "1", "0", "all"]


def test_no_two_rows_look_alike() -> None:
    figure = scores_figure(rows(MANY))
    samples = [each for each in figure.findobj(Line2D) if each in figure.artists]
    looks = {(s.get_color(), s.get_linestyle(), s.get_linewidth()) for s in samples}
    assert len(samples) == len(MANY) == len(looks)


def test_without_a_head_the_figure_says_why_two_panels_are_empty() -> None:
    scored = rows(["attention", "random"])
    for row in scored:
        row.deletion_curve = row.insertion_curve = ()
    figure = scores_figure(scored)
    for axes in figure.axes[:2]:
        assert not axes.get_lines()
        assert [text.get_text() for text in axes.texts] == ["no head: no class to follow"]
