"""Targets in every form, batches of none, and models that can or cannot be explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from minivit import VisionTransformer
from minivit.explain import METHODS
from minivit.explain.conditions import class_numbers
from tests.explain.vits import COLS, ROWS, make_images, make_model

LOGITS = torch.tensor([[0.0, 1, 2, 3, 9], [8, 1, 2, 3, 4]])


@pytest.mark.parametrize(
    ("target", "numbers"),
    [
        (None, [4, 0]),
        (3, [3, 3]),
        ("dog", [3, 3]),
        (np.int64(3), [3, 3]),
        (torch.tensor(3), [3, 3]),
        (np.array(3), [3, 3]),
        ([1, "cat"], [1, 2]),
        (("cat", np.int32(1)), [2, 1]),
        (range(2), [0, 1]),
        (torch.tensor([1, 2], dtype=torch.uint8), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (np.array(["cat", "ant"]), [2, 0]),
    ],
)
def test_a_target_has_many_forms(target: Any, numbers: list[int]) -> None:
    chosen = class_numbers(make_model(), target, LOGITS)
    assert chosen.dtype == torch.int64 and chosen.tolist() == numbers


@pytest.mark.parametrize("one", [True, np.bool_(True), 1.0, np.float64(2), [1], None])
def test_what_is_neither_number_nor_label_is_refused(one: Any) -> None:
    """A boolean above all: a mask over classes would be taken for classes 0 and 1."""
    forms = [[one, one]] if one is None or isinstance(one, list) else [one, [one, 1]]
    for target in forms:
        with pytest.raises(ValueError, match="expected a whole number or a label"):
            class_numbers(make_model(), target, LOGITS)
    with pytest.raises(ValueError, match="class True: expected a whole number or a label"):
        class_numbers(make_model(), torch.tensor([True, False]), LOGITS)


@pytest.mark.parametrize("name", METHODS)
def test_of_no_pictures_there_are_no_maps(name: str) -> None:
    maps = METHODS[name](make_model(), make_images()[:0])
    assert maps.shape == (0, ROWS, COLS)
    assert METHODS[name](make_model(), make_images()[:0], []).shape == (0, ROWS, COLS)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_loaded_in_inference_mode_gives_maps_or_says_what_to_do(name: str) -> None:
    with torch.inference_mode():
        model = make_model()
    flags = [(weight.requires_grad, weight.is_inference()) for weight in model.parameters()]
    assert all(inference for _, inference in flags)
    expected = METHODS[name](make_model(), make_images())
    try:
        torch.testing.assert_close(METHODS[name](model, make_images()), expected)
    except ValueError as error:
        assert "was loaded under torch.inference_mode" in str(error)
        assert "\n" not in str(error)
    assert flags == [(weight.requires_grad, weight.is_inference()) for weight in model.parameters()]


@pytest.mark.parametrize("name", METHODS)
def test_a_compiled_model_is_explained_as_the_one_that_it_was_made_of(name: str) -> None:
    model, images = make_model(), make_images()
    expected = METHODS[name](model, images)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(METHODS[name](compiled, images), expected)
    assert isinstance(model, VisionTransformer)
    model.compile(backend="eager")
    torch.testing.assert_close(METHODS[name](model, images), expected)
