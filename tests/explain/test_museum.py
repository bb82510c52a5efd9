"""The suite notices every fault of the museum, and nothing of a fault stays in the library."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.explain.museum import (
    EXHIBITS,
    VIEWS,
    Exhibit,
    LostPlaceError,
    faulty,
    installed,
    mean_likeness,
    named_test,
    right_maps,
    sharpened,
)
from tests.explain.vits import make_images, make_model

TUTORIALS = Path(__file__).parents[2] / "tutorials"
LESSON = (TUTORIALS / "faults.md").read_text(encoding="utf-8")
NAMES = [exhibit.name for exhibit in EXHIBITS]
run = pytest.mark.parametrize("exhibit", EXHIBITS, ids=NAMES)


@run
def test_the_suite_notices_the_fault(exhibit: Exhibit) -> None:
    """The named test passes without the fault, fails with it, and passes again."""
    test = named_test(exhibit)
    test()
    with installed(exhibit), pytest.raises(AssertionError):
        test()
    test()


def test_exhibits_have_names_of_their_own_and_the_known_views() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 10
    assert {exhibit.view for exhibit in EXHIBITS} == {None, *VIEWS}


def test_a_fault_leaves_with_its_context_also_after_an_error() -> None:
    exhibit = EXHIBITS[0]
    model, images = make_model(), make_images()
    view = VIEWS["rollout"]
    right = view(model, images)
    with pytest.raises(KeyError), installed(exhibit):
        assert not torch.allclose(view(model, images), right)
        raise KeyError
    assert torch.equal(view(model, images), right)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": "for weights in maps:"}, "has lost its place: .* 0 times, expected once"),
        ({"before": "attention"}, "has lost its place: .* times, expected once"),
        ({"place": "minivit.explain.rollout:roll"}, "there is no minivit.explain.rollout:roll"),
        ({"place": "minivit.explain.rolled:rollout"}, "there is no minivit.explain.rolled:"),
    ],
)
def test_an_exhibit_whose_code_has_moved_says_so(changes: dict[str, str], message: str) -> None:
    exhibit = replace(EXHIBITS[0], **changes)
    with pytest.raises(LostPlaceError, match=f"exhibit 'blocks walked backwards'.*{message}"):
        installed(exhibit).__enter__()


def test_an_exhibit_whose_test_has_moved_says_so() -> None:
    for changes in ({"test": "tests.explain.test_rollout:test_gone"}, {"arguments": {"size": 2}}):
        with pytest.raises(LostPlaceError, match="exhibit 'blocks walked backwards'"):
            named_test(replace(EXHIBITS[0], **changes))


def test_the_table_of_the_lesson_is_of_these_exhibits() -> None:
    """Names, maps, and the figures on random weights; `tutorials/pictures/faults.py` prints all."""
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+), (.+) \| .+ \|$", LESSON, re.MULTILINE)
    shown = [exhibit for exhibit in EXHIBITS if exhibit.view is not None]
    assert [(name, view) for name, view, *_ in rows] == [(each.name, each.view) for each in shown]
    subject = sharpened()
    rights = {view: right_maps(view, *subject) for view in VIEWS}
    for exhibit, (_, view, *figures) in zip(shown, rows, strict=True):
        measured = mean_likeness(rights[view], faulty(exhibit, *subject))
        assert measured == pytest.approx([float(figure) for figure in figures], abs=0.01)


def test_the_lesson_explains_every_exhibit() -> None:
    explained = {name.lower() for name in re.findall(r"^- \*([^*]+)\.\*", LESSON, re.MULTILINE)}
    assert explained == {exhibit.name.lower() for exhibit in EXHIBITS if exhibit.view is not None}
    assert (TUTORIALS / "pictures" / "faults.png").is_file()
