"""Heads that a script put in the place of the model's own, inside it and beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from tests.references.seeded import seeded
from tests.weights_convert.test_conversion import make_model, saved
from tests.weights_convert.test_formats import stored
from weights_convert import ConvertError, convert

MATRIX, BIAS = seeded("matrix", (5, 32), 1), seeded("bias", (5,), 1)
LAYER = {"weight": MATRIX, "bias": BIAS}
# how each layout calls its head, and a model with that layout
SOURCES = {"timm": "head.", "torchvision": "heads.head.", "lukemelas": "fc."}


def bodies(source: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A model without its head, and what the converter must be told."""
    if source == "timm":
        return dict(make_model(num_classes=0).state_dict()), {"num_heads": 2}
    reference = stored(source)
    own = SOURCES[source]
    weights = {name: t for name, t in reference.weights.items() if not name.startswith(own)}
    sizes = {"image_size": (32, 48)} if source == "lukemelas" else {}
    return weights, {"num_heads": int(reference.metadata["num_heads"])} | sizes


def with_head(source: str, head: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in bodies(source)[0].items()} | head


@pytest.mark.parametrize(
    ("source", "names", "prefix"),
    [
        ("timm", "head.1.", ""),
        ("timm", "head.fc.", ""),
        ("timm", "classifier.", "backbone."),
        ("timm", "classifier.1.", "backbone."),
        ("timm", "fc.", "model.encoder."),
        ("torchvision", "heads.", ""),
        ("torchvision", "heads.1.", ""),
        ("torchvision", "heads.head.1.", ""),
        ("torchvision", "classifier.", "backbone."),
        ("lukemelas", "fc.1.", ""),
        ("lukemelas", "classifier.", "backbone."),
    ],
)
def test_the_one_linear_layer_is_the_head(
    source: str, names: str, prefix: str, tmp_path: Path
) -> None:
    width = bodies(source)[0]["norm.weight" if source != "torchvision" else "encoder.ln.weight"]
    layer = {"weight": seeded("matrix", (5, len(width)), 1), "bias": BIAS}
    path = saved(
        tmp_path / "m.pth",
        with_head(source, {names + part: tensor for part, tensor in layer.items()}, prefix),
    )
    converted = convert(path, **bodies(source)[1])
    assert isinstance(converted.model, VisionTransformer)
    assert converted.format == source and converted.model.config.num_classes == 5
    assert isinstance(converted.model.head, torch.nn.Linear)
    assert torch.equal(converted.model.head.weight, layer["weight"])
    assert torch.equal(converted.model.head.bias, layer["bias"])
    assert any(f"{names[:-1]!r} is the head" in note for note in converted.notes)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"head.0.weight": MATRIX, "head.2.weight": MATRIX}, r"an MLP: head\.0, head\.2"),
        ({"head.fc1.weight": MATRIX, "head.fc2.weight": MATRIX}, r"an MLP: head\.fc1, head\.fc2"),
        ({"head.norm.weight": BIAS, "head.fc.weight": MATRIX}, r"more than a linear layer: head"),
    ],
)
def test_a_network_as_head_is_refused_by_that_name(
    head: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.pth", with_head("timm", head))
    with pytest.raises(ConvertError, match=message):
        convert(path, num_heads=2)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"classifier.0.weight": MATRIX, "classifier.2.weight": MATRIX}, "the head is an MLP"),
        ({"breed.weight": MATRIX, "age.weight": MATRIX}, "the head is an MLP: age, breed"),
        (
            {"norm.weight": torch.ones(32), "fc.weight": MATRIX},
            "more than a linear layer: fc, norm",
        ),
    ],
)
def test_networks_beside_the_model_are_refused_and_can_be_left_out(
    beside: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "m.pth", with_head("timm", beside, "backbone."))
    with pytest.raises(ConvertError, match=rf"{message}.*--prefix backbone\."):
        convert(path, num_heads=2)
    converted = convert(path, num_heads=2, prefix="backbone.")
    assert converted.model.config.num_classes == 0
    assert any("left out" in note and "as --prefix says" in note for note in converted.notes)


def test_a_loss_beside_the_model_is_left_out(tmp_path: Path) -> None:
    content = {f"model.{name}": t for name, t in make_model().state_dict().items()}
    path = saved(tmp_path / "m.pth", content | {"criterion.weight": torch.ones(10)})
    converted = convert(path, num_heads=2)
    assert any("left out criterion.weight" in note for note in converted.notes)


def test_a_head_behind_a_head_is_refused(tmp_path: Path) -> None:
    content = {f"backbone.{name}": t for name, t in make_model().state_dict().items()}
    path = saved(tmp_path / "m.pth", content | {"classifier.weight": torch.ones(5, 10)})
    with pytest.raises(ConvertError, match=r"1 tensors beside the model \(classifier\.weight\)"):
        convert(path, num_heads=2)


def test_a_classifier_in_a_file_of_dinos_is_kept(tmp_path: Path) -> None:
    """Only the projection that DINO trains with is no part of the model."""
    path = saved(tmp_path / "dino_tuned.pth", dict(make_model().state_dict()))
    converted = convert(path, num_heads=2)
    assert converted.format == "dino" and converted.model.config.num_classes == 10


def test_a_head_of_zeros_is_noted(tmp_path: Path) -> None:
    tensors = dict(make_model().state_dict())
    path = saved(tmp_path / "m.pth", tensors)
    assert not any("all zeros" in note for note in convert(path, num_heads=2).notes)
    path = saved(tmp_path / "m.pth", tensors | {"head.weight": torch.zeros(10, 32)})
    assert any("the head is all zeros" in note for note in convert(path, num_heads=2).notes)
