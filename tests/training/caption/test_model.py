"""What a captioner is built from: a backbone, a vocabulary, or another captioner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minivit import load_model, save_model
from minivit.config import ResNetConfig
from minivit.resnet import ResNet
from minivit.tokenizer import WordLevel, WordPiece
from minivit.training.caption.model import make_captioner
from tests.training.caption.recipes import VOCAB, recipe
from tests.training.tasks import small_model


def test_a_new_captioner_of_scenes_starts_from_the_shipped_vit() -> None:
    captioner, shipped = make_captioner(recipe()), load_model("scenes")
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(captioner.backbone.state_dict()[name], tensor)
    assert captioner.preprocess == shipped.preprocess
    assert isinstance(captioner.tokenizer, WordLevel)
    assert captioner.config.dim == 32 and captioner.config.decoder_depth == 1


def test_a_captioner_of_photos_needs_a_vocabulary(vocab: str) -> None:
    with pytest.raises(ValueError, match=r"need a vocabulary: give BERT's with --vocab vocab.txt"):
        make_captioner(recipe(data="photos"))
    captioner = make_captioner(recipe(data="photos", vocab=vocab))
    assert isinstance(captioner.tokenizer, WordPiece)
    assert captioner.config.vocabulary_size == len(VOCAB) and captioner.config.max_length == 128
    assert make_captioner(recipe(data="photos", vocab=vocab, max_length=9)).config.max_length == 9
    with pytest.raises(ValueError, match=r"nowhere.txt: .*expected a vocabulary file"):
        make_captioner(recipe(data="photos", vocab="nowhere.txt"))


def test_a_given_captioner_is_trained_further(tmp_path: Path) -> None:
    """As it is, whatever sizes the recipe has; photos need no vocabulary then."""
    start = make_captioner(recipe())
    save_model(start, tmp_path / "captioner.safetensors")
    for data in ("scenes", "photos"):
        weights = str(tmp_path / "captioner.safetensors")
        again = make_captioner(recipe(weights=weights, data=data, dim=64, backbone="resnet50"))
        assert again.config == start.config
        for name, tensor in start.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)


def test_a_given_vit_becomes_the_backbone(tmp_path: Path) -> None:
    vit = small_model()
    save_model(vit, tmp_path / "vit.safetensors")
    weights = str(tmp_path / "vit.safetensors")
    captioner = make_captioner(recipe(weights=weights))
    for name, tensor in vit.state_dict().items():
        assert torch.equal(captioner.backbone.state_dict()[name], tensor)
    assert captioner.preprocess == vit.preprocess
    with pytest.raises(ValueError, match=r"vit.safetensors: a vit, this recipe wants a resnet101"):
        make_captioner(recipe("catr_coco", weights=weights))


def test_a_resnet_is_a_backbone_with_or_without_training(tmp_path: Path) -> None:
    resnet = ResNet(ResNetConfig(depth=50))
    save_model(resnet, tmp_path / "resnet.safetensors")
    weights = str(tmp_path / "resnet.safetensors")
    captioner = make_captioner(recipe(weights=weights, backbone="resnet50"))
    assert captioner.config.backbone == ResNetConfig(depth=50, dilate_last_stage=True)
    for name, tensor in resnet.state_dict().items():
        assert torch.equal(captioner.backbone.state_dict()[name], tensor)
    assert isinstance(make_captioner(recipe(backbone="resnet50")).backbone, ResNet)
    for backbone in ("resnet101", "vit"):
        message = f"resnet.safetensors: a resnet50, this recipe wants a {backbone}$"
        with pytest.raises(ValueError, match=message):
            make_captioner(recipe(weights=weights, backbone=backbone))
