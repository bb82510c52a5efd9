"""One browser, and one page of each kind, for all tests of the explorer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import minivit
from minivit.config import ViTConfig
from minivit.data.scenes.dataset import TEST_SEED, make_scene
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.pages import browser as start_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with start_browser() as started:
        yield started


@pytest.fixture(scope="session")
def scenes_model() -> VisionTransformer:
    model = minivit.load_model("scenes")
    assert isinstance(model, VisionTransformer)
    return model


@pytest.fixture(scope="session")
def scenes_page(scenes_model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, which runs in the page, on a scene and a photo of 3:2."""
    path = tmp_path_factory.mktemp("page") / "scenes.html"
    scene = make_scene(TEST_SEED, 3, image_size=96).image
    write_page(scenes_model, [PagePicture("scene 3", scene), "tutorials/photos/cat.jpg"], path)
    return path


def as_in_page(model: VisionTransformer) -> VisionTransformer:
    """The same model with its matrices in whole numbers of a row's largest / 32767."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        if parameter.dim() > 1 and len(parameter) > 1:
            rows = parameter.data.flatten(1)
            unit = rows.abs().amax(dim=1, keepdim=True) / 32767
            rows.copy_((rows / unit).round() * unit)
    return rounded


def sharp_vit(**changes: Any) -> VisionTransformer:
    """Random weights with sharp attention: 2 prefix tokens and more, a grid of 4 x 6."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "image_size": (32, 48),
        "patch_size": (8, 8),
        "dim": 48,
        "depth": 3,
        "num_heads": 3,
        "hidden_dim": 96,
        "num_classes": 7,
        "activation": "gelu",
        "layer_norm_eps": 1e-6,
        "num_register_tokens": 2,
        "layer_scale": 0.5,
    }
    model = VisionTransformer(ViTConfig(**(fields | changes))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("qkv.weight"):
                parameter.mul_(4)
            elif not name.endswith(("gamma", "norm1.weight", "norm2.weight")):
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model
