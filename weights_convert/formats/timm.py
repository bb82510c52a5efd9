"""timm (huggingface/pytorch-image-models), and Facebook's DeiT, whose names timm has kept.

minivit's names are timm's, so that the table is short. What the tensors do not tell is in
`timm_statements.py`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from minivit.config import ViTConfig
from minivit.fields import shown
from minivit.preprocess import Preprocess
from weights_convert.architecture import (
    HALF,
    Hints,
    Parts,
    imagenet_labels,
    infer_config,
    preprocessing,
)
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source
from weights_convert.timm_statements import (
    Stated,
    activation_and_epsilon,
    check_statements,
    check_width,
    image_size,
    note_differences,
    pooling,
    read_statements,
    stated_sizes,
)

_SAME = (
    "cls_token",
    "dist_token",
    "reg_token",
    "pos_embed",
    "patch_embed.proj.{part}",
    "norm_pre.{part}",
    "blocks.{i}.norm1.{part}",
    "blocks.{i}.attn.qkv.{part}",
    "blocks.{i}.attn.proj.{part}",
    "blocks.{i}.ls1.gamma",
    "blocks.{i}.norm2.{part}",
    "blocks.{i}.mlp.fc1.{part}",
    "blocks.{i}.mlp.fc2.{part}",
    "blocks.{i}.ls2.gamma",
    "norm.{part}",
    "fc_norm.{part}",
    "head.{part}",
    "head_dist.{part}",
)
KEYS = {name: name for name in _SAME} | {
    "blocks.{i}.gamma_1": "blocks.{i}.ls1.gamma",  # DeiT III as Facebook published it
    "blocks.{i}.gamma_2": "blocks.{i}.ls2.gamma",
    "pre_logits.fc.{part}": "pre_logits.0.{part}",  # timm before 0.6
    "pre_logits.0.{part}": "pre_logits.0.{part}",
}


def recognises(source: Source) -> bool:
    """Whether the names are timm's."""
    return "patch_embed.proj.weight" in source.tensors


def convert(source: Source, hints: Hints) -> Parts:
    """The model: as its tensors prove, as the file states, as timm published it, in this order.

    Raises:
        ConvertError: Tensors that minivit cannot run, or statements that contradict each other.
    """
    where = str(source.path)
    tensors = rename(source.tensors, KEYS, where)
    if "minivit_export" in source.metadata:  # a model that `export` sent out comes home
        return _as_exported(source, tensors, where)
    try:
        stated = read_statements(source, hints)
        check_statements(stated, hints)
        _unplace_registers(tensors, stated, hints)
        config = _config(tensors, stated, hints, where)
    except ConvertError as error:
        message = str(error)
        raise ConvertError(
            message if message.startswith(where) else f"{where}: {message}"
        ) from None
    labels = stated.labels
    if labels is not None and len(labels) != config.num_classes:
        hints.notes.append(f"left out the {len(labels)} labels of config.json: the head has others")
        labels = None
    if labels is None and (stated.published is None or stated.published.num_classes == 1000):
        labels = imagenet_labels(config, hints)
    return Parts(config, tensors, _preprocess(config, stated, hints), labels)


# ---- the config ----------------------------------------------------------------------------------


def _config(tensors: dict[str, Tensor], stated: Stated, hints: Hints, where: str) -> ViTConfig:
    """The config by the order of evidence, and notes on what it rests."""
    published = stated.published
    hints.agree("num_heads", stated.args.get("num_heads"), stated.by)
    num_heads = stated.args.get("num_heads") or hints.num_heads
    if num_heads is None and published is not None:
        num_heads = published.num_heads
        check_width(tensors, stated, num_heads)
    activation, eps = activation_and_epsilon(tensors, stated, hints)
    size = image_size(tensors, stated, hints)
    config = infer_config(
        tensors,
        hints,
        where,
        image_size=size,
        pos_embed_prefix=None,  # DeiT III and models with registers place patches alone
        activation=activation,
        layer_norm_eps=eps,
        num_heads=num_heads,
        pooling=pooling(tensors, stated, hints),
    )
    if published is None:
        hints.assume(
            f"{config.activation} and LayerNorm epsilon {eps:g}: {stated.name!r} is no model of "
            "timm's (say which with --name)"
        )
    else:
        hints.notes.append(
            f"timm's {published.name} by {stated.by}: {config.num_heads} heads, "
            f"{config.activation}, pooling {config.pooling!r}"
        )
    note_differences(config, stated, hints)
    return config


def _unplace_registers(tensors: dict[str, Tensor], stated: Stated, hints: Hints) -> None:
    """Adds the positions that registers have in some models to the registers themselves."""
    if not {"reg_token", "pos_embed", "patch_embed.proj.weight"} <= tensors.keys():
        return
    first, count = int("cls_token" in tensors), tensors["reg_token"].shape[1]
    position = tensors["pos_embed"]
    others = position.shape[1] - first - count
    height, width = tensors["patch_embed.proj.weight"].shape[2:]
    sizes = stated_sizes(stated, hints)
    placed = any((rows // height) * (cols // width) == others for rows, cols in sizes)
    if not sizes:  # by the only square
        squares = [
            math.isqrt(n) ** 2 == n for n in (others, others + count, others + count + first)
        ]
        placed = squares == [True, False, False]
    if placed:
        tensors["reg_token"] = tensors["reg_token"] + position[:, first : first + count]
        kept = [position[:, :first], position[:, first + count :]]
        tensors["pos_embed"] = torch.cat(kept, dim=1)  # (1, P + R + N, D) -> (1, P + N, D)


# ---- photos, and a model that comes home ---------------------------------------------------------


def _preprocess(config: ViTConfig, stated: Stated, hints: Hints) -> Preprocess:
    """As timm's own evaluation; the source goes before the table, the table before a guess."""
    known = stated.published
    if known is not None:
        values: dict[str, Any] = {
            "mean": known.mean,
            "std": known.std,
            "interpolation": known.filter,
            "crop_pct": known.crop_fraction,
            "crop_mode": known.crop_mode,
        }
    else:
        values = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "crop_mode": "center"}
        values["crop_pct"] = 0.9 if config.image_size[0] <= 224 else 1.0
        if not stated.photos:
            hints.assume(
                f"photos as most of timm's ViTs take them: bicubic, crop {values['crop_pct']}, "
                "values from -1 to 1"
            )
    values |= {key: stated.photos[key] for key in values if stated.photos.get(key) is not None}
    if values["crop_mode"] not in ("center", "squash"):
        hints.assume(
            f"a centre crop: crop_mode {values['crop_mode']!r} pads, which minivit does not"
        )
    return preprocessing(
        config.image_size,
        tuple(values["mean"]),
        tuple(values["std"]),
        filter=values["interpolation"],
        mode="squash" if values["crop_mode"] == "squash" else "crop",
        crop_fraction=values["crop_pct"],
    )


def _as_exported(source: Source, tensors: dict[str, Any], where: str) -> Parts:
    try:
        description = json.loads(source.metadata["minivit_export"])
        config = ViTConfig.from_dict(description["config"])
        preprocess = Preprocess.from_dict(description["preprocess"])
        labels = description["labels"]
        if labels is not None and not isinstance(labels, list):
            raise ValueError(f"labels are {shown(labels)}, expected a list of texts, or null")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConvertError(
            f"{where}: the description that minivit left is damaged ({error})"
        ) from None
    return Parts(config, tensors, preprocess, None if labels is None else tuple(labels))
