"""Models and pictures for the tests of methods: small, random, with sharpened attention, of 3:2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minivit import VisionTransformer, ViTConfig

ROWS, COLS = 4, 6  # pictures of 3:2
KINDS: dict[str, dict[str, Any]] = {
    "class token": {},
    "registers": {"num_register_tokens": 3, "layer_scale": 0.5},
    "distillation": {"distillation_token": True, "num_register_tokens": 1},
    "mean": {
        "class_token": False,
        "num_register_tokens": 2,
        "pooling": "mean",
        "fc_norm": True,
    },
    "several blocks read": {"pooling": "cls_and_mean", "head_blocks": 3},
}
WITH_CLASS_TOKEN = [kind for kind, options in KINDS.items() if options.get("class_token", True)]


def make_model(kind: str = "registers", *, depth: int = 3, **options: Any) -> VisionTransformer:
    """A model in float64 and eval mode whose weights of attention are far from even."""
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=(32, 32),
        patch_size=(8, 8),
        dim=24,
        depth=depth,
        hidden_dim=40,
        activation="gelu",
        layer_norm_eps=1e-6,
        **({"num_classes": 5, "num_heads": 3} | KINDS[kind] | options),
    )
    labels = ("ant", "bee", "cat", "dog", "elk") if config.num_classes else None
    model = VisionTransformer(config, labels=labels).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("qkv.weight"):
                weight[: 2 * config.dim].normal_(std=2.0 / math.sqrt(config.dim))
            elif weight.dim() > 1:
                weight.normal_(std=1 / math.sqrt(weight[0].numel()))
            else:
                weight += 0.1 * torch.randn_like(weight)
    return model


def make_images(count: int = 2) -> Tensor:
    """(count, 3, 32, 48) in float64: 4 x 6 patches, another grid than the model's own."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8 * ROWS, 8 * COLS, generator=generator, dtype=torch.float64)


def attention_arrays(model: VisionTransformer, images: Tensor) -> list[np.ndarray]:
    """The weights (B, H, N, N) of all blocks."""
    with torch.no_grad():
        return [weights.numpy() for weights in model(images, return_attention=True)[1]]


def as_maps(model: VisionTransformer, row: np.ndarray) -> np.ndarray:
    """(B, N) without prefix tokens as (B, rows, cols)."""
    return row[:, model.num_prefix_tokens :].reshape(len(row), ROWS, COLS)
