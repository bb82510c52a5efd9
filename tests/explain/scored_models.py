"""Models for the tests of scores: small, random and sharpened, on a grid of 3:2."""

from __future__ import annotations

from typing import Any

import torch

from minivit.config import ViTConfig
from minivit.vit import VisionTransformer


def sharp(seed: int = 0, **changes: Any) -> VisionTransformer:
    """Two registers, a grid of 4 x 6, two heads, three blocks; attention far from uniform."""
    fields: dict[str, Any] = {
        "image_size": (32, 48),
        "patch_size": (8, 8),
        "dim": 32,
        "depth": 3,
        "num_heads": 2,
        "hidden_dim": 64,
        "num_classes": 5,
        "activation": "gelu",
        "layer_norm_eps": 1e-6,
        "num_register_tokens": 2,
    }
    torch.manual_seed(seed)
    model = VisionTransformer(ViTConfig(**{**fields, **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model
