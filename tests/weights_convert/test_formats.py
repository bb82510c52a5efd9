"""Every source: its own code's outputs against the converted model's.

Here the outputs are the stored ones of `tests/references/convert_*.safetensors`; the weights are
made again by their names and written in the source's own file format. `test_live.py` does the same
with the live libraries and their own way of saving.
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from minivit import VisionTransformer, ViTConfig, load_model
from minivit.resnet import ResNet
from tests.catr import references, vocabulary
from tests.references.seeded import fingerprint, foreign_weights, seeded, seeded_weights
from tests.test_vit import STORED
from tests.weights_convert.agreement import assert_agrees
from weights_convert import ConvertError, convert

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


# ---- timm: the references of tests/test_vit.py serve here too ------------------------------------

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


class StoredTimm(NamedTuple):
    """A reference of `make_vit.py`, with what its model is in minivit's words."""

    tensors: dict[str, Tensor]
    config: ViTConfig
    shape: tuple[int, ...]
    seed: int
    hints: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """The weights by timm's names, as a training script keeps them."""
        shapes = {key: t.shape for key, t in VisionTransformer(self.config).state_dict().items()}
        weights = seeded_weights(shapes, self.seed)
        torch.save({"epoch": 3, "model": weights}, folder / "weights.pth")
        return folder / "weights.pth"


def stored_timm(case: str) -> StoredTimm:
    path = FOLDER / f"vit_{case}.safetensors"
    with safe_open(path, "pt") as file:
        seed = int(file.metadata()["seed"])
    tensors = load_file(path)
    tensors["output"] = tensors.pop("logits")
    config, shape = STORED[case]
    hints = {"num_heads": config.num_heads, "image_size": config.image_size} | TIMM[case]
    return StoredTimm(tensors, config, shape, seed, hints)


@pytest.mark.parametrize("case", TIMM)
def test_converted_timm_model_agrees(case: str, tmp_path: Path) -> None:
    """Weights by timm's names, a config by nothing but their shapes and a few words."""
    reference = stored_timm(case)
    converted = convert(reference.write(tmp_path), **reference.hints)
    assert converted.format == "timm"
    scale = reference.config.layer_scale
    same = {} if scale is None else {"layer_scale": scale}
    assert dataclasses.replace(converted.model.config, **same) == reference.config
    pictures = seeded("pictures", reference.shape, reference.seed)
    assert_agrees(converted.model, pictures, reference.tensors)


# ---- captioners: numbers are compared in tests/test_captioner.py and tests/test_resnet.py -------


def test_catr_needs_a_vocabulary_that_fits(tmp_path: Path) -> None:
    """All that is checked before the weights are looked at takes few of them."""
    names = [
        name for name in json.loads(references()[1]["shapes"]) if "decoder.layers.1" not in name
    ]
    small = {name: torch.zeros(()) for name in names}
    small["transformer.embeddings.word_embeddings.weight"] = torch.zeros(30522, 256)
    path = tmp_path / "catr.pth"
    torch.save({"model": small}, path)
    with pytest.raises(ConvertError, match=r"the vocabulary is not in the file: .*vocab.txt"):
        convert(path)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary(30000)))
    with pytest.raises(ConvertError, match="30000 words, the weights are for 30522"):
        convert(path, vocabulary=tmp_path / "vocab.txt")


def test_a_resnet_starts_a_backbone(tmp_path: Path) -> None:
    """torchvision's file, with the classifier and the counters of norms that still learn."""
    prefix = "backbone.0.body."
    weights = {
        name.removeprefix(prefix): torch.zeros(shape)
        for name, shape in json.loads(references()[1]["shapes"]).items()
        if name.startswith(prefix)
    }
    weights["conv1.weight"] += 2.0
    weights |= {"fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}
    weights["bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(weights, tmp_path / "resnet101-63fe2227.pth")
    converted = convert(tmp_path / "resnet101-63fe2227.pth", tmp_path / "r.safetensors")
    assert converted.format == "resnet"
    loaded = load_model(tmp_path / "r.safetensors", expected=ResNet)
    assert loaded.config.depth == 101 and not loaded.config.dilate_last_stage
    assert float(loaded.conv1.weight.detach().mean()) == 2.0
    del weights["layer3.22.conv1.weight"]
    torch.save(weights, tmp_path / "r.pth")
    with pytest.raises(ConvertError, match="minivit runs ResNet-50 and 101"):
        convert(tmp_path / "r.pth")


def test_every_case_stands_in_the_readmes_table() -> None:
    table = (Path(__file__).parents[2] / "weights_convert" / "README.md").read_text("utf-8")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    figures = {cells[2].strip().strip("`"): cells[3:5] for cells in rows if len(cells) == 6}
    assert {*CASES, *TIMM, "catr"} <= set(figures)
    for case in (*CASES, *TIMM, "catr"):
        outputs, attention = map(float, figures[case])
        assert outputs <= 1e-4 and attention <= 1e-5, case


@pytest.mark.parametrize("case", ["dino", "dinov2", "hf_dinov2"])
def test_a_square_grid_is_no_assumption_where_the_source_knows_no_other(
    case: str, tmp_path: Path
) -> None:
    path = write(case, stored(case), tmp_path)
    converted = convert(path, num_heads=None if case.startswith("hf") else 2)
    assert not [note for note in converted.notes if "square" in note]
