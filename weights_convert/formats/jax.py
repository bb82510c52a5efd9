"""Google's .npz (google-research/vision_transformer): Flax parameters, names joined by "/".

Flax multiplies from the other side, x·W, and keeps heads apart: kernels are (in, out), (in, heads,
d) or (heads, d, out), those of convolutions (height, width, in, out).
"""

from __future__ import annotations

import math

from torch import Tensor

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

_BLOCK = "Transformer/encoderblock_{i}"
KEYS = {
    "cls": "cls_token",
    "embedding/{part}": "patch_embed.proj.{part}",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "pos_embedding": "pos_embed",  # big_vision
    f"{_BLOCK}/LayerNorm_0/{{part}}": "blocks.{i}.norm1.{part}",
    f"{_BLOCK}/LayerNorm_2/{{part}}": "blocks.{i}.norm2.{part}",  # as published in 2020 and 2021
    f"{_BLOCK}/LayerNorm_1/{{part}}": "blocks.{i}.norm2.{part}",  # as today's code has it
    f"{_BLOCK}/Attention/query/{{part}}": "blocks.{i}.attn.qkv.{part}:q",
    f"{_BLOCK}/Attention/key/{{part}}": "blocks.{i}.attn.qkv.{part}:k",
    f"{_BLOCK}/Attention/value/{{part}}": "blocks.{i}.attn.qkv.{part}:v",
    f"{_BLOCK}/Attention/out/{{part}}": "blocks.{i}.attn.proj.{part}",
    f"{_BLOCK}/Mlp/Dense_0/{{part}}": "blocks.{i}.mlp.fc1.{part}",
    f"{_BLOCK}/Mlp/Dense_1/{{part}}": "blocks.{i}.mlp.fc2.{part}",
    "Transformer/encoder_norm/{part}": "norm.{part}",
    "pre_logits/{part}": "pre_logits.0.{part}",
    "head/{part}": "head.{part}",
}
# Flax numbers the modules of a block, and has changed how.
_MODULES = {
    "MultiHeadDotProductAttention_1": "Attention",
    "MultiHeadDotProductAttention_0": "Attention",
    "MlpBlock_3": "Mlp",
    "MlpBlock_0": "Mlp",
}
_PREFIXES = ("opt/target/", "params/", "img/")  # an optimizer's state; both towers of LiT


def recognises(source: Source) -> bool:
    """Whether it is a .npz with a ViT's patch embedding."""
    return source.is_numpy and any(name.endswith("embedding/kernel") for name in source.tensors)


def convert(source: Source, hints: Hints) -> Parts:
    """The model; the number of heads stands in the shapes.

    Raises:
        ConvertError: Tensors that do not belong to a plain ViT.
    """
    where = str(source.path)
    num_heads = None
    tensors: dict[str, Tensor] = {}
    while source.tensors:
        name = next(iter(source.tensors))
        tensor = source.tensors.pop(name)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if name.startswith("opt/"):  # the rest of the optimizer's state
            continue
        if name.endswith("/query/kernel"):
            num_heads = tensor.shape[1]
        name, tensor = _torch_layout(name, tensor)
        tensors[name] = tensor
    if any(name.startswith(("conv_root", "block1/")) for name in tensors):
        raise ConvertError(
            f"{where}: a hybrid, a ResNet before the ViT, which minivit does not run"
        )
    tensors = rename(tensors, KEYS, where)
    config = infer_config(
        tensors,
        hints,
        where,
        activation="gelu_tanh",
        layer_norm_eps=1e-6,
        num_heads=num_heads,
        pos_embed_prefix=None,  # big_vision adds the class token after the positions
    )
    hints.notes.append(f"Flax: {config.num_heads} heads by the shapes, tanh GELU, epsilon 1e-6")
    # Their evaluation squashes a photo with TensorFlow's bilinear filter, which does not low-pass;
    # Pillow's does.
    preprocess = preprocessing(config.image_size, HALF, HALF, filter="bilinear", mode="squash")
    return Parts(config, tensors, preprocess, imagenet_labels(config, hints))


def _torch_layout(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Flax's name and array as torch would have them."""
    for module, short in _MODULES.items():
        name = name.replace(f"/{module}/", f"/{short}/")
    *path, leaf = name.split("/")
    if leaf == "kernel":
        if path[-1] == "embedding":
            tensor = tensor.permute(3, 2, 0, 1)  # (h, w, C, D) -> (D, C, h, w)
        elif path[-1] == "out":
            tensor = tensor.flatten(0, 1).T  # (H, d, D) -> (D, H·d)
        else:
            tensor = tensor.flatten(1).T  # (D, H, d) or (in, out) -> (H·d, D) or (out, in)
    elif leaf == "bias":
        tensor = tensor.reshape(math.prod(tensor.shape))  # (H, d) -> (H·d,)
    leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    return "/".join([*path, leaf]), tensor
