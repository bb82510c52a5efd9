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
# Further (width, heads) of published models, which their names tell: test_vit, SigLIP's giant.
_OTHER_WIDTHS = {(64, 2), (1536, 16), *_PUBLISHED_HEADS.items()}


@dataclass
class Hints:
    """What the user said, and what was assumed where nobody said anything.

    Attributes:
        name: Name of the model: --name, or the file's name without its ending.
        name_is_given: Whether it is --name.
        num_heads: --num-heads.
        activation: --activation.
        image_size: --image-size, (height, width) in pixels.
        pooling: --pooling, in the words of `ViTConfig`.
        vocabulary: --vocab, a file with a word-piece a line.
        notes: Sentences for the user, in the order in which things were assumed.
    """

    name: str = ""
    name_is_given: bool = False
    num_heads: int | None = None
    activation: str | None = None
    image_size: tuple[int, int] | None = None
    pooling: str | None = None
    vocabulary: str | os.PathLike[str] | None = None
    notes: list[str] = field(default_factory=list)

    def assume(self, sentence: str) -> None:
        """Notes something that neither the file nor the user said."""
        self.notes.append(f"assumed: {sentence}")

    def agree(self, option: str, stated: object, who: str) -> None:
        """Compares what the user said with what the source itself states.

        Args:
            option: Name of an attribute here.
            stated: Value that the source states; None: it states none.
            who: What states it, for the message: "config.json", "the shapes".

        Raises:
            ConvertError: The two differ.
        """
        given = getattr(self, option)
        if None not in (given, stated) and given != stated:
            shown = [
                "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
                for value in (given, stated)
            ]
            raise ConvertError(
                f"--{option.replace('_', '-')} {shown[0]} contradicts {who}: {shown[1]}; leave the "
                "option away, or mend what it contradicts"
            )


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
    image_size: tuple[int, int] | None = None,
    square_grid: bool = False,
    pos_embed_prefix: bool | None = True,
    **known: Any,
) -> ViTConfig:
    """The config of a model with these tensors.

    Args:
        tensors: Tensors by minivit's names.
        hints: The user's word, which goes before what is not proven.
        source: Name of the file, for messages.
        image_size: Pixels that the source states; None: a square grid.
        square_grid: Whether the source's own code takes all positions for a square grid, so that
            one is no assumption.
        pos_embed_prefix: Whether prefix tokens have positions in this format; None: either may be.
        **known: Fields of the config that the source states or that its code fixes: activation and
            layer_norm_eps always, num_heads and pooling where they are certain.

    Raises:
        ConvertError: No patch embedding, no blocks, a shape that fits no ViT, or an option that
            contradicts the source.
    """
    values = _sizes(tensors, source) | _tokens(tensors) | _layers(tensors)
    grid, num_placed = _grid(
        tensors, values, hints, image_size, square_grid, pos_embed_prefix, source
    )
    patch = values["patch_size"]
    values["image_size"] = (grid[0] * patch[0], grid[1] * patch[1])
    num_prefix = values["class_token"] + values["distillation_token"]
    values["pos_embed_prefix"] = num_placed == num_prefix
    values |= {name: value for name, value in known.items() if value is not None}
    try:
        values |= _user_word(tensors, values, hints, known)
    except ConvertError as error:
        raise ConvertError(f"{source}: {error}") from None
    if "num_heads" not in values:
        values["num_heads"] = guess_num_heads(values["dim"], hints, source)
    try:
        return ViTConfig.from_dict(values)
    except ValueError as error:
        raise ConvertError(f"{source}: {error}") from None


def _sizes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Channels, patch, width, depth and the width of the MLPs."""
    try:
        kernel = tensors["patch_embed.proj.weight"]
        depth = 1 + max(int(match[1]) for name in tensors if (match := _BLOCK.match(name)))
        fc1, fc2 = tensors["blocks.0.mlp.fc1.weight"], tensors["blocks.0.mlp.fc2.weight"]
    except (KeyError, ValueError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "blocks.0"
        raise ConvertError(f"{source}: not a ViT, it has no {missing}") from None
    if kernel.dim() != 4 or fc1.dim() != 2 or fc2.dim() != 2:
        raise ConvertError(
            f"{source}: not a ViT, its patch embedding is {tuple(kernel.shape)} and its MLP "
            f"{tuple(fc1.shape)}, {tuple(fc2.shape)}"
        )
    dim, in_channels, *patch_size = kernel.shape
    if in_channels not in (1, 3):
        raise ConvertError(
            f"{source}: made for pictures of {in_channels} channels; photos have 3, grey ones 1, "
            "and minivit runs no others"
        )
    return {
        "in_channels": in_channels,
        "patch_size": tuple(patch_size),
        "dim": dim,
        "depth": depth,
        "hidden_dim": fc2.shape[1],
    }


def _tokens(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tokens before the patches; the class token is pooled where there is one."""
    class_token = "cls_token" in tensors
    return {
        "class_token": class_token,
        "distillation_token": "dist_token" in tensors,
        "num_register_tokens": tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        "pooling": "cls" if class_token and "fc_norm.weight" not in tensors else "mean",
    }


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Norms, biases, LayerScale and heads that are there."""
    head = tensors.get("head.weight")
    representation = tensors.get("pre_logits.0.weight")
    return {
        "num_classes": 0 if head is None else head.shape[0],
        "head_bias": head is None or "head.bias" in tensors,
        "representation_dim": 0 if representation is None else representation.shape[0],
        "norm_pre": "norm_pre.weight" in tensors,
        "fc_norm": "fc_norm.weight" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "patch_bias": "patch_embed.proj.bias" in tensors,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
    }


def _user_word(
    tensors: Mapping[str, Tensor], values: dict[str, Any], hints: Hints, known: dict[str, Any]
) -> dict[str, Any]:
    """The fields that options decide, checked against what the source makes certain."""
    hints.agree("num_heads", known.get("num_heads"), "what the file states")
    hints.agree("pooling", known.get("pooling"), "what the file states")
    chosen: dict[str, Any] = {}
    if tensors["blocks.0.mlp.fc1.weight"].shape[0] == 2 * values["hidden_dim"]:
        hints.agree("activation", "swiglu", "the shapes of the MLPs")
        chosen["activation"] = "swiglu"
    elif hints.activation:
        chosen["activation"] = hints.activation
        if hints.activation != values["activation"]:
            hints.notes.append(
                f"{hints.activation}, as --activation says, instead of {values['activation']}"
            )
    for name in ("num_heads", "pooling"):
        if getattr(hints, name):
            chosen[name] = getattr(hints, name)
    return chosen


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


def is_published_width(dim: int, num_heads: int) -> bool:
    """Whether a published model has heads of this width."""
    return dim == 64 * num_heads or (dim, num_heads) in _OTHER_WIDTHS


def _grid(
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    hints: Hints,
    stated: tuple[int, int] | None,
    square_grid: bool,
    pos_embed_prefix: bool | None,
    source: str,
) -> tuple[tuple[int, int], int]:
    """(rows, cols) of the position embeddings, and how many prefix tokens have them too."""
    if "pos_embed" not in tensors:
        raise ConvertError(f"{source}: no position embeddings; minivit runs ViTs that have them")
    count = tensors["pos_embed"].shape[1]
    num_prefix = values["class_token"] + values["distillation_token"]
    # how many of the positions may be of prefix tokens, the likelier first
    placed = {None: (num_prefix, 0), True: (num_prefix,), False: (0,)}[pos_embed_prefix]
    height, width = values["patch_size"]
    for size in (hints.image_size, stated):
        if size is not None:
            rows, cols = size[0] // height, size[1] // width
            if count - rows * cols in placed:
                return (rows, cols), count - rows * cols
            if size is hints.image_size:
                raise ConvertError(
                    f"{source}: --image-size {size[0]}x{size[1]} makes {rows} x {cols} patches, "
                    f"there are {count} position embeddings, {placed[0]} not of patches"
                )
    for number in placed:
        side = math.isqrt(max(0, count - number))
        if side and side * side == count - number:
            if not square_grid:
                hints.assume(f"a square grid of {side} x {side} patches (else give --image-size)")
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


def preprocessing(
    image_size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    filter: str,
    mode: str = "crop",
    crop_fraction: float = 1.0,
    crop_rounding: str = "even",
) -> Preprocess:
    """The transform of photos, from values that files bring, which it checks.

    One number as mean and deviation, of a model for grey pictures, counts for all colours.
    """
    mean, std = (tuple(v) * 3 if len(v) == 1 else tuple(v) for v in (mean, std))
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
