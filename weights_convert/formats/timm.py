"""timm (huggingface/pytorch-image-models), and Facebook's DeiT, whose names timm has kept.

minivit's names are timm's, so that the table is short. What shapes do not tell is in timm's own
table of models, of which `timm_models.tsv` is a copy, by the model's name; or in the config.json
of a model folder.
"""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from torch import Tensor

from minivit.config import ViTConfig
from minivit.preprocess import Preprocess
from weights_convert.architecture import (
    HALF,
    Hints,
    Parts,
    imagenet_labels,
    infer_config,
    photo,
)
from weights_convert.catalogue import TimmModel, timm_model
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source

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

# Models of timm's with the tensors of a plain ViT that compute something else with them.
_OTHER_MODELS = {
    "rpn": "normalises after attention and MLP",
    "rope": "turns queries and keys by their position",
}


def recognises(source: Source) -> bool:
    """Whether the names are timm's."""
    return "patch_embed.proj.weight" in source.tensors


def convert(source: Source, hints: Hints) -> Parts:
    """The model, by timm's own name of it where that is known.

    Raises:
        ConvertError: Tensors that minivit cannot run, or a name that they contradict.
    """
    where = str(source.path)
    tensors = rename(source.tensors, KEYS, where)
    if "minivit_export" in source.metadata:  # a model that `export` sent out comes home
        return _as_exported(source, tensors, where)
    name = _name(source, hints)
    known = timm_model(name)
    _unplace_registers(tensors, known)
    published = source.config.get("pretrained_cfg") or {}
    for word, reason in _OTHER_MODELS.items():
        if known is None and word in name.split("_"):
            raise ConvertError(f"{where}: {name} {reason}, which minivit does not run")
    if known is None:
        clip = "norm_pre.weight" in tensors
        eps, flavour = (
            (1e-5, "quick_gelu") if "quickgelu" in name else (1e-5 if clip else 1e-6, "gelu")
        )
        config = infer_config(
            tensors,
            hints,
            where,
            activation=flavour,
            layer_norm_eps=eps,
            pos_embed_prefix=None,
            **_pooling(source, tensors),
        )
        hints.assume(
            f"{config.activation} and LayerNorm epsilon {eps:g}: {name!r} is no model of timm's "
            "(say which with --name)"
        )
    else:
        config = infer_config(
            tensors,
            hints,
            where,
            activation=known.activation,
            layer_norm_eps=known.layer_norm_eps,
            pos_embed_prefix=None,  # DeiT III and models with registers place patches alone
            num_heads=known.num_heads,
            image_size=(known.image_height, known.image_width),
            **({"pooling": known.pooling} if known.pooling == "mean" else {}),
        )
        hints.notes.append(f"timm's {known.name}: {config.num_heads} heads, {config.activation}")
    preprocess = _preprocess(config, known, published, hints)
    labels = imagenet_labels(config, hints) if known is None or known.num_classes == 1000 else None
    return Parts(config, tensors, preprocess, labels)


def _unplace_registers(tensors: dict[str, Tensor], known: TimmModel | None) -> None:
    """Adds the positions that registers have in a few models to the registers themselves."""
    if known is None or not {"reg_token", "pos_embed", "patch_embed.proj.weight"} <= set(tensors):
        return
    rows, cols = tensors["patch_embed.proj.weight"].shape[2:]
    patches = (known.image_height // rows) * (known.image_width // cols)
    first, count = int("cls_token" in tensors), tensors["reg_token"].shape[1]
    position = tensors["pos_embed"]
    if position.shape[1] == first + count + patches:
        tensors["reg_token"] = tensors["reg_token"] + position[:, first : first + count]
        kept = [position[:, :first], position[:, first + count :]]
        tensors["pos_embed"] = torch.cat(kept, dim=1)  # (1, P + R + N, D) -> (1, P + N, D)


def _name(source: Source, hints: Hints) -> str:
    """The model's name without what file names add to it: the start of a checksum."""
    name = hints.name
    if timm_model(name) is None and "architecture" in source.config:
        tag = (source.config.get("pretrained_cfg") or {}).get("tag")
        name = ".".join(filter(None, (source.config["architecture"], tag)))
        if timm_model(name) is None:
            name = source.config["architecture"]
    return re.sub(r"-[0-9a-f]{8}$", "", name)


def _pooling(source: Source, tensors: dict[str, Any]) -> dict[str, Any]:
    if source.config.get("global_pool") == "avg" or "fc_norm.weight" in tensors:
        return {"pooling": "mean"}
    return {}


def _preprocess(
    config: ViTConfig, known: TimmModel | None, published: dict[str, Any], hints: Hints
) -> Preprocess:
    """As timm's own evaluation; config.json goes before the table, the table before a guess."""
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
        if not published:
            hints.assume(
                f"photos as most of timm's ViTs take them: bicubic, crop {values['crop_pct']}, "
                "values from -1 to 1"
            )
    values |= {key: published[key] for key in values if published.get(key) is not None}
    return photo(
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
    except (ValueError, KeyError, TypeError) as error:
        raise ConvertError(
            f"{where}: the description that minivit left is damaged ({error})"
        ) from None
    return Parts(config, tensors, preprocess, None if labels is None else tuple(labels))
