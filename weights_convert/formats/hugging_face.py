"""transformers (Hugging Face): ViT, DeiT, MAE, MSN, I-JEPA, DINOv2, CLIP and SigLIP's image towers.

Published files and transformers 5 name the tensors differently; the table has both. What shapes do
not tell stands in config.json beside the weights: the settings, and the class, which decides what
becomes of the tokens (`transformers_classes`). How photos are prepared stands in
preprocessor_config.json (`transformers_photos`). What is assumed without these files, notes say.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

from minivit.config import ViTConfig
from weights_convert.architecture import Hints, Parts, imagenet_labels, infer_config
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source
from weights_convert.transformers_classes import FAMILIES, Rule, family_of, rule_of
from weights_convert.transformers_photos import read_photos

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
    # CLIP, SigLIP
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding.{part}": "patch_embed.proj.{part}",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.position_ids": None,
    "pre_layrnorm.{part}": "norm_pre.{part}",  # so spelled
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
} | {  # attention in transformers 5
    f"{layer}.attention.{theirs}_proj.{{part}}": f"blocks.{{i}}.attn.{ours}"
    for layer in (_PUBLISHED, _TODAY)
    for theirs, ours in (
        ("q", "qkv.{part}:q"),
        ("k", "qkv.{part}:k"),
        ("v", "qkv.{part}:v"),
        ("o", "proj.{part}"),
    )
} | {  # CLIP's attention and norms; version 5 saves AltCLIP's blocks as "layer"
    f"encoder.{layers}.{{i}}.{theirs}.{{part}}": f"blocks.{{i}}.{ours}"
    for layers in ("layers", "layer")
    for theirs, ours in (
        ("layer_norm1", "norm1.{part}"),
        ("layer_norm2", "norm2.{part}"),
        ("self_attn.q_proj", "attn.qkv.{part}:q"),
        ("self_attn.k_proj", "attn.qkv.{part}:k"),
        ("self_attn.v_proj", "attn.qkv.{part}:v"),
        ("self_attn.out_proj", "attn.proj.{part}"),
    )
}  # fmt: skip

_BASE = re.compile(r"^(?:(?:vit|deit|ijepa|dinov2|dinov2_with_registers|vision_model)\.)+")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def recognises(source: Source) -> bool:
    """Whether there is the patch embedding of one of these classes."""
    return any(
        name.endswith(
            ("embeddings.patch_embeddings.projection.weight", "embeddings.patch_embedding.weight")
        )
        for name in source.tensors
    )


def convert(source: Source, hints: Hints) -> Parts:
    """The model, by the rule of its class and as config.json describes it.

    Raises:
        ConvertError: A class that minivit does not run, a config.json or preprocessor_config.json
            that contradicts the weights, or a step that minivit does not have.
    """
    where = str(source.path)
    kind = family_of(source)
    family = FAMILIES[kind]
    found = {_BASE.sub("", name): tensor for name, tensor in source.tensors.items()}
    source.tensors.clear()  # so that what is stacked does not stay in memory beside the whole
    name, rule = rule_of(source, kind, found)
    if source.config:
        hints.notes.append(f"transformers' {name}: {_in_words(rule)}")
    else:
        hints.assume(f"the settings of transformers' {name}: there is no config.json beside")
    if rule.note:
        hints.notes.append(rule.note)
    _leave_out(found, rule, hints)

    stated = _tower_settings(source.config)
    settings: dict[str, Any] = {
        "hidden_act": family.hidden_act,
        "layer_norm_eps": family.layer_norm_eps,
        "num_attention_heads": 12 if source.config else None,  # the default of all these classes
    } | stated
    if settings["hidden_act"] not in _ACTIVATIONS:
        raise ConvertError(
            f"{where}: config.json: hidden_act {settings['hidden_act']!r} is unknown"
        )
    tensors = rename(found, KEYS, where)
    if "pre_logits.0.weight" in tensors and stated.get("pooler_act", "tanh") != "tanh":
        raise ConvertError(
            f"{where}: config.json: pooler_act {stated['pooler_act']!r}; minivit's pooler is tanh"
        )
    if "cls_token" in tensors:
        tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, -1)  # (D,) -> (1, 1, D), CLIP's
    if tensors["pos_embed"].dim() == 2:
        tensors["pos_embed"] = tensors["pos_embed"][None]  # (N, D) -> (1, N, D)
    if "dist_token" in tensors and "distillation_classifier" not in rule.head:
        _distillation_token_as_register(tensors)
    # DINOv2 takes its positions for a square grid, whatever image_size says
    image_size = None if kind.startswith("dinov2") else _pair(stated.get("image_size"))
    config = infer_config(
        tensors,
        hints,
        where,
        activation=_ACTIVATIONS[settings["hidden_act"]],
        layer_norm_eps=float(settings["layer_norm_eps"]),
        num_heads=settings["num_attention_heads"],
        image_size=image_size,
        square_grid=kind.startswith("dinov2"),
        pooling=rule.pooling,
        final_norm=rule.final_norm,
        pos_embed_antialias=kind == "dinov2_with_registers",
    )
    if kind.startswith("dinov2"):  # its width inside the MLPs is mlp_ratio's
        stated.pop("intermediate_size", None)
    _check_against(stated, config, hints, where)
    preprocess = read_photos(source.processor, family, config, hints, where)
    if kind == "dinov2":
        hints.notes.append(
            f"positions of {_grid(config)} are resized to other grids as transformers does it; the "
            "same weights as Facebook publishes them resize with 0.1 added to rows and columns"
        )
    elif preprocess.image_size != config.image_size:
        hints.notes.append(
            f"photos become {_size(preprocess.image_size)} pixels, the positions are made for "
            f"{_size(config.image_size)} and are resized; transformers does that only with "
            "interpolate_pos_encoding=True"
        )
    is_classifier = "classifier" in rule.head or "cls_classifier" in rule.head
    labels = _labels(source.config, config, hints) if is_classifier else None
    return Parts(config, tensors, preprocess, labels, is_classifier=is_classifier)


def _in_words(rule: Rule) -> str:
    """What the output is made of."""
    pooled = {
        "cls": "the class token",
        "mean": "the mean of the patch tokens",
        "cls_and_mean": "class token and mean of the patch tokens",
    }[rule.pooling]
    return pooled if rule.final_norm else f"{pooled}, without a last norm"


def _leave_out(tensors: dict[str, Tensor], rule: Rule, hints: Hints) -> None:
    """Drops the parts that the class's output does not need, and says so."""
    parts = {name: name.split(".")[0] for name in tensors}
    dropped = sorted({part for part in parts.values() if part in rule.unused})
    for name, part in parts.items():
        if part in rule.unused or (part == "post_layernorm" and not rule.final_norm):
            del tensors[name]
    if dropped:
        hints.notes.append(f"left out {', '.join(dropped)}: the output does not need them")


def _tower_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of the image tower: with two towers that stands one level down."""
    inner = settings.get("vision_config_dict") or settings.get("vision_config")
    stated = inner if isinstance(inner, dict) else settings
    return {key: value for key, value in stated.items() if value is not None}


def _check_against(stated: dict[str, Any], config: ViTConfig, hints: Hints, where: str) -> None:
    """Refuses a config.json that describes other weights than those beside it."""
    pairs: dict[str, tuple[Any, Any]] = {
        "hidden_size": (stated.get("hidden_size"), config.dim),
        "num_hidden_layers": (stated.get("num_hidden_layers"), config.depth),
        "intermediate_size": (stated.get("intermediate_size"), config.hidden_dim),
        "num_channels": (stated.get("num_channels"), config.in_channels),
        "patch_size": (_pair(stated.get("patch_size")), config.patch_size),
    }
    if (size := _pair(stated.get("image_size"))) and hints.image_size is None:
        height, width = config.patch_size
        patches = (size[0] // height) * (size[1] // width)
        pairs["image_size"] = (patches, math.prod(config.grid_size))
    for key, (value, actual) in pairs.items():
        if value is not None and value != actual:
            raise ConvertError(
                f"{where}: config.json says {key} {stated[key]}, the weights have "
                f"{f'{actual} patches' if key == 'image_size' else actual}: it describes another "
                "model; put the right one beside"
            )


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a size that is stated as a number or as two."""
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (size, size) if isinstance(size, int) else None


def _grid(config: ViTConfig) -> str:
    return f"{config.grid_size[0]}x{config.grid_size[1]} patches"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _distillation_token_as_register(tensors: dict[str, Tensor]) -> None:
    """DeiT without its second head: nobody reads the distillation token, yet all attend to it.

    That is a register token, but for its position, which is added to it here.
    """
    position = tensors["pos_embed"]
    tensors["reg_token"] = tensors.pop("dist_token") + position[:, 1:2]
    tensors["pos_embed"] = position[:, [0, *range(2, position.shape[1])]]  # (1, 2 + N, D) -> 1 + N


def _labels(settings: dict[str, Any], config: ViTConfig, hints: Hints) -> tuple[str, ...] | None:
    """The names in config.json; LABEL_0, LABEL_1, … are transformers' word for none."""
    stated = settings.get("id2label")
    names = {str(key): str(value) for key, value in stated.items()} if stated else {}
    count = config.num_classes
    complete = set(names) == {str(index) for index in range(count)}
    if count and complete and any(name != f"LABEL_{index}" for index, name in names.items()):
        return tuple(names[str(index)] for index in range(count))
    return imagenet_labels(config, hints)
