"""lukemelas/PyTorch-Pretrained-ViT: `B_16_imagenet1k.pth` and its sisters."""

from __future__ import annotations

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

_BLOCK = "transformer.blocks.{i}"
KEYS = {
    "class_token": "cls_token",
    "patch_embedding.{part}": "patch_embed.proj.{part}",
    "positional_embedding.pos_embedding": "pos_embed",
    f"{_BLOCK}.norm1.{{part}}": "blocks.{i}.norm1.{part}",
    f"{_BLOCK}.attn.proj_q.{{part}}": "blocks.{i}.attn.qkv.{part}:q",
    f"{_BLOCK}.attn.proj_k.{{part}}": "blocks.{i}.attn.qkv.{part}:k",
    f"{_BLOCK}.attn.proj_v.{{part}}": "blocks.{i}.attn.qkv.{part}:v",
    f"{_BLOCK}.proj.{{part}}": "blocks.{i}.attn.proj.{part}",
    f"{_BLOCK}.norm2.{{part}}": "blocks.{i}.norm2.{part}",
    f"{_BLOCK}.pwff.fc1.{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_BLOCK}.pwff.fc2.{{part}}": "blocks.{i}.mlp.fc2.{part}",
    "norm.{part}": "norm.{part}",
    # That package leaves it out unless it is asked to (load_repr_layer), and then puts it before
    # the norm, where no published weights had it.
    "pre_logits.{part}": None,
    "fc.{part}": "head.{part}",
}


def recognises(source: Source) -> bool:
    """Whether the names are that package's."""
    return "positional_embedding.pos_embedding" in source.tensors


def convert(source: Source, hints: Hints) -> Parts:
    """The model, without `pre_logits`, as that package runs it.

    Raises:
        ConvertError: No class token, or tensors that do not belong to that package's ViT.
    """
    where = str(source.path)
    if "class_token" not in source.tensors:
        raise ConvertError(
            f"{where}: no class token; PyTorch-Pretrained-ViT then classifies by the first patch, "
            "which minivit does not run"
        )
    if "pre_logits.weight" in source.tensors:
        hints.notes.append("left out pre_logits, as PyTorch-Pretrained-ViT does by default")
    tensors = rename(source.tensors, KEYS, where)
    config = infer_config(tensors, hints, where, activation="gelu", layer_norm_eps=1e-6)
    # Resize((side, side)), as its README prescribes; torchvision's default filter
    preprocess = preprocessing(config.image_size, HALF, HALF, filter="bilinear", mode="squash")
    return Parts(config, tensors, preprocess, imagenet_labels(config, hints))
