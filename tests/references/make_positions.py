"""Position embeddings of other people's code: positions.safetensors.

    python -m tests.references.make_positions      (from the top of the repository; needs timm and
                                                    vit-pytorch)

* `timm.{case}`: timm's `resample_abs_pos_embed`.
* `dino.{case}`, `dinov2.{case}`: the published recipes, which cannot be installed as packages, in
  torch operations. DINO, and DINOv2 without registers: bicubic, no antialias, 0.1 cells added to
  both sides before the step between samples is taken. DINOv2 with registers: antialias, nothing
  added.
* `sine.{case}`: vit-pytorch's `posemb_sincos_2d`.

The embeddings that are resized are not stored: `seeded.py` makes them again.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from vit_pytorch.simple_vit import posemb_sincos_2d

from tests.references.seeded import seeded

SEED = 2021
DIM = 8
FILE = Path(__file__).parent / "positions.safetensors"


class Resize(NamedTuple):
    """A resize from one grid (rows, cols) to another, with so many prefix rows kept."""

    old: tuple[int, int]
    new: tuple[int, int]
    num_prefix: int


RESIZES = {
    "larger": Resize((7, 7), (10, 15), 1),
    "smaller": Resize((14, 14), (6, 9), 2),
    "wide_to_tall": Resize((4, 6), (9, 5), 0),
    "same_number": Resize((6, 6), (4, 9), 1),
}
SINES = {"wide": (4, 6, 16, 10000), "tall": (5, 2, 8, 10000), "warm": (3, 3, 24, 100)}


def old_embedding(name: str) -> Tensor:
    """(1, prefix + old rows * old cols, D)."""
    (rows, cols), _, num_prefix = RESIZES[name]
    return seeded(name, (1, num_prefix + rows * cols, DIM), SEED)


def dino(
    embedding: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    num_prefix: int,
    *,
    antialias: bool,
    offset: float,
) -> Tensor:
    """facebookresearch/dino and dinov2, `interpolate_pos_encoding`, for grids of any shape."""
    prefix, places = embedding[:, :num_prefix], embedding[:, num_prefix:]
    picture = places.reshape(1, *old, -1).permute(0, 3, 1, 2)
    if offset:
        steps = ((new[0] + offset) / old[0], (new[1] + offset) / old[1])
        picture = F.interpolate(picture, scale_factor=steps, mode="bicubic", antialias=antialias)
    else:
        picture = F.interpolate(picture, size=new, mode="bicubic", antialias=antialias)
    return torch.cat([prefix, picture.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def make() -> dict[str, Tensor]:
    """All tensors of the file."""
    tensors = {}
    for name, (old, new, num_prefix) in RESIZES.items():
        embedding = old_embedding(name)
        tensors[f"timm.{name}"] = resample_abs_pos_embed(
            embedding, list(new), list(old), num_prefix_tokens=num_prefix
        )
        for recipe, antialias, offset in (("dino", False, 0.1), ("dinov2", True, 0.0)):
            tensors[f"{recipe}.{name}"] = dino(
                embedding, old, new, num_prefix, antialias=antialias, offset=offset
            )
    for name, (rows, cols, dim, temperature) in SINES.items():
        tensors[f"sine.{name}"] = posemb_sincos_2d(rows, cols, dim, temperature)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


if __name__ == "__main__":
    metadata = {
        "seed": str(SEED),
        "versions": json.dumps(
            {name: version(name) for name in ("timm", "vit-pytorch", "torch", "numpy")}
        ),
        "made_by": "python -m tests.references.make_positions",
    }
    save_file(make(), FILE, metadata=metadata)
