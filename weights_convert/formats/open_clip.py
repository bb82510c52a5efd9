"""The image tower of CLIP in the layout of OpenAI and of mlfoundations/open_clip.

The head is the projection into the space that pictures and texts share; the logits of the converted
model are that embedding, before it is scaled to length 1. An open_clip_config.json beside the
weights tells what the tensors do not: heads, activation, epsilon, pooling, photos.
"""

from __future__ import annotations

from typing import Any

from weights_convert.architecture import (
    CLIP_MEAN,
    CLIP_STD,
    Hints,
    Parts,
    infer_config,
    preprocessing,
)
from weights_convert.key_tables import rename
from weights_convert.reading import ConvertError, Source

_BLOCK = "transformer.resblocks.{i}"
KEYS = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1.weight": "patch_embed.proj.weight",
    "ln_pre.{part}": "norm_pre.{part}",
    f"{_BLOCK}.ln_1.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_BLOCK}.attn.in_proj_{{part}}": "blocks.{i}.attn.qkv.{part}",
    f"{_BLOCK}.attn.out_proj.{{part}}": "blocks.{i}.attn.proj.{part}",
    f"{_BLOCK}.ln_2.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_BLOCK}.ls_1.gamma": "blocks.{i}.ls1.gamma",
    f"{_BLOCK}.ls_2.gamma": "blocks.{i}.ls2.gamma",
    f"{_BLOCK}.mlp.c_fc.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_BLOCK}.mlp.c_proj.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    "ln_post.{part}": "norm.{part}",
    "proj": "head.weight",
}

_OPENAIS_NUMBERS = {"input_resolution", "context_length", "vocab_size"}


def recognises(source: Source) -> bool:
    """Whether there is CLIP's image tower, alone or in the whole model."""
    return "visual.conv1.weight" in source.tensors or (
        "conv1.weight" in source.tensors and "class_embedding" in source.tensors
    )


def convert(source: Source, hints: Hints) -> Parts:
    """The image tower; the text tower is left out.

    Raises:
        ConvertError: Not a ViT, or tensors that minivit cannot run.
    """
    where = str(source.path)
    openais = set(source.tensors) >= _OPENAIS_NUMBERS
    if "visual.layer1.0.conv1.weight" in source.tensors:
        raise ConvertError(f"{where}: CLIP with a ResNet, which minivit does not run")
    tower = {
        name.removeprefix("visual."): tensor
        for name, tensor in source.tensors.items()
        if name.startswith("visual.") or "visual.conv1.weight" not in source.tensors
    }
    model, photos = (source.config.get(key) or {} for key in ("model_cfg", "preprocess_cfg"))
    vision = model.get("vision_cfg") or {}
    tensors = rename(tower, KEYS, where)
    tensors["cls_token"] = tensors["cls_token"].view(1, 1, -1)  # (D,) -> (1, 1, D)
    tensors["pos_embed"] = tensors["pos_embed"][None]  # (N, D) -> (1, N, D)
    if "head.weight" in tensors:
        tensors["head.weight"] = tensors["head.weight"].T  # (D, out) -> (out, D)
    if vision.get("final_ln_after_pool"):
        tensors |= {f"fc_{name}": tensors.pop(name) for name in ("norm.weight", "norm.bias")}
    config = infer_config(
        tensors,
        hints,
        where,
        activation=_activation(hints, model, openais, where),
        layer_norm_eps=float((vision.get("norm_kwargs") or {}).get("eps", 1e-5)),
        num_heads=tensors["cls_token"].shape[-1] // vision.get("head_width", 64) if model else None,
        pooling=_pooling(vision, where),
    )
    resize_mode = photos.get("resize_mode") or "shortest"
    if resize_mode not in ("shortest", "squash"):
        raise ConvertError(
            f"{where}: open_clip_config.json: resize_mode {resize_mode!r} pads photos, which "
            "minivit does not; it takes shortest and squash"
        )
    if not photos:
        hints.assume("photos as OpenAI's CLIP takes them: no open_clip_config.json says otherwise")
    preprocess = preprocessing(
        config.image_size,
        tuple(photos.get("mean", CLIP_MEAN)),
        tuple(photos.get("std", CLIP_STD)),
        filter=photos.get("interpolation", "bicubic"),
        mode="squash" if resize_mode == "squash" else "crop",
    )
    return Parts(config, tensors, preprocess, is_classifier=False)


def _pooling(vision: dict[str, Any], where: str) -> str:
    """What the projection sees, by open_clip_config.json."""
    pool_type = vision.get("pool_type") or "tok"
    if vision.get("global_average_pool"):
        raise ConvertError(
            f"{where}: open_clip_config.json: global_average_pool, a mean over the class token "
            "too, which minivit does not run"
        )
    if pool_type not in ("tok", "avg"):
        raise ConvertError(
            f"{where}: open_clip_config.json: pool_type {pool_type!r}; minivit runs tok and avg"
        )
    return "cls" if pool_type == "tok" else "mean"


def _activation(hints: Hints, model: dict[str, Any], openais: bool, where: str) -> str:
    """OpenAI trained with the quick GELU, open_clip mostly with the exact one; no shape tells.

    OpenAI's own files carry three numbers beside the weights, which nobody else writes.
    """
    if hints.activation:
        return hints.activation
    if model:
        quick = bool(model.get("quick_gelu"))
        if openais and not quick:
            raise ConvertError(
                f"{where}: the file is OpenAI's, trained with the quick GELU, yet "
                "open_clip_config.json says gelu: give --activation"
            )
        tanh = (model.get("vision_cfg") or {}).get("act_kwargs") == {"approximate": "tanh"}
        return "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"
    if openais:
        hints.notes.append(
            "quick_gelu: the file is OpenAI's, it carries " + ", ".join(sorted(_OPENAIS_NUMBERS))
        )
        return "quick_gelu"
    quick = any(word in hints.name.lower() for word in ("openai", "quickgelu"))
    activation = "quick_gelu" if quick else "gelu"
    hints.assume(f"{activation}, by the name {hints.name!r} (else give --activation)")
    return activation
