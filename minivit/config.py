"""What a model is, apart from its weights: frozen dataclasses that travel with the checkpoint.

The models, their blocks, checkpoints and converters read it; torch is not needed for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from minivit.fields import (
    from_dict,
    is_number,
    is_tuple,
    is_whole,
    renamed_fields,
    require,
    require_bools,
    require_choice,
    shown,
    to_dict,
    with_way_in,
)

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"]
Pooling = Literal["cls", "mean", "cls_and_mean"]
PositionEmbedding = Literal["learned", "sine"]


_MOST = 2**31 - 1  # of any size: torch counts in 64 bits, and sizes are multiplied


def _require_whole(config: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(config, name, is_whole(value, least), f"a whole number, at least {least}")
        require(config, name, value <= _MOST, f"{_MOST:,} at most")


def _require_epsilon(config: object, *names: str) -> None:
    for name in names:
        require(config, name, is_number(getattr(config, name), 0), "a number, at least 0")


def _require_probability(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(config, name, is_number(value, 0) and value < 1, f"0 <= {name} < 1")


SIZES = {  # width, depth, heads: table 1 of the paper; tiny and small: DeiT (arXiv:2012.12877)
    "debug": (32, 2, 2),  # for tests and tutorials: a forward pass in a millisecond
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Everything that decides what a block of an encoder or a decoder computes.

    Attributes:
        dim: D, width of the tokens.
        num_heads: Heads of each attention.
        hidden_dim: Width inside the MLP.
        activation: Flavour of the MLP; see `minivit.blocks.MLP`.
        layer_norm_eps: Epsilon of the LayerNorms.
        norm_first: True: pre-norm; False: post-norm.
        qkv_bias: Whether Q, K and V have a bias.
        layer_scale: Start value of LayerScale; None: no LayerScale, as in every decoder.
        dropout: Probability of dropping a value after an attention, inside the MLP and after it.
        attention_dropout: Probability of dropping an attention weight.
    """

    dim: int
    num_heads: int
    hidden_dim: int
    activation: Activation
    layer_norm_eps: float
    norm_first: bool = True
    qkv_bias: bool = True
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        _require_whole(self, 1, "dim", "num_heads", "hidden_dim")
        if self.dim % self.num_heads:
            raise ValueError(f"num_heads is {self.num_heads}, which does not divide dim {self.dim}")
        require_choice(self, "activation", Activation)
        _require_epsilon(self, "layer_norm_eps")
        require_bools(self, "norm_first", "qkv_bias")
        good = self.layer_scale is None or is_number(self.layer_scale)
        require(self, "layer_scale", good, "a number, or none")
        _require_probability(self, "dropout", "attention_dropout")


# Names that fields had in the first checkpoints, which are read by them still.
OLD_NAMES = {
    "norm_before": "norm_pre",
    "norm_pooled": "fc_norm",
    "position_embedding": "pos_embed",
    "position_prefix": "pos_embed_prefix",
    "position_antialias": "pos_embed_antialias",
    "position_offset": "pos_embed_offset",
}


@renamed_fields(OLD_NAMES)
@with_way_in(
    'ViTConfig.from_name("small_patch16_224", num_classes=37) has all fields of a published size: '
    f"{', '.join(SIZES)}, any patch and picture"
)
@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Everything that decides what a `VisionTransformer` computes, except its weights.

    `ViTConfig.from_name("small_patch16_224", num_classes=37)` is the short way: a published size,
    and what differs from it.

    Attributes:
        image_size: (height, width) in pixels that the position embeddings are made for.
        patch_size: (height, width) in pixels of a patch.
        in_channels: Channels of the picture.
        dim: D, width of the tokens.
        depth: Number of blocks.
        num_heads: Heads of each attention.
        hidden_dim: Width inside the MLPs.
        num_classes: Outputs of the head; 0: no head, and the model gives the pooled features.
        activation: Flavour of the MLPs; see `minivit.blocks.MLP`.
        layer_norm_eps: Epsilon of every LayerNorm.
        pooling: What the head sees: the class token, the mean over the patch tokens, or both side
            by side (the linear heads of DINOv2).
        head_blocks: Number of last blocks whose class token the head sees with "cls_and_mean", each
            after the final norm, from the first of them to the last.
        class_token: Whether there is a class token.
        distillation_token: Whether there is a distillation token, with a head of its own (DeiT).
            The logits are the mean of the two heads.
        num_register_tokens: Number of tokens without a place and without an output
            (arXiv:2309.16588).
        pos_embed: "learned", or "sine" for the fixed one.
        pos_embed_prefix: Whether class and distillation tokens have position embeddings too.
            Register tokens never have.
        pos_embed_antialias: Low-pass the position embeddings when their grid shrinks.
        pos_embed_offset: Offset of `minivit.embeddings.resize_position_embedding`.
        norm_pre: LayerNorm between embedding and blocks (CLIP).
        fc_norm: LayerNorm after pooling instead of before it; `encode` then returns tokens that
            were not normalised.
        final_norm: Whether there is a LayerNorm after the blocks at all, be it before or after
            pooling.
        representation_dim: Width of the tanh layer before the head (the paper's pre-training
            head); 0: none.
        qkv_bias: Whether Q, K and V have a bias.
        patch_bias: Whether the patch embedding has a bias.
        head_bias: Whether the head has a bias.
        layer_scale: Start value of LayerScale; None: no LayerScale.
        dropout: Probability of dropping a value of embeddings and branches.
        attention_dropout: Probability of dropping an attention weight.
        drop_path: Probability of dropping a branch of the last block; it grows linearly from 0 at
            the first.
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    dim: int
    depth: int
    num_heads: int
    hidden_dim: int
    num_classes: int
    activation: Activation
    layer_norm_eps: float
    in_channels: int = 3
    pooling: Pooling = "cls"
    head_blocks: int = 1
    class_token: bool = True
    distillation_token: bool = False
    num_register_tokens: int = 0
    pos_embed: PositionEmbedding = "learned"
    pos_embed_prefix: bool = True
    pos_embed_antialias: bool = True
    pos_embed_offset: float = 0.0
    norm_pre: bool = False
    fc_norm: bool = False
    final_norm: bool = True
    representation_dim: int = 0
    qkv_bias: bool = True
    patch_bias: bool = True
    head_bias: bool = True
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            good = is_tuple(getattr(self, name), 2, lambda side: is_whole(side, 1, _MOST))
            require(self, name, good, "(height, width), each at least 1")
        self.block_config()  # checks the fields that are the blocks' too
        require_choice(self, "pooling", Pooling)
        require_choice(self, "pos_embed", PositionEmbedding)
        require_bools(self, "class_token", "distillation_token", "pos_embed_prefix")
        require_bools(self, "pos_embed_antialias", "norm_pre", "fc_norm", "final_norm")
        require_bools(self, "patch_bias", "head_bias")
        require(self, "pos_embed_offset", is_number(self.pos_embed_offset), "a number")
        _require_whole(self, 1, "depth", "in_channels", "head_blocks")
        _require_whole(self, 0, "num_classes", "num_register_tokens", "representation_dim")
        _require_probability(self, "drop_path")
        if self.pooling != "mean" and not self.class_token:
            raise ValueError(
                f"pooling is {self.pooling!r} but class_token is False: use pooling='mean'"
            )
        if self.fc_norm and not self.final_norm:
            raise ValueError("fc_norm is the final norm, so final_norm cannot be False with it")
        most = self.depth if self.pooling == "cls_and_mean" else 1
        if not 1 <= self.head_blocks <= most:
            raise ValueError(
                f"head_blocks is {self.head_blocks}: with depth {self.depth} and pooling "
                f"{self.pooling!r} expected 1 to {most}"
            )
        if self.pooling == "cls_and_mean" and (self.fc_norm or self.distillation_token):
            raise ValueError(
                "pooling='cls_and_mean' goes neither with fc_norm nor with distillation_token"
            )
        if self.distillation_token and not self.class_token:
            raise ValueError(
                "a distillation token stands beside a class token: class_token is False"
            )

    def block_config(self) -> BlockConfig:
        """What the blocks need to know of this."""
        return BlockConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            activation=self.activation,
            layer_norm_eps=self.layer_norm_eps,
            qkv_bias=self.qkv_bias,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
        )

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, cols) of patches of a picture of `image_size`."""
        return (
            self.image_size[0] // self.patch_size[0],
            self.image_size[1] // self.patch_size[1],
        )

    @property
    def pooled_dim(self) -> int:
        """Width of what `pooling` gives."""
        return self.dim * (1 + self.head_blocks if self.pooling == "cls_and_mean" else 1)

    @property
    def num_prefix_tokens(self) -> int:
        """Class, distillation and register tokens: all that come before the patches."""
        return self.class_token + self.distillation_token + self.num_register_tokens

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViTConfig:
        """The reverse of `to_dict`.

        Raises:
            ValueError: An unknown field (the valid ones are listed), a missing or an invalid one.
        """
        return from_dict(cls, values, "ViT config", old_names=OLD_NAMES)

    @classmethod
    def from_name(cls, name: str, **overrides: Any) -> ViTConfig:
        """The config of a published size, such as "vit_small_patch16_384" (or without "vit_").

        Sizes: debug, tiny, small, base, large; 1,000 classes (debug: 10), erf GELU and epsilon
        1e-6 as published.

        Args:
            name: Size, patch size and image size in pixels.
            **overrides: Any field.

        Raises:
            ValueError: A name of another form, or an unknown field.
        """
        match = re.fullmatch(rf"(?:vit_)?({'|'.join(SIZES)})_patch(\d+)_(\d+)", name)
        if match is None:
            raise ValueError(
                f"unknown ViT size {name!r}: expected SIZE_patchP_PIXELS such as "
                f"small_patch16_224, SIZE one of {', '.join(SIZES)}"
            )
        dim, depth, num_heads = SIZES[match[1]]
        patch, pixels = int(match[2]), int(match[3])
        values: dict[str, Any] = {
            "image_size": (pixels, pixels),
            "patch_size": (patch, patch),
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "hidden_dim": 4 * dim,
            "num_classes": 10 if match[1] == "debug" else 1000,
            "activation": "gelu",
            "layer_norm_eps": 1e-6,
        }
        return cls.from_dict(values | overrides)


RESNET_STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # blocks a stage (arXiv:1512.03385, table 1)


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Everything that decides what a `ResNet` computes, except its weights.

    Attributes:
        depth: 50 or 101.
        dilate_last_stage: Cells of 16 pixels instead of 32 (DETR's "DC5").
    """

    depth: int
    dilate_last_stage: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.depth) or self.depth not in RESNET_STAGES:
            depth = shown(self.depth)
            raise ValueError(f"depth of a ResNet is {depth}: choose from {[*RESNET_STAGES]}")
        require_bools(self, "dilate_last_stage")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ResNetConfig:
        """The reverse of `to_dict`; ValueError for an unknown, a missing or an invalid field."""
        return from_dict(cls, values, "ResNet config")


@with_way_in("dataclasses.replace(minivit.config.CATR, …) changes single fields of a known one")
@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """Everything that decides what a `Captioner` computes, except its weights.

    `dataclasses.replace(minivit.config.CATR, vocabulary_size=900)` is the short way.

    Attributes:
        backbone: What sees the picture: a ResNet (CATR) or a ViT.
        vocabulary_size: Number of words or word-pieces.
        max_length: Positions that words can have; the start token takes the first.
        dim: D, width of encoder and decoder.
        num_heads: Heads of every attention in them.
        hidden_dim: Width inside their MLPs.
        encoder_depth: Blocks between backbone and decoder; 0: none.
        decoder_depth: Blocks of the decoder.
        head_dim: Width of the two hidden layers before the vocabulary.
        activation: Flavour of the MLPs.
        layer_norm_eps: Epsilon of the norms of encoder and decoder.
        embedding_norm_eps: Epsilon of the norm over word + position.
        dropout: Probability of dropping a value of embeddings and branches, or an attention weight.
    """

    backbone: ResNetConfig | ViTConfig
    vocabulary_size: int
    max_length: int
    dim: int
    num_heads: int
    hidden_dim: int
    encoder_depth: int
    decoder_depth: int
    head_dim: int
    activation: Activation = "relu"
    layer_norm_eps: float = 1e-5
    embedding_norm_eps: float = 1e-12
    dropout: float = 0.1

    def __post_init__(self) -> None:
        good = isinstance(self.backbone, (ResNetConfig, ViTConfig))
        require(self, "backbone", good, "the table of a ResNet or a ViT")
        _require_whole(self, 0, "encoder_depth")
        _require_whole(self, 1, "vocabulary_size", "dim", "num_heads", "decoder_depth", "head_dim")
        _require_whole(self, 2, "max_length")
        _require_epsilon(self, "embedding_norm_eps")
        good = self.dim % self.num_heads == 0 and self.dim % 4 == 0
        require(self, "dim", good, f"a multiple of 4 and of num_heads, {self.num_heads}")
        self.block_config()  # checks the fields that are the blocks' too

    def block_config(self) -> BlockConfig:
        """What the blocks of encoder and decoder need to know of this."""
        return BlockConfig(
            dim=self.dim,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            activation=self.activation,
            layer_norm_eps=self.layer_norm_eps,
            dropout=self.dropout,
            attention_dropout=self.dropout,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CaptionerConfig:
        """The reverse of `to_dict`.

        Raises:
            ValueError: An unknown field (the valid ones are listed), a missing or an invalid one.
        """
        backbone = values.get("backbone") if isinstance(values, dict) else None
        if isinstance(backbone, dict):
            kind = ViTConfig if "patch_size" in backbone else ResNetConfig
            values = values | {"backbone": kind.from_dict(backbone)}
        return from_dict(cls, values, "captioner config")


CATR = CaptionerConfig(  # saahiluppal/catr, configuration.py; all three sets of weights
    backbone=ResNetConfig(depth=101, dilate_last_stage=True),
    vocabulary_size=30522,
    max_length=128,
    dim=256,
    num_heads=8,
    hidden_dim=2048,
    encoder_depth=6,
    decoder_depth=6,
    head_dim=512,
)
