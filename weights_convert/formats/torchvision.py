"""torchvision's vision_transformer.py: `vit_b_16-c867db91.pth` and its sisters, SWAG too."""

from __future__ import annotations

import math
import re

from torch import Tensor

from weights_convert.architecture import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Hints,
    Parts,
    imagenet_labels,
    infer_config,
    preprocessing,
)
from weights_convert.key_tables import rename
from weights_convert.reading import Source

_LAYER = "encoder.layers.encoder_layer_{i}"
KEYS = {
    "class_token": "cls_token",
    "conv_proj.{part}": "patch_embed.proj.{part}",
    "encoder.pos_embedding": "pos_embed",
    f"{_LAYER}.ln_1.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_LAYER}.self_attention.in_proj_{{part}}": "blocks.{i}.attn.qkv.{part}",
    f"{_LAYER}.self_attention.out_proj.{{part}}": "blocks.{i}.attn.proj.{part}",
    f"{_LAYER}.ln_2.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_LAYER}.mlp.0.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_LAYER}.mlp.3.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    f"{_LAYER}.mlp.linear_1.{{part}}": "blocks.{i}.mlp.fc1.{part}",  # the files as published
    f"{_LAYER}.mlp.linear_2.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    "encoder.ln.{part}": "norm.{part}",
    "heads.pre_logits.{part}": "pre_logits.0.{part}",
    "heads.head.{part}": "head.{part}",
}

# File name without its checksum -> shorter side before the crop, where it is not the crop's own.
# From the transforms that torchvision states beside each set of weights.
_RESIZED = {"vit_b_16": 256, "vit_b_32": 256, "vit_l_16": 242, "vit_l_32": 256}


def recognises(source: Source) -> bool:
    """Whether the names are torchvision's."""
    return "conv_proj.weight" in source.tensors


def convert(source: Source, hints: Hints) -> Parts:
    """The model; which photos it takes goes by the file's name.

    Raises:
        ConvertError: Tensors that do not belong to torchvision's ViT.
    """
    where = str(source.path)
    tensors = rename(source.tensors, KEYS, where)
    config = infer_config(
        tensors,
        hints,
        where,
        image_size=_square(tensors),
        activation="gelu",
        layer_norm_eps=1e-6,
    )
    name = re.split(r"-|\.imagenet1k_v1", hints.name)[0]
    if name not in _RESIZED and "swag" not in name:
        plain = config.image_size == (224, 224)
        name = f"vit_{'l' if config.dim == 1024 else 'b'}_{config.patch_size[0]}"
        name = name if plain and name in _RESIZED else "vit_swag"
        hints.assume(f"photos as {name} takes them (say which weights with --name)")
    side = config.image_size[0]
    # half a pixel more, so that rounding down gives the whole number again
    crop = side / (_RESIZED[name] + 0.5) if name in _RESIZED else 1.0
    preprocess = preprocessing(
        config.image_size,
        IMAGENET_MEAN,
        IMAGENET_STD,
        filter="bilinear" if name in _RESIZED else "bicubic",
        crop_fraction=crop,
    )
    return Parts(config, tensors, preprocess, imagenet_labels(config, hints))


def _square(tensors: dict[str, Tensor]) -> tuple[int, int] | None:
    """Pixels by the number of positions: torchvision's class takes squares only."""
    if not {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys():
        return None  # what is missing will be said elsewhere
    height, width = tensors["patch_embed.proj.weight"].shape[2:]
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    return side * height, side * width
