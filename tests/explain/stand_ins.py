"""Baselines of the tests' own, for a table of methods that does not have them."""

from __future__ import annotations

import zlib

import pytest
import torch
from torch import Tensor

from minivit.explain.methods.table import METHODS
from minivit.vit import VisionTransformer


def random(
    model: VisionTransformer, images: Tensor, target: object = None, *, seed: int = 0
) -> Tensor:
    """Drawn by the seed and the picture, whatever batch the picture is in."""
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    numbers = [seed + zlib.crc32(image.cpu().contiguous().numpy()) for image in images]
    drawn = [torch.rand(grid, generator=torch.Generator().manual_seed(each)) for each in numbers]
    return torch.stack(drawn)


def centre(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, cols)
    return (-(x**2 + y**2)).exp().expand(len(images), rows, cols)


def edges(model: VisionTransformer, images: Tensor, target: object = None) -> Tensor:
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    across = images.diff(dim=-1).abs().mean(dim=1)
    return torch.nn.functional.adaptive_avg_pool2d(across, grid)


def add_missing_baselines(patch: pytest.MonkeyPatch) -> None:
    for method in (random, centre, edges):
        if method.__name__ not in METHODS:
            patch.setitem(METHODS, method.__name__, method)


@pytest.fixture(autouse=True)
def baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    add_missing_baselines(monkeypatch)
