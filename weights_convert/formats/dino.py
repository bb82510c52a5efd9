"""facebookresearch/dino: the published backbones, and whole training checkpoints.

A training checkpoint has two networks, teacher and student, each a `backbone` and a projection
`head`; the teacher's backbone is what is published. Names are timm's.
"""

from __future__ import annotations

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
from weights_convert.reading import Source

KEYS = {name: target for name, target in TIMM_KEYS.items() if name != "fc_norm.{part}"} | {
    # the projection for training goes, a classifier stays
    "head.mlp.{rest}": None,
    "head.last_layer.{rest}": None,
    "dino_head.{rest}": None,
}


def recognises(source: Source) -> bool:
    """Whether it is a training checkpoint, or timm's names in a file called dino_…."""
    names = source.tensors
    if "backbone.patch_embed.proj.weight" in names:
        return "backbone.mask_token" not in names
    named = "dino_" in source.path.name  # as in dino_deitsmall8_pretrain.pth
    return named and "patch_embed.proj.weight" in names and "mask_token" not in names


def convert(source: Source, hints: Hints) -> Parts:
    """The backbone; `encode(images)[:, 0]` is the feature.

    Raises:
        ConvertError: Tensors that do not belong to DINO's ViT.
    """
    where = str(source.path)
    tensors = rename(
        {name.removeprefix("backbone."): tensor for name, tensor in source.tensors.items()},
        KEYS,
        where,
    )
    config = infer_config(
        tensors,
        hints,
        where,
        activation="gelu",
        layer_norm_eps=1e-6,
        square_grid=True,
        pos_embed_antialias=False,
        pos_embed_offset=0.1,
    )
    preprocess = preprocessing(
        (224, 224), IMAGENET_MEAN, IMAGENET_STD, filter="bicubic", crop_fraction=224 / 256
    )
    return Parts(config, tensors, preprocess, imagenet_labels(config, hints))
