"""From the shapes of renamed tensors to a config; what shapes cannot tell is asked for.

Formats differ in names. Once a table has renamed a source's tensors, they all mean the same, and
depth, width, patch, grid, tokens and norms are read off here, for all formats alike.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.preprocess import Preprocess
from minivit.tokenizer import Tokenizer
from weights_convert.reading import ConvertError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation that map 0..1 to -1..1
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Heads of the published widths whose heads are not 64 channels wide: ViT-H (CLIP, SWAG, in21k), the
# shape-optimised So400m (SigLIP), ViT-g and ViT-G of open_clip. DINOv2's giant has 24 heads of 64.
_PUBLISHED_HEADS = {1280: 16, 1152: 16, 1408: 16, 1664: 16}


@dataclass
class Hints:
    """What the user said, and what was assumed where nobody said anything.

    Attributes:
        name: Name of the model: --name, or the file's name without its ending.
        num_heads: --num-heads.
        activation: --activation.
        image_size: --image-size, (height, width) in pixels.
        vocabulary: --vocab, a file with a word-piece a line.
        notes: Sentences for the user, in the order in which things were assumed.
    """

    name: str = ""
    num_heads: int | None = None
    activation: str | None = None
    image_size: tuple[int, int] | None = None
    vocabulary: str | os.PathLike[str] | None = None
    notes: list[str] = field(default_factory=list)

    def assume(self, sentence: str) -> None:
        """Notes something that neither the file nor the user said."""
        self.notes.append(f"assumed: {sentence}")


@dataclass
class Parts:
    """A converted model before it is one: what a format's `convert` gives.

    Attributes:
        config: What to build.
        tensors: By minivit's names.
        preprocess: How photos are prepared.
        labels: Names of the classes; None: nobody knows them.
        tokenizer: A captioner's.
        is_classifier: Whether the head's outputs are classes, and no embedding as CLIP's.
    """

    config: ViTConfig | ResNetConfig | CaptionerConfig
    tensors: dict[str, Tensor]
    preprocess: Preprocess
    labels: tuple[str, ...] | None = None
    tokenizer: Tokenizer | None = None
    is_classifier: bool = True


def infer_config(
    tensors: Mapping[str, Tensor],
    hints: Hints,
    source: str,
    *,
    activation: str,
    layer_norm_eps: float,
    num_heads: int | None = None,
    image_size: tuple[int, int] | None = None,
    pos_embed_prefix: bool | None = True,
    **fields: Any,
) -> ViTConfig:
    """The config of a model with these tensors.

    Args:
        tensors: By minivit's names.
        hints: The user's word, which goes before every argument here.
        source: The file's name, for messages.
        activation: Of the MLPs.
        layer_norm_eps: Epsilon of the norms.
        num_heads: None: 64 channels a head, or as published for this width, and a note says so.
        image_size: Where the source states it; None: a square grid.
        pos_embed_prefix: Whether prefix tokens have positions in this format; None: either may be.
        **fields: Further fields of the config, such as pooling.

    Raises:
        ConvertError: No patch embedding, no blocks, or a shape that fits no ViT.
    """
    try:
        kernel = tensors["patch_embed.proj.weight"]
        depth = 1 + max(int(found[1]) for name in tensors if (found := _BLOCK.match(name)))
        fc1, fc2 = tensors["blocks.0.mlp.fc1.weight"], tensors["blocks.0.mlp.fc2.weight"]
    except (KeyError, ValueError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "blocks.0"
        raise ConvertError(f"{source}: not a ViT, it has no {missing}") from None
    dim, in_channels, *patch_size = kernel.shape
    if in_channels not in (1, 3):
        raise ConvertError(
            f"{source}: made for pictures of {in_channels} channels; photos have 3, grey ones 1, "
            "and minivit runs no others"
        )
    if len(patch_size) != 2 or fc1.dim() != 2 or fc2.dim() != 2:
        raise ConvertError(
            f"{source}: not a ViT, its patch embedding is {tuple(kernel.shape)} and its MLP "
            f"{tuple(fc1.shape)}, {tuple(fc2.shape)}"
        )
    hidden_dim = fc2.shape[1]
    if fc1.shape[0] == 2 * hidden_dim:
        activation = "swiglu"
    elif hints.activation:
        activation = hints.activation
    class_token, distilled = "cls_token" in tensors, "dist_token" in tensors
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    num_prefix = class_token + distilled
    allowed = {None: (num_prefix, 0), True: (num_prefix,), False: (0,)}[pos_embed_prefix]
    grid, placed = _grid(
        tensors, (patch_size[0], patch_size[1]), hints, image_size, allowed, source
    )
    head = tensors.get("head.weight")
    values: dict[str, Any] = {
        "image_size": (grid[0] * patch_size[0], grid[1] * patch_size[1]),
        "patch_size": (patch_size[0], patch_size[1]),
        "dim": dim,
        "depth": depth,
        "num_heads": hints.num_heads or num_heads or guess_num_heads(dim, hints, source),
        "hidden_dim": hidden_dim,
        "num_classes": 0 if head is None else head.shape[0],
        "activation": activation,
        "layer_norm_eps": layer_norm_eps,
        "in_channels": in_channels,
        "pooling": "cls" if class_token else "mean",
        "class_token": class_token,
        "distillation_token": distilled,
        "num_register_tokens": registers,
        "pos_embed_prefix": placed == num_prefix,
        "norm_pre": "norm_pre.weight" in tensors,
        "fc_norm": "fc_norm.weight" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "patch_bias": "patch_embed.proj.bias" in tensors,
        "head_bias": head is None or "head.bias" in tensors,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
    }
    if "pre_logits.0.weight" in tensors:
        values["representation_dim"] = tensors["pre_logits.0.weight"].shape[0]
    try:
        return ViTConfig.from_dict(values | fields)
    except ValueError as error:
        raise ConvertError(f"{source}: {error}") from None


_BLOCK = re.compile(r"blocks\.(\d+)\.")


def guess_num_heads(dim: int, hints: Hints, source: str) -> int:
    """Heads by the width alone.

    Raises:
        ConvertError: A width that is no multiple of 64.
    """
    num_heads = _PUBLISHED_HEADS.get(dim, dim // 64)
    if dim not in _PUBLISHED_HEADS and dim % 64:
        raise ConvertError(
            f"{source}: shapes do not tell the number of heads, and the width {dim} is no multiple "
            "of 64: give --num-heads (or the model's published name with --name)"
        )
    hints.assume(f"{num_heads} heads of {dim // num_heads} channels, by the width {dim}")
    return num_heads


def _grid(
    tensors: Mapping[str, Tensor],
    patch_size: tuple[int, int],
    hints: Hints,
    stated: tuple[int, int] | None,
    num_prefix: tuple[int, ...],
    source: str,
) -> tuple[tuple[int, int], int]:
    """(rows, cols) of the position embeddings, and how many prefix tokens have them too.

    `num_prefix` are the numbers of prefix tokens that may have, the likelier first.
    """
    if "pos_embed" not in tensors:
        raise ConvertError(f"{source}: no position embeddings; minivit runs ViTs that have them")
    count = tensors["pos_embed"].shape[1]
    for size in (hints.image_size, stated):
        if size is not None:
            rows, cols = size[0] // patch_size[0], size[1] // patch_size[1]
            if count - rows * cols in num_prefix:
                return (rows, cols), count - rows * cols
            if size is hints.image_size:
                raise ConvertError(
                    f"{source}: --image-size {size[0]}x{size[1]} makes {rows} x {cols} patches, "
                    f"there are {count} position embeddings, {num_prefix[0]} not of patches"
                )
    for number in num_prefix:
        side = math.isqrt(max(0, count - number))
        if side and side * side == count - number:
            return (side, side), number
    raise ConvertError(
        f"{source}: {count} position embeddings are no square grid: give --image-size HEIGHTxWIDTH"
    )


def imagenet_labels(config: ViTConfig, hints: Hints) -> tuple[str, ...] | None:
    """The names of ImageNet's classes for a head of 1,000, as the weights of a classifier have."""
    if config.num_classes != 1000:
        return None
    hints.assume("the 1,000 classes are ImageNet's, in its usual order (else give --labels)")
    text = (Path(__file__).parent / "imagenet_labels.txt").read_text("utf-8")
    return tuple(text.splitlines())


def fit_channels(parts: Parts, hints: Hints) -> None:
    """Has photos prepared in the model's channels: one for grey, three for colour."""
    if not isinstance(parts.config, ViTConfig):
        return
    channels, photos = parts.config.in_channels, parts.preprocess
    if channels == photos.channels:
        return
    mean, std = photos.mean, photos.std
    if channels == 3:
        mean, std = mean * 3, std * 3
    elif len({*zip(mean, std, strict=True)}) == 1:
        mean, std = mean[:1], std[:1]
    else:
        mean, std = (round(sum(mean) / 3, 6),), (round(sum(std) / 3, 6),)
        hints.assume(
            f"grey photos have mean {mean[0]} and standard deviation {std[0]}, the averages of "
            "the three colours"
        )
    parts.preprocess = dataclasses.replace(photos, mean=mean, std=std)


def photo(
    image_size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    filter: str,
    mode: str = "crop",
    crop_fraction: float = 1.0,
    crop_rounding: str = "even",
) -> Preprocess:
    """A `Preprocess` from values that files bring, checked by it."""
    values = {
        "image_size": image_size,
        "mode": mode,
        "crop_fraction": float(crop_fraction),
        "filter": filter,
        "mean": mean,
        "std": std,
        "multiple_of": 1,
        "crop_rounding": crop_rounding,
    }
    return Preprocess.from_dict(values)
