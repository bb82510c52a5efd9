"""transformers (Hugging Face): ViT, DeiT, DINOv2 with and without registers, CLIP's image tower.

Published files and transformers 5 name the tensors differently; the table has both. What shapes do
not tell stands in config.json beside the weights, and how photos are prepared in
preprocessor_config.json. Without these files the class's own defaults are taken, and a note says
so.
"""

from __future__ import annotations

import re
from typing import Any

from PIL import Image
from torch import Tensor

from minivit.config import ViTConfig
from minivit.preprocess import Preprocess
from weights_convert.architecture import (
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Hints,
    Parts,
    imagenet_labels,
    infer_config,
    photo,
)
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source

_PUBLISHED, _TODAY = "encoder.layer.{i}", "layers.{i}"
KEYS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.mask_token": None,
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.{part}": "patch_embed.proj.{part}",
    # ViT and DeiT as published
    f"{_PUBLISHED}.attention.attention.query.{{part}}": "blocks.{i}.attn.qkv.{part}:q",
    f"{_PUBLISHED}.attention.attention.key.{{part}}": "blocks.{i}.attn.qkv.{part}:k",
    f"{_PUBLISHED}.attention.attention.value.{{part}}": "blocks.{i}.attn.qkv.{part}:v",
    f"{_PUBLISHED}.attention.output.dense.{{part}}": "blocks.{i}.attn.proj.{part}",
    f"{_PUBLISHED}.layernorm_before.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_PUBLISHED}.layernorm_after.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_PUBLISHED}.intermediate.dense.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_PUBLISHED}.output.dense.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    # ViT and DeiT in transformers 5
    f"{_TODAY}.layernorm_before.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_TODAY}.layernorm_after.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_TODAY}.mlp.fc1.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_TODAY}.mlp.fc2.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    # DINOv2, in both
    f"{_PUBLISHED}.norm1.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_PUBLISHED}.norm2.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_PUBLISHED}.layer_scale1.lambda1": "blocks.{i}.ls1.gamma",
    f"{_PUBLISHED}.layer_scale2.lambda1": "blocks.{i}.ls2.gamma",
    f"{_PUBLISHED}.mlp.fc1.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_PUBLISHED}.mlp.fc2.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    f"{_PUBLISHED}.mlp.weights_in.{{part}}": "blocks.{i}.mlp.fc1.{part}",  # SwiGLU
    f"{_PUBLISHED}.mlp.weights_out.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    f"{_PUBLISHED}.mlp.gate_proj.{{part}}": "blocks.{i}.mlp.fc1.{part}:gate",
    f"{_PUBLISHED}.mlp.up_proj.{{part}}": "blocks.{i}.mlp.fc1.{part}:up",
    f"{_PUBLISHED}.mlp.down_proj.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    # CLIP
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.position_ids": None,
    "pre_layrnorm.{part}": "norm_pre.{part}",  # so spelled
    "encoder.layers.{i}.layer_norm1.{part}": "blocks.{i}.norm1.{part}",
    "encoder.layers.{i}.layer_norm2.{part}": "blocks.{i}.norm2.{part}",
    "encoder.layers.{i}.self_attn.q_proj.{part}": "blocks.{i}.attn.qkv.{part}:q",
    "encoder.layers.{i}.self_attn.k_proj.{part}": "blocks.{i}.attn.qkv.{part}:k",
    "encoder.layers.{i}.self_attn.v_proj.{part}": "blocks.{i}.attn.qkv.{part}:v",
    "encoder.layers.{i}.self_attn.out_proj.{part}": "blocks.{i}.attn.proj.{part}",
    "encoder.layers.{i}.mlp.fc1.{part}": "blocks.{i}.mlp.fc1.{part}",
    "encoder.layers.{i}.mlp.fc2.{part}": "blocks.{i}.mlp.fc2.{part}",
    "post_layernorm.{part}": "norm.{part}",
    "visual_projection.weight": "head.weight",
    # heads; the pooler of a model without one is the tanh layer that it was pre-trained with
    "layernorm.{part}": "norm.{part}",
    "pooler.dense.{part}": "pre_logits.0.{part}",
    "classifier.{part}": "head.{part}",
    "cls_classifier.{part}": "head.{part}",
    "distillation_classifier.{part}": "head_dist.{part}",
    "text_model.{rest}": None,
    "text_projection.weight": None,
    "logit_scale": None,
} | {  # attention in transformers 5
    f"{layer}.attention.{theirs}_proj.{{part}}": f"blocks.{{i}}.attn.{ours}"
    for layer in (_PUBLISHED, _TODAY)
    for theirs, ours in (
        ("q", "qkv.{part}:q"),
        ("k", "qkv.{part}:k"),
        ("v", "qkv.{part}:v"),
        ("o", "proj.{part}"),
    )
}  # fmt: skip

_BASE = re.compile(r"^(?:(?:vit|deit|dinov2|dinov2_with_registers|vision_model)\.)+")
_ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# What each class takes where config.json or preprocessor_config.json says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "deit": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "dinov2": {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
    "dinov2_with_registers": {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
    "clip": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}
_DINOV2_PHOTO = {
    "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "resample": 3,
    "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
}  # fmt: skip
_PHOTOS: dict[str, dict[str, Any]] = {
    "vit": {"size": None, "resample": 2, "image_mean": HALF, "image_std": HALF},
    "deit": {
        "size": 256, "do_center_crop": True, "crop_size": 224, "resample": 3,
        "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
    },
    "dinov2": _DINOV2_PHOTO,
    "dinov2_with_registers": _DINOV2_PHOTO,
    "clip": {
        "size": {"shortest_edge": None}, "do_center_crop": True, "crop_size": None, "resample": 3,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    },
}  # fmt: skip


def recognises(source: Source) -> bool:
    """Whether there is the patch embedding of one of these classes."""
    return any(
        name.endswith(
            ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embedding.weight")
        )
        for name in source.tensors
    )


def convert(source: Source, hints: Hints) -> Parts:
    """The model, as config.json describes it.

    Raises:
        ConvertError: A class that is not a plain ViT, or a config.json that contradicts the shapes.
    """
    where = str(source.path)
    kind = _kind(source)
    # in a folder with both towers of CLIP the image tower's settings stand one level down
    stated = source.config.get("vision_config", source.config)
    if not source.config:
        hints.assume(
            f"the settings of transformers' {kind!r} class: there is no config.json beside"
        )
    settings = _DEFAULTS[kind] | stated
    if settings["hidden_act"] not in _ACTIVATIONS:
        raise ConvertError(
            f"{where}: config.json: hidden_act {settings['hidden_act']!r} is unknown"
        )
    heads_alone = "cls_classifier.weight" not in source.tensors
    tensors = rename(
        {_BASE.sub("", name): tensor for name, tensor in source.tensors.items()}, KEYS, where
    )
    if kind == "clip":
        tensors["cls_token"] = tensors["cls_token"].view(1, 1, -1)  # (D,) -> (1, 1, D)
        tensors["pos_embed"] = tensors["pos_embed"][None]  # (N, D) -> (1, N, D)
    if "dist_token" in tensors and heads_alone:
        _distillation_token_as_register(tensors)
    fields: dict[str, Any] = {"pos_embed_antialias": kind == "dinov2_with_registers"}
    if "head.weight" in tensors and tensors["head.weight"].shape[1] == 2 * _width(tensors):
        fields["pooling"] = "cls_and_mean"
    side = settings.get("image_size")
    config = infer_config(
        tensors,
        hints,
        where,
        activation=_ACTIVATIONS[settings["hidden_act"]],
        layer_norm_eps=float(settings["layer_norm_eps"]),
        num_heads=settings.get("num_attention_heads"),
        image_size=(side, side) if isinstance(side, int) else None,
        **fields,
    )
    labels = None if kind == "clip" else _labels(source.config, config, hints)
    return Parts(config, tensors, _preprocess(source.processor, kind, config, where), labels)


def _width(tensors: dict[str, Tensor]) -> int:
    """D by the class token."""
    return tensors["cls_token"].shape[-1]


def _kind(source: Source) -> str:
    """The class, by config.json or by the names of the tensors."""
    stated = str(source.config.get("model_type", "")).removesuffix("_vision_model")
    names = source.tensors
    if stated in _DEFAULTS:
        return stated
    if stated:
        raise ConvertError(
            f"{source.path}: config.json says {stated!r}; minivit runs {', '.join(_DEFAULTS)}"
        )
    if any(name.endswith("embeddings.patch_embedding.weight") for name in names):
        return "clip"
    if any(name.endswith("layer_scale1.lambda1") for name in names):
        registers = any(name.endswith("register_tokens") for name in names)
        return "dinov2_with_registers" if registers else "dinov2"
    return "deit" if any(name.endswith("distillation_token") for name in names) else "vit"


def _distillation_token_as_register(tensors: dict[str, Tensor]) -> None:
    """DeiT without its second head: nobody reads the distillation token, yet all attend to it.

    That is a register token, but for its position, which is added to it here.
    """
    position = tensors["pos_embed"]
    tensors["reg_token"] = tensors.pop("dist_token") + position[:, 1:2]
    tensors["pos_embed"] = position[:, [0, *range(2, position.shape[1])]]  # (1, 2 + N, D) -> 1 + N


def _labels(settings: dict[str, Any], config: ViTConfig, hints: Hints) -> tuple[str, ...] | None:
    names = {str(key): str(value) for key, value in (settings.get("id2label") or {}).items()}
    complete = set(names) == {str(index) for index in range(config.num_classes)}
    if config.num_classes and complete and names["0"] != "LABEL_0":
        return tuple(names[str(index)] for index in range(config.num_classes))
    return imagenet_labels(config, hints)


def _preprocess(stated: dict[str, Any], kind: str, config: ViTConfig, where: str) -> Preprocess:
    """What the image processor does with Pillow: resize, crop rounded down, rescale, normalise."""
    values = _PHOTOS[kind] | stated
    side = config.image_size[0]
    size = values["size"] or side
    crop = values.get("crop_size") or side
    cropped = bool(values.get("do_center_crop"))
    seen = _sides(crop) if cropped else _sides(size, side)
    keeps_aspect = isinstance(size, dict) and "shortest_edge" in size
    if keeps_aspect and not cropped:
        raise ConvertError(
            f"{where}: preprocessor_config.json resizes without a crop: not a square"
        )
    resized = _sides(size, side)
    try:
        return photo(
            seen,
            tuple(values["image_mean"]),
            tuple(values["image_std"]),
            filter=Image.Resampling(values["resample"]).name.lower(),
            mode="crop" if keeps_aspect else "squash",
            # half a pixel more, so that rounding down gives the whole number again
            crop_fraction=1.0 if resized == seen else seen[0] / (resized[0] + 0.5),
            crop_rounding="down",
        )
    except (ValueError, TypeError) as error:
        raise ConvertError(f"{where}: preprocessor_config.json: {error}") from None


def _sides(size: Any, side: int = 0) -> tuple[int, int]:
    """(height, width) of a size in any of the forms that image processors use."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge") or side
        return int(size.get("height") or edge), int(size.get("width") or edge)
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[1])
    return int(size), int(size)
