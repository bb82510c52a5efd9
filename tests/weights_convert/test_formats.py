"""Every source: its own code's outputs against the converted model's.

The default run takes the stored outputs of `tests/references/convert_*.safetensors`, makes the
weights again by their names, and writes them in the source's own file format. The parity run does
the same with the live libraries and their own way of saving.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from minivit import VisionTransformer, load_model
from tests.references.seeded import fingerprint, foreign_weights, seeded, seeded_weights
from tests.test_vit import STORED
from weights_convert import convert

FOLDER = Path(__file__).parents[1] / "references"
CASES = sorted(path.stem.removeprefix("convert_") for path in FOLDER.glob("convert_*.safetensors"))
FORMATS = {
    "dino": "dino",
    "dinov2": "dinov2",
    "hf": "hugging_face",
    "jax": "jax",
    "lukemelas": "lukemelas",
    "open": "open_clip",
    "torchvision": "torchvision",
}


class Stored(NamedTuple):
    """A reference file, with the weights and pictures that it was made with."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    weights: dict[str, Tensor]

    def pictures(self, name: str = "pictures") -> Tensor:
        """(B, 3, height, width)."""
        shape = json.loads(self.metadata[f"{name}_shape"])
        return seeded(name, shape, int(self.metadata["seed"]))


def stored(case: str) -> Stored:
    with safe_open(FOLDER / f"convert_{case}.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights = foreign_weights(json.loads(metadata["shapes"]), int(metadata["seed"]))
    assert fingerprint(weights) == metadata["weights"]
    return Stored(tensors, metadata, weights)


def write(case: str, reference: Stored, folder: Path) -> Path:
    """The weights as a file, or a folder, of the source's kind."""
    if case.startswith("jax"):
        np.savez(folder / "weights.npz", **{k: t.numpy() for k, t in reference.weights.items()})
        return folder / "weights.npz"
    if case.startswith("hf"):
        save_file(reference.weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(reference.metadata["config"])
        return folder
    name = {"dino": "dino_small_pretrain.pth"}.get(case, f"{case}.pth")
    torch.save(reference.weights, folder / name)
    return folder / name


def options(case: str, reference: Stored) -> dict[str, Any]:
    """What the shapes do not tell."""
    found: dict[str, Any] = {}
    if not case.startswith(("hf", "jax")):  # config.json tells, and Flax's shapes do
        found["num_heads"] = int(reference.metadata["num_heads"])
    if case == "open_clip_quick":
        found["activation"] = "quick_gelu"
    if case.startswith(("jax", "lukemelas", "open_clip")):
        found["image_size"] = tuple(reference.pictures().shape[-2:])
    return found


def assert_agrees(model: Any, pictures: Tensor, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        output, attentions = model(pictures, return_attention=True)
        tokens = model.encode(pictures)
    if model.config.num_classes == 0:
        torch.testing.assert_close(tokens[:, 0], expected["output"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output, expected["output"], atol=1e-4, rtol=0)
    if "tokens" in expected:
        torch.testing.assert_close(tokens, expected["tokens"], atol=1e-4, rtol=0)
    for index, weights in enumerate(attentions):
        if f"attention.{index}" in expected:
            torch.testing.assert_close(weights, expected[f"attention.{index}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_converted_model_agrees_with_the_source(case: str, tmp_path: Path) -> None:
    reference = stored(case)
    path = write(case, reference, tmp_path)
    output = tmp_path / "out" / "model.safetensors"
    converted = convert(path, output, **options(case, reference))
    assert converted.format == FORMATS[case.split("_")[0]]
    assert any(name.startswith("attention.") for name in reference.tensors)
    for model in (converted.model, load_model(output)):
        assert_agrees(model, reference.pictures(), reference.tensors)
        if "output_other" in reference.tensors:
            other = {"output": reference.tensors["output_other"]}
            assert_agrees(model, reference.pictures("pictures_other"), other)


def test_every_source_has_a_reference() -> None:
    assert {FORMATS[case.split("_")[0]] for case in CASES} == set(FORMATS.values())


# ---- timm: the references of tests/test_vit.py serve here too -----------------------------------

TIMM: dict[str, dict[str, Any]] = {
    "class_token": {},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "registers": {},
    "registers_larger": {"image_size": None},
    "registers_smaller": {"image_size": None},
    "mean_pooling": {},
    "no_class_token": {},
    "clip": {"activation": "quick_gelu"},
    "features": {"activation": "gelu_tanh"},
}


@pytest.mark.parametrize("case", TIMM)
def test_converted_timm_model_agrees(case: str, tmp_path: Path) -> None:
    """Weights by timm's names, a config by nothing but their shapes and a few words."""
    with safe_open(FOLDER / f"vit_{case}.safetensors", "pt") as file:
        metadata = file.metadata()
        expected = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected["output"] = expected.pop("logits")
    config, shape = STORED[case]
    shapes = {key: t.shape for key, t in VisionTransformer(config).state_dict().items()}
    weights = seeded_weights(shapes, int(metadata["seed"]))
    assert fingerprint(weights) == metadata["weights"]
    path = tmp_path / "weights.pth"
    torch.save({"epoch": 3, "model": weights}, path)
    hints = {"num_heads": config.num_heads, "image_size": config.image_size} | TIMM[case]
    converted = convert(path, **hints)
    assert converted.format == "timm"
    same = {} if config.layer_scale is None else {"layer_scale": config.layer_scale}
    assert dataclasses.replace(converted.model.config, **same) == config
    assert_agrees(converted.model, seeded("pictures", shape, int(metadata["seed"])), expected)
