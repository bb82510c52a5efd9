"""A small block's config, and what the tests of both kinds of block share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minivit.config import BlockConfig

B, N, M, D, H = 2, 5, 7, 12, 3
CONFIG = BlockConfig(
    dim=D,
    num_heads=H,
    hidden_dim=20,
    activation="gelu",
    layer_norm_eps=1e-3,  # an epsilon that shows in the output
)


def randomize(module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(std=0.3)
            if "norm" in name and name.endswith("weight"):
                parameter += 1.0


def padding(lengths: tuple[int, int], size: int) -> Tensor:
    """(B, size), True = a real token."""
    return torch.arange(size) < torch.tensor(lengths)[:, None]
