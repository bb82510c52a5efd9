"""What the table and the methods say of themselves is what they do."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch

from minivit.explain.methods.table import COMPLETE, FOR_A_CLASS, METHODS, SIGNED
from tests.explain.vits import make_images, make_model


@pytest.mark.parametrize("name", METHODS)
def test_the_table_knows_which_maps_hang_on_the_class_and_which_have_signs(name: str) -> None:
    model, images = make_model("registers"), make_images(4)
    maps = [METHODS[name](model, images, target) for target in range(5)]
    differ = not all(torch.equal(maps[0], other) for other in maps[1:])
    assert differ is (name in FOR_A_CLASS)
    assert (min(float(each.min()) for each in maps) < 0) is (name in SIGNED)


@pytest.mark.parametrize("name", COMPLETE)
def test_methods_that_promise_completeness_give_the_same_maps_with_it(name: str) -> None:
    model, images = make_model("registers"), make_images()
    integral = COMPLETE[name](model, images, 2)
    assert torch.equal(integral.maps, METHODS[name](model, images, 2))
    assert torch.allclose(
        integral.attributions.sum(dim=(1, 2, 3)) - integral.difference, integral.error
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_equation_and_says_what_the_values_are(name: str) -> None:
    method = METHODS[name]
    module, text = sys.modules[method.__module__].__doc__ or "", method.__doc__ or ""
    assert "::\n\n    " in module, "the equation"
    assert "(B, rows, cols)" in text.partition("Returns:")[2]
    purpose = text.partition("Args:")[0].lower()
    assert len(purpose.strip().splitlines()) > 2, "what it says, and what it does not"
    if name != "class_similarity":  # a cosine, of no paper
        assert "arXiv:" in text
    for argument in inspect.signature(method).parameters.values():
        assert f" {argument.name}: " in text
        if argument.name not in {"model", "images"}:
            assert argument.default is not inspect.Parameter.empty
