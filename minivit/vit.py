"""The Vision Transformer.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv:2010.11929)::

    z₀  = [x_class; x¹E; …; xᴺE] + E_pos            patch and position embedding   (1)
    z'ₗ = MSA(LN(zₗ₋₁)) + zₗ₋₁                      attention                      (2)
    zₗ  = MLP(LN(z'ₗ)) + z'ₗ                        MLP                            (3)
    y   = LN(z_L⁰)                                  the class token after the norm (4)

The options beyond the paper are those that public checkpoints need: distillation token (DeiT),
register tokens and LayerScale (DINOv2), a norm before the blocks (CLIP), mean pooling.

Next: `minivit/explain/maps.py`, attention weights as maps over the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivit.attention import AttentionRows, row_numbers
from minivit.blocks import EncoderBlock
from minivit.config import ViTConfig
from minivit.embeddings import (
    PatchEmbedding,
    resize_position_embedding,
    sine_position_embedding,
)
from minivit.fields import shown
from minivit.inspected import Attentions
from minivit.preprocess import Preprocess


class VisionTransformer(nn.Module):
    """Pictures in, logits out; and on request the attention weights beside them.

    Args:
        config: What to build.
        preprocess: How a photo becomes an input; by default the original ViT's: shorter side to
            `image_size` (bicubic), centre crop, values from -1 to 1.
        labels: Names of the classes.

    Attributes:
        data_labels: Labels of the classes as the training data wrote them, such as "29" for
            "Samoyed", where they are other words than `labels`; None: they are the same.
        gradient_checkpointing: Set it to True to compute blocks again in the backward pass instead
            of keeping what they computed: less memory, about a third more time.

    Raises:
        ValueError: The labels are no texts, or not as many as the classes.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        preprocess: Preprocess | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not all(isinstance(label, str) for label in labels or ()):
            raise ValueError(f"labels are {shown(labels)}, expected a list of texts")
        if labels is not None and len(labels) != config.num_classes:
            raise ValueError(f"{len(labels)} labels for {config.num_classes} classes")
        self.config = config
        self.labels = None if labels is None else tuple(labels)
        self.data_labels: tuple[str, ...] | None = None
        half = (0.5,) if config.in_channels == 1 else (0.5, 0.5, 0.5)
        self.preprocess = preprocess or Preprocess(
            image_size=config.image_size, mode="crop", filter="bicubic", mean=half, std=half
        )
        self.gradient_checkpointing = False
        dim, norm_eps = config.dim, config.layer_norm_eps

        self.patch_embed = PatchEmbedding(
            config.patch_size, config.in_channels, dim, bias=config.patch_bias
        )
        num_positions = math.prod(self.patch_embed.grid_for(*config.image_size))
        if config.pos_embed_prefix:
            num_positions += config.class_token + config.distillation_token
        self.cls_token = self._make_tokens(config.class_token)
        self.dist_token = self._make_tokens(config.distillation_token)
        self.reg_token = self._make_tokens(config.num_register_tokens)
        self.pos_embed = self._make_tokens(num_positions if config.pos_embed == "learned" else 0)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_pre = nn.LayerNorm(dim, norm_eps) if config.norm_pre else nn.Identity()
        block, last = config.block_config(), max(1, config.depth - 1)
        self.blocks = nn.ModuleList(
            EncoderBlock(block, drop_path=config.drop_path * index / last)
            for index in range(config.depth)
        )
        has_norm = config.final_norm and not config.fc_norm
        self.norm = nn.LayerNorm(dim, norm_eps) if has_norm else nn.Identity()
        self.fc_norm = nn.LayerNorm(dim, norm_eps) if config.fc_norm else nn.Identity()
        self.pre_logits = (
            nn.Sequential(nn.Linear(config.pooled_dim, config.representation_dim), nn.Tanh())
            if config.representation_dim
            else nn.Identity()
        )
        self.head = self._make_head(config.representation_dim or config.pooled_dim)
        self.head_dist = self._make_head(dim) if config.distillation_token else None
        if not self.patch_embed.proj.weight.is_meta:  # no numbers to fill in
            self.initialize()

    def _make_tokens(self, count: int) -> nn.Parameter | None:
        """(1, count, D), to be filled by `initialize`; None for none."""
        return nn.Parameter(torch.zeros(1, count, self.config.dim)) if count else None

    def _make_head(self, width: int) -> nn.Module:
        if not self.config.num_classes:
            return nn.Identity()
        return nn.Linear(width, self.config.num_classes, bias=self.config.head_bias)

    @torch.no_grad()
    def initialize(self) -> None:
        """Starting weights as in the paper's published code.

        Patch embedding: truncated normal by fan-in (LeCun). Positions and tokens: normal 0.02.
        Attention and MLP: Xavier uniform; biases normal 1e-6 in the MLP, else 0. Head: zeros.
        """
        config = self.config
        fan_in = config.in_channels * math.prod(config.patch_size)
        # A normal distribution cut at two deviations keeps 0.88 of one; Flax makes up for it.
        std = math.sqrt(1 / fan_in) / 0.87962566
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=std, a=-2 * std, b=2 * std)
        if self.patch_embed.proj.bias is not None:
            nn.init.zeros_(self.patch_embed.proj.bias)
        for token in (self.cls_token, self.dist_token, self.reg_token, self.pos_embed):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                parts = module.weight.chunk(3) if name.endswith("attn.qkv") else [module.weight]
                for part in parts:  # Q, K and V are three square matrices, not one tall one
                    nn.init.xavier_uniform_(part)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=1e-6 if ".mlp." in name else 0.0)
        for head in (self.head, self.head_dist):
            if isinstance(head, nn.Linear):
                nn.init.zeros_(head.weight)

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, cols) of patches of a picture of the config's image size."""
        return self.config.grid_size

    @property
    def num_prefix_tokens(self) -> int:
        """Class, distillation and register tokens: all that come before the patches."""
        return self.config.num_prefix_tokens

    def embed(self, images: Tensor) -> Tensor:
        """Equation 1: patch tokens and prefix tokens with their positions.

        Args:
            images: (B, C, height, width); position embeddings are resized where the size is not
                the config's.

        Returns:
            (B, N, D), N = prefix tokens + rows * cols.

        Raises:
            ValueError: The pictures do not have the config's channels, or a side is not a whole
                number of patches.
        """
        config = self.config
        if images.dim() != 4 or images.shape[1] != config.in_channels:
            raise ValueError(
                f"pictures are {tuple(images.shape)}, expected (B, {config.in_channels}, height, "
                "width)"
            )
        patches = self.patch_embed(images)  # (B, C, height, width) -> (B, rows·cols, D)
        position = self._positions(self.patch_embed.grid_for(*images.shape[-2:]), patches)
        num_placed = position.shape[1] - patches.shape[1]  # prefix tokens that have a position
        tokens = patches + position[:, num_placed:]
        kinds = (self.cls_token, self.dist_token, self.reg_token)
        prefix: list[Tensor] = [token for token in kinds if token is not None]
        if prefix:
            first = torch.cat(prefix, dim=1)  # (1, P, D)
            placed = first[:, :num_placed] + position[:, :num_placed]
            first = torch.cat([placed, first[:, num_placed:]], dim=1)
            first = first.expand(images.shape[0], -1, -1).to(tokens.dtype)  # (1, P, D) -> (B, P, D)
            tokens = torch.cat([first, tokens], dim=1)  # (B, P + rows·cols, D)
        return cast(Tensor, self.norm_pre(self.dropout(tokens)))

    def _positions(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        """(1, placed prefix tokens + rows * cols, D) position embeddings for a grid."""
        if self.pos_embed is None:
            sine = sine_position_embedding(*grid, self.config.dim)
            return sine.to(like.device, like.dtype)[None]
        return resize_position_embedding(
            self.pos_embed,
            self.grid_size,
            grid,
            antialias=self.config.pos_embed_antialias,
            offset=self.config.pos_embed_offset,
        )

    def _resolve(
        self, return_attention: bool | Sequence[int] | AttentionRows
    ) -> tuple[list[int], Sequence[int] | None]:
        """Numbers of the blocks whose weights are wanted, and the wanted rows; None: all rows."""
        depth = len(self.blocks)
        rows: Sequence[int] | None = None
        if isinstance(return_attention, bool):
            blocks: Sequence[int] = range(depth) if return_attention else ()
        elif isinstance(return_attention, AttentionRows):
            blocks, rows = return_attention.blocks, return_attention.queries
        else:
            blocks = return_attention
        for index in blocks:
            if not -depth <= index < depth:
                raise IndexError(
                    f"attention of block {index} was asked for, but there are {depth} blocks: "
                    f"choose from {-depth} to {depth - 1}"
                )
        return [index % depth for index in blocks], rows

    def _run_blocks(
        self,
        tokens: Tensor,
        image_size: Sequence[int],
        return_attention: bool | Sequence[int] | AttentionRows,
    ) -> tuple[Tensor, Attentions | None, list[Tensor]]:
        """Equations 2 and 3, block after block.

        Returns:
            The tokens; the wanted weights in the order asked for, None where none were asked for;
            the class tokens of the blocks before the last that the head sees too, each (B, D).
        """
        wanted, rows = self._resolve(return_attention)
        weights: dict[int, Tensor] = {}
        class_tokens: list[Tensor] = []
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for index, block in enumerate(self.blocks):
            run = partial(checkpoint, block, use_reentrant=False) if recompute else block
            if index in wanted:
                tokens, weights[index] = run(tokens, need_weights=True, rows=rows)
            else:
                tokens, _ = run(tokens)
            if len(self.blocks) - self.config.head_blocks <= index < len(self.blocks) - 1:
                class_tokens.append(self.norm(tokens[:, 0]))  # (B, N, D) -> (B, D)
        if return_attention is False:
            return tokens, None, class_tokens
        height, width = image_size
        attentions = Attentions(
            [weights[index] for index in wanted],
            image_size=(height, width),
            grid_size=self.patch_embed.grid_for(height, width),
            num_prefix_tokens=self.num_prefix_tokens,
            class_token=self.config.class_token,
            blocks=wanted,
            queries=None if rows is None else row_numbers(rows, tokens.shape[1]),
        )
        return tokens, attentions, class_tokens

    @overload
    def encode(self, images: Tensor, *, return_attention: Literal[False] = ...) -> Tensor: ...
    @overload
    def encode(
        self, images: Tensor, *, return_attention: Literal[True] | Sequence[int] | AttentionRows
    ) -> tuple[Tensor, Attentions]: ...
    def encode(
        self, images: Tensor, *, return_attention: bool | Sequence[int] | AttentionRows = False
    ) -> Tensor | tuple[Tensor, Attentions]:
        """All tokens after the final norm.

        Args:
            images: (B, C, height, width).
            return_attention: As in `forward`.

        Returns:
            (B, N, D); with `return_attention` the pair of it and the attention weights.
        """
        tokens = self.embed(images)  # (B, C, height, width) -> (B, N, D)
        tokens, attentions, _ = self._run_blocks(tokens, images.shape[-2:], return_attention)
        tokens = self.norm(tokens)
        return tokens if attentions is None else (tokens, attentions)

    def classify(self, tokens: Tensor, class_tokens: Sequence[Tensor] = ()) -> Tensor:
        """Equation 4 and the head: from the tokens that `encode` gives to logits.

        Args:
            tokens: (B, N, D).
            class_tokens: Where the config's `head_blocks` is above 1: the normalised class tokens
                (B, D) of the blocks before the last.

        Returns:
            (B, classes); without a head the pooled features (B, D).

        Raises:
            ValueError: Other class tokens than the head needs.
        """
        if len(class_tokens) != self.config.head_blocks - 1:
            raise ValueError(
                f"the head sees the class tokens of {self.config.head_blocks} blocks: found "
                f"{len(class_tokens)} of blocks before the last, expected "
                f"{self.config.head_blocks - 1}"
            )
        if self.config.pooling == "cls":
            pooled = tokens[:, 0]  # (B, N, D) -> (B, D)
        else:
            pooled = tokens[:, self.num_prefix_tokens :].mean(dim=1)  # (B, N, D) -> (B, D)
        if self.config.pooling == "cls_and_mean":
            pooled = torch.cat([*class_tokens, tokens[:, 0], pooled], dim=1)  # (B, pooled_dim)
        logits = self.head(self.pre_logits(self.fc_norm(pooled)))  # (B, D) -> (B, classes)
        if self.head_dist is not None:  # DeiT, section 3: the two heads speak together
            logits = (logits + self.head_dist(tokens[:, 1])) / 2
        return cast(Tensor, logits)

    @overload
    def forward(self, images: Tensor, *, return_attention: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(
        self, images: Tensor, *, return_attention: Literal[True] | Sequence[int] | AttentionRows
    ) -> tuple[Tensor, Attentions]: ...
    def forward(
        self, images: Tensor, *, return_attention: bool | Sequence[int] | AttentionRows = False
    ) -> Tensor | tuple[Tensor, Attentions]:
        """Logits, and the attention weights of the blocks or rows that were asked for.

        Args:
            images: (B, C, height, width), as `preprocess` makes them; any whole number of patches.
            return_attention: False: logits only, all blocks on the fused kernel. True: the weights
                of all blocks. Block numbers: of these blocks; only they leave the fused kernel.
                `AttentionRows`: the chosen rows, beside the fused kernel.

        Returns:
            (B, classes); with `return_attention` the pair of it and a list with one tensor a block,
            (B, H, N, N) or (B, H, rows asked for, N), in the order asked for. The list knows the
            grid of these pictures, see `minivit.inspected.Attentions`.

        Raises:
            ValueError: See `embed`.
            IndexError: A block or a query row that does not exist.
        """
        tokens = self.embed(images)  # (B, C, height, width) -> (B, N, D)
        tokens, attentions, class_tokens = self._run_blocks(
            tokens, images.shape[-2:], return_attention
        )
        tokens = self.norm(tokens)
        logits = self.classify(tokens, class_tokens)  # (B, N, D) -> (B, classes)
        return logits if attentions is None else (logits, attentions)
