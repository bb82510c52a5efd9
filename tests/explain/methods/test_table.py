"""Each method says what it computes, and what it cannot tell."""

from __future__ import annotations

import inspect
import sys

import pytest

from minivit.explain import METHODS


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
