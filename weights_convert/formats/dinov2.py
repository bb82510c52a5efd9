"""facebookresearch/dinov2: backbones with and without registers, and their linear heads.

`dinov2_vits14_pretrain.pth`, `dinov2_vits14_reg4_pretrain.pth`; a head comes in a file of its own
(`dinov2_vits14_linear_head.pth`: class token and patch mean of the last block;
`dinov2_vits14_linear4_head.pth`: class tokens of the last four blocks and the patch mean), or in
one with the backbone, as that repository's hub models save it.
"""

from __future__ import annotations

import re
from typing import Any

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
from weights_convert.formats.timm import KEYS as TIMM_KEYS
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source, unwrap

KEYS = dict(TIMM_KEYS) | {
    "register_tokens": "reg_token",
    "mask_token": None,  # for training with masked patches
    "blocks.{i}.mlp.w12.{part}": "blocks.{i}.mlp.fc1.{part}",  # SwiGLU of the giant model
    "blocks.{i}.mlp.w3.{part}": "blocks.{i}.mlp.fc2.{part}",
    "linear_head.{part}": "head.{part}",
    "dino_head.{rest}": None,
    "ibot_head.{rest}": None,
}


def recognises(source: Source) -> bool:
    """Whether there is a mask token, which timm's copy of DINOv2 does not have."""
    return any(name.endswith("mask_token") and "embeddings" not in name for name in source.tensors)


def convert(source: Source, hints: Hints) -> Parts:
    """The backbone, with its linear head when the file has one.

    Raises:
        ConvertError: Tensors that do not belong to DINOv2's ViT, or a head of another width.
    """
    where = str(source.path)
    kept = {
        # Blocks in chunks keep their numbers: blocks.1.7 is the eighth block, in the second chunk.
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name.removeprefix("backbone.")): tensor
        for name, tensor in unwrap(source.tensors).items()
    }
    tensors = rename(kept, KEYS, where)
    registers = "reg_token" in tensors
    config = infer_config(
        tensors,
        hints,
        where,
        activation="gelu",
        layer_norm_eps=1e-6,
        square_grid=True,
        # as that repository's hub passes them
        pos_embed_antialias=registers,
        pos_embed_offset=0.0 if registers else 0.1,
        **_head_fields(tensors, hints, where),
    )
    if not registers:
        rows, cols = config.grid_size
        hints.notes.append(
            f"positions of {rows}x{cols} patches are resized to other grids as Facebook's code "
            "does it, with 0.1 added to rows and columns; the same weights from the Hugging Face "
            "hub (transformers) resize without"
        )
    hints.assume("photos as the published models take them: 256 pixels, the middle 224")
    preprocess = preprocessing(
        (224, 224), IMAGENET_MEAN, IMAGENET_STD, filter="bicubic", crop_fraction=224 / 256
    )
    return Parts(config, tensors, preprocess, imagenet_labels(config, hints))


def _head_fields(tensors: dict[str, Tensor], hints: Hints, where: str) -> dict[str, Any]:
    """How the head pools: its width counts the class tokens that it sees, and the patch mean."""
    if "head.weight" not in tensors:
        return {}
    width, dim = tensors["head.weight"].shape[1], tensors["cls_token"].shape[-1]
    if width == dim:
        hints.assume("the head sees the class token alone; Facebook's heads see the patch mean too")
        return {}
    if width % dim:
        raise ConvertError(f"{where}: the linear head takes {width} channels, tokens have {dim}")
    return {"pooling": "cls_and_mean", "head_blocks": width // dim - 1}
