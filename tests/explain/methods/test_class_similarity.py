"""Cosines of outputs, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain import METHODS
from tests.explain.vits import WITH_CLASS_TOKEN, as_maps, make_images, make_model

method = METHODS["class_similarity"]


@pytest.mark.parametrize("kind", WITH_CLASS_TOKEN)
def test_it_is_the_cosine_of_class_and_patch_outputs(kind: str) -> None:
    model, images = make_model(kind), make_images()
    with torch.no_grad():
        unit = model.encode(images).numpy()
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    expected = as_maps(model, (unit @ unit.transpose(0, 2, 1))[:, 0])
    np.testing.assert_allclose(method(model, images).numpy(), expected, atol=1e-12)


def test_a_model_without_class_token_is_refused() -> None:
    with pytest.raises(ValueError, match="the model has no class token"):
        method(make_model("mean"), make_images())
