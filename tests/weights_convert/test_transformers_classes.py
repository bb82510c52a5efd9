"""Which class of transformers made a file decides what its outputs are made of, and is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.references.seeded import seeded
from tests.weights_convert.test_formats import stored, write
from weights_convert import ConvertError, convert
from weights_convert.conversion import Converted
from weights_convert.reading import Source
from weights_convert.transformers_classes import FAMILIES, family_of, rule_of


def folder(case: str, path: Path, *, drop: tuple[str, ...] = (), **settings: Any) -> Path:
    """A stored case as a hub folder, without some tensors and with other settings."""
    reference = stored(case)
    for name in [name for name in reference.weights if name.startswith(drop)] if drop else []:
        del reference.weights[name]
    write(case, reference, path)
    return restate(path, **settings)


def restate(path: Path, **settings: Any) -> Path:
    """Other settings in config.json; None takes one away."""
    values = json.loads((path / "config.json").read_text()) | settings
    values = {key: value for key, value in values.items() if value is not None}
    (path / "config.json").write_text(json.dumps(values))
    return path


def clip_classifier(path: Path, **settings: Any) -> Path:
    """The stored CLIP tower with a classifier instead of its projection."""
    reference = stored("hf_clip")
    reference.weights.pop("visual_projection.weight")
    reference.weights["classifier.weight"] = seeded("classifier", (3, 32), 1)
    reference.weights["classifier.bias"] = seeded("bias", (3,), 1)
    write("hf_clip", reference, path)
    return restate(path, **settings)


def pooled_by_hand(converted: Converted, pictures: Tensor) -> Tensor:
    """Mean of the patches as the last block leaves them, then the classifier."""
    model = converted.model
    with torch.no_grad():
        tokens = model.embed(pictures)
        for block in model.blocks:
            tokens, _ = block(tokens)
        return model.head(tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize("architectures", [["CLIPForImageClassification"], None])
def test_clips_classifier_sees_the_mean_of_patches_without_a_norm(
    architectures: list[str] | None, tmp_path: Path
) -> None:
    """By its name in config.json, or by the classifier beside a CLIP tower."""
    names = {"0": "cat", "1": "dog", "2": "owl"}
    converted = convert(clip_classifier(tmp_path, architectures=architectures, id2label=names))
    pictures = stored("hf_clip").pictures()
    expected = pooled_by_hand(converted, pictures)
    torch.testing.assert_close(converted.model(pictures), expected, atol=1e-6, rtol=0)
    assert converted.model.labels == ("cat", "dog", "owl")
    assert any("CLIPForImageClassification: the mean" in note for note in converted.notes)


def test_the_class_decides_and_not_the_tensors_alone(tmp_path: Path) -> None:
    path = folder("hf_vit", tmp_path)
    assert convert(path).model.config.pooling == "cls"
    with pytest.raises(ConvertError, match="says 'OurViT', a class that minivit does not run; of "):
        convert(restate(path, architectures=["OurViT"]))
    with pytest.raises(ConvertError, match="ViTModel has no 'classifier', yet the file has"):
        convert(restate(path, architectures=["ViTModel"]))
    with pytest.raises(ConvertError, match=r"says 'SwinModel' \(model type 'swin'\)"):
        convert(restate(path, architectures=["SwinModel"], model_type="swin"))


def test_a_pooler_beside_a_classifier_is_left_out_and_said(tmp_path: Path) -> None:
    """ViTForImageClassification has none: a file with both comes from an older version."""
    plain = convert(folder("hf_vit", tmp_path)).model
    reference = stored("hf_vit")
    reference.weights["vit.pooler.dense.weight"] = torch.eye(32)
    reference.weights["vit.pooler.dense.bias"] = torch.ones(32)
    write("hf_vit", reference, tmp_path)
    converted = convert(restate(tmp_path, architectures=["ViTForImageClassification"]))
    assert any("left out pooler" in note for note in converted.notes)
    assert converted.model.config == plain.config
    pictures = reference.pictures()
    assert torch.equal(converted.model(pictures), plain(pictures))


def test_a_pooler_that_is_not_tanh_is_refused(tmp_path: Path) -> None:
    reference = stored("hf_vit")
    for part in ("weight", "bias"):
        del reference.weights[f"classifier.{part}"]
    reference.weights["vit.pooler.dense.weight"] = torch.eye(32)
    reference.weights["vit.pooler.dense.bias"] = torch.ones(32)
    write("hf_vit", reference, tmp_path)
    restate(tmp_path, architectures=["ViTModel"])
    assert convert(tmp_path).model.config.representation_dim == 32
    with pytest.raises(ConvertError, match="pooler_act 'relu'; minivit's pooler is tanh"):
        convert(restate(tmp_path, pooler_act="relu"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 3}, "says num_hidden_layers 3, the weights have 2"),
        ({"hidden_size": 64}, "says hidden_size 64, the weights have 32"),
        ({"image_size": 64}, "says image_size 64, the weights have 16 patches"),
        ({"num_channels": 1}, "says num_channels 1, the weights have 3"),
    ],
)
def test_a_config_json_of_another_model_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConvertError, match=message):
        convert(folder("hf_vit", tmp_path, **settings))


def test_heads_that_config_json_leaves_out_are_the_classs_twelve(tmp_path: Path) -> None:
    """Without a config.json nobody says twelve: the width decides, and a note says so."""
    path = folder("hf_vit", tmp_path, num_attention_heads=None)
    with pytest.raises(ConvertError, match="num_heads is 12, which does not divide dim 32"):
        convert(path)
    (path / "config.json").unlink()
    converted = convert(path, num_heads=4)
    assert converted.model.config.num_heads == 4
    assert any("no config.json beside" in note for note in converted.notes)


def test_a_grid_that_is_not_square_is_read_from_config_json(tmp_path: Path) -> None:
    """Sixteen patches are 4 x 4 or 2 x 8: only config.json knows."""
    config = convert(folder("hf_vit", tmp_path, image_size=[16, 64])).model.config
    assert config.image_size == (16, 64) and config.grid_size == (2, 8)


def test_names_that_are_none_and_classes_without_names(tmp_path: Path) -> None:
    path = folder("hf_vit", tmp_path)
    restate(path, id2label={str(index): f"LABEL_{index}" for index in range(10)})
    converted = convert(path)
    assert converted.model.labels is None
    assert any("the 10 classes have no names" in note for note in converted.notes)
    named = {str(index): f"LABEL_{index}" for index in range(9)} | {"9": "heron"}
    assert convert(restate(path, id2label=named)).model.labels == tuple(named.values())


def test_each_source_of_dinov2_says_how_it_resizes_positions(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    hub = convert(folder("hf_dinov2", tmp_path / "hub"))
    facebook = convert(write("dinov2", stored("dinov2"), tmp_path), num_heads=2)
    for converted, whose in ((hub, "as transformers does it"), (facebook, "as Facebook's code")):
        (note,) = [note for note in converted.notes if "resized to other grids" in note]
        assert whose in note and "0.1 added to rows and columns" in note
    assert hub.model.config.pos_embed_offset == 0
    assert facebook.model.config.pos_embed_offset == 0.1


# ---- without weights: the table ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parts", "name"),
    [
        ("vit", [], "ViTModel"),
        ("vit", ["pooler.dense.bias"], "ViTModel"),
        ("vit", ["classifier.bias"], "ViTForImageClassification"),
        ("vit", ["decoder.0.bias"], "ViTForMaskedImageModeling"),
        ("deit", ["cls_classifier.bias"], "DeiTForImageClassificationWithTeacher"),
        ("vit_mae", ["decoder.mask_token"], "ViTMAEForPreTraining"),
        ("clip", [], "CLIPVisionModel"),
        ("clip", ["visual_projection.weight"], "CLIPVisionModelWithProjection"),
        ("clip", ["visual_projection.weight", "text_model.x", "logit_scale"], "CLIPModel"),
        ("siglip", ["classifier.bias", "head.probe"], "SiglipForImageClassification"),
    ],
)
def test_without_a_name_the_tensors_tell_the_class(kind: str, parts: list[str], name: str) -> None:
    found, rule = rule_of(Source(Path("x"), {}), kind, ["embeddings.cls_token", *parts])
    assert found == name and rule is FAMILIES[kind].classes[name]


def test_attention_pooling_is_refused_by_its_name() -> None:
    for name in ("SiglipVisionModel", "SiglipModel"):
        source = Source(Path("x"), {}, config={"architectures": [name]})
        with pytest.raises(ConvertError, match=f"{name} pools by attention"):
            rule_of(source, "siglip", ["head.probe"])


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["embeddings.cls_token"], "vit"),
        (["embeddings.cls_token", "embeddings.distillation_token"], "deit"),
        (["vit.embeddings.cls_token", "decoder.decoder_embed.weight"], "vit_mae"),
        (["embeddings.mask_token"], "ijepa"),
        (["embeddings.patch_embedding.weight"], "siglip"),
        (["embeddings.patch_embedding.weight", "embeddings.class_embedding"], "clip"),
        (["encoder.layer.0.layer_scale1.lambda1"], "dinov2"),
    ],
)
def test_without_config_json_the_tensors_tell_the_tower(names: list[str], kind: str) -> None:
    assert family_of(Source(Path("x"), {name: torch.ones(1) for name in names})) == kind


def test_no_rule_stands_twice_under_one_name() -> None:
    names = [name for family in FAMILIES.values() for name in family.classes]
    assert len(names) == len(set(names)) >= 36
