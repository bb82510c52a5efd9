"""The weights inside the package: each has a name, and each loads."""

from __future__ import annotations

from pathlib import Path

import pytest

import minivit
from minivit.captioner import Captioner
from minivit.weights import SHIPPED, find_weights


def test_every_file_in_the_package_has_a_name() -> None:
    folder = Path(minivit.__file__).parent / "weights"
    assert {path.stem: path for path in folder.glob("*.safetensors")} == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_each_loads_with_all_that_a_model_needs(name: str) -> None:
    model = minivit.load_model(SHIPPED[name])
    if name == "scenes_captioner":
        assert isinstance(model, Captioner)
        assert "circle" in model.tokenizer.vocabulary
    else:
        assert isinstance(model, minivit.VisionTransformer)
        assert len(model.labels) == model.config.num_classes
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_name_is_a_string_and_all_else_is_a_path() -> None:
    for name, path in SHIPPED.items():
        assert find_weights(name) == path
        assert find_weights(Path(name)) == Path(name)
        assert find_weights(f"./{name}") == Path(name)
        assert find_weights(f"{name}.safetensors") == Path(f"{name}.safetensors")
    assert find_weights("unknown") == Path("unknown")
