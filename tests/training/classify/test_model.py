"""The model of a recipe: new, or from a checkpoint, of which all is kept that fits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
from minivit.config import ViTConfig
from minivit.embeddings import resize_position_embedding, sine_position_embedding
from minivit.training.classify.model import load_start, make_classifier
from minivit.training.recipes import ClassifyRecipe
from minivit.vit import VisionTransformer
from tests.test_captioner import make_captioner

NAMES = ("cat", "dog", "horse")


def recipe(**values: Any) -> ClassifyRecipe:
    return ClassifyRecipe(epochs=1, batch_size=4, lr=1e-3, **values)


def make(recipe: ClassifyRecipe, names: tuple[str, ...]) -> tuple[VisionTransformer, str]:
    return make_classifier(recipe, names, load_start(recipe))


def test_a_new_model_is_as_the_recipe_says() -> None:
    small = recipe(image_size=48, patch_size=8, dim=24, depth=3, num_heads=2, drop_path=0.2)
    model, said = make(small, NAMES)
    assert model.config.image_size == model.preprocess.image_size == (48, 48)
    assert (model.config.dim, model.config.depth, model.config.num_heads) == (24, 3, 2)
    assert model.labels == NAMES and model.head.weight.shape == (3, 24)
    assert model.pos_embed is not None
    torch.testing.assert_close(model.pos_embed.std(), torch.tensor(0.02), rtol=0.2, atol=0)
    assert "from scratch" in said and "3 blocks of width 24, pictures of 48x48" in said


def test_positions_start_as_sines_where_the_recipe_says_so() -> None:
    small = recipe(image_size=48, patch_size=8, dim=24, num_heads=2, pos_embed_start="sine")
    model, _ = make(small, NAMES)
    assert model.pos_embed is not None
    torch.testing.assert_close(model.pos_embed[0, 1:], sine_position_embedding(6, 6, 24) / 2)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A ViT of 3:2 pictures with a distillation token, whose head is for cats and dogs."""
    torch.manual_seed(0)
    config = ViTConfig.from_name(
        "debug_patch8_32", num_classes=2, image_size=(32, 48), distillation_token=True
    )
    model = VisionTransformer(config, labels=("cat", "dog"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    minivit.save_model(model, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def test_the_same_classes_keep_everything(checkpoint: Path) -> None:
    start = minivit.load_model(checkpoint)
    model, said = make(recipe(weights=str(checkpoint)), ("cat", "dog"))
    assert said.endswith(f"from {checkpoint}")
    for name, value in model.state_dict().items():
        assert torch.equal(value, start.state_dict()[name])
    assert model.config == dataclasses.replace(start.config, drop_path=0.0)


@pytest.mark.parametrize("names", [NAMES, ("dog", "cat")])
def test_other_classes_get_a_new_head(checkpoint: Path, names: tuple[str, ...]) -> None:
    """Also where only their order differs."""
    start = minivit.load_model(checkpoint)
    model, said = make(recipe(weights=str(checkpoint)), names)
    assert "its head is for other classes (2 of them): made anew" in said
    for name, value in model.state_dict().items():
        if name.startswith("head"):
            assert len(value) == len(names) and not value.any()
        else:
            assert torch.equal(value, start.state_dict()[name])


def test_positions_are_resized_to_the_picture_size_asked_for(checkpoint: Path) -> None:
    start = minivit.load_model(checkpoint)
    model, said = make(recipe(weights=str(checkpoint), image_size=64), ("cat", "dog"))
    assert "position embeddings resized from 4x6 to 8x8 patches" in said
    assert model.preprocess.image_size == (64, 64)
    expected = resize_position_embedding(start.pos_embed, (4, 6), (8, 8))
    torch.testing.assert_close(model.pos_embed, expected)
    images = torch.randn(1, 3, 64, 64)
    model.eval()
    torch.testing.assert_close(model.encode(images), start.encode(images), rtol=1e-4, atol=1e-4)


def test_what_is_trained_is_not_the_file(checkpoint: Path) -> None:
    """A checkpoint is mapped into memory; training must not write there."""
    before = checkpoint.read_bytes()
    model, _ = make(recipe(weights=str(checkpoint)), ("cat", "dog"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert checkpoint.read_bytes() == before


def test_only_a_vit_can_be_fine_tuned(tmp_path: Path) -> None:
    other = tmp_path / "captioner.safetensors"
    minivit.save_model(make_captioner(), other)
    with pytest.raises(ValueError, match="holds a Captioner, a VisionTransformer is needed"):
        make(recipe(weights=str(other)), NAMES)
