"""A captioner: a picture goes in, a sentence comes out, word by word.

The architecture is that of CATR (https://github.com/saahiluppal/catr), a descendant of DETR
(Carion et al. 2020, arXiv:2005.12872)::

    f = backbone(picture)                   a grid of features
    m = encoder(W f, positions of cells)    pre-norm; positions go to queries and keys only
    h = decoder(words so far, m)            self-attention, then a look at m, then MLP
    p(next word) = softmax(MLP(h))          three layers

The backbone is a ResNet (CATR: depth 101, dilated) or a ViT, whose patch tokens are the grid.
CATR's decoder adds its whole table of 128 positions to queries and keys and so runs at 128 words
only. Here the table is cut to the words that are there: under the causal mask no word sees what was
cut off, and the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast, overload

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from minivit.attention import KeyValueCache
from minivit.blocks import EncoderBlock
from minivit.config import CaptionerConfig, ResNetConfig
from minivit.cpu import Linear
from minivit.decoder import DecoderBlock, DecoderCache
from minivit.embeddings import masked_sine_position_embedding
from minivit.generation import Align, Caption, describe, generate
from minivit.preprocess import Preprocess
from minivit.resnet import ResNet, shrink_mask
from minivit.tokenizer import Tokenizer
from minivit.vit import VisionTransformer


class Memory(NamedTuple):
    """What the decoder looks at.

    Attributes:
        tokens: (B, M, D), M = rows * cols cells.
        position: (B or 1, M, D), added to keys.
        mask: (B, M) boolean, True = a cell that holds picture; None: all do.
        grid: (rows, cols).
    """

    tokens: Tensor
    position: Tensor
    mask: Tensor | None
    grid: tuple[int, int]


class CaptionerAttention(NamedTuple):
    """Attention weights, one tensor a block, `[query, key]`.

    Attributes:
        encoder: (B, H, M, M) of the encoder's blocks; of a ViT those of its blocks come first, with
            its prefix tokens.
        decoder: (B, H, T, T) of words to words.
        cross: (B, H, T, M) of words to cells.
    """

    encoder: list[Tensor]
    decoder: list[Tensor]
    cross: list[Tensor]


class Captioner(nn.Module):
    """Pictures and words in, logits of the next words out; `caption` writes whole sentences.

    Args:
        config: What to build.
        tokenizer: Between words and their numbers.
        preprocess: How a photo becomes an input; by default CATR's: longer side to 299 pixels,
            values from -1 to 1, or for a ViT its own.

    Raises:
        ValueError: A tokenizer with another number of words than the config says.
    """

    def __init__(
        self,
        config: CaptionerConfig,
        tokenizer: Tokenizer,
        *,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        if len(tokenizer) != config.vocabulary_size:
            raise ValueError(
                f"the vocabulary has {len(tokenizer)} words, the weights are for "
                f"{config.vocabulary_size}"
            )
        self.config = config
        self.tokenizer = tokenizer
        dim = config.dim
        self.backbone: ResNet | VisionTransformer
        if isinstance(config.backbone, ResNetConfig):
            self.backbone = ResNet(config.backbone)
            width = self.backbone.num_channels
        else:
            self.backbone = VisionTransformer(config.backbone)
            width = config.backbone.dim
        self.preprocess = preprocess or self._usual_preprocess()
        self.input_proj = nn.Linear(width, dim)  # a 1×1 convolution, written as what it is
        block = config.block_config()
        self.encoder = nn.ModuleList(EncoderBlock(block) for _ in range(config.encoder_depth))
        norms = config.encoder_depth > 0
        self.encoder_norm = nn.LayerNorm(dim, config.layer_norm_eps) if norms else nn.Identity()
        self.word_embed = nn.Embedding(config.vocabulary_size, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.max_length, dim))
        self.embed_norm = nn.LayerNorm(dim, eps=config.embedding_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.decoder = nn.ModuleList(DecoderBlock(block) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(dim, config.layer_norm_eps)
        self.head = nn.ModuleList(
            (
                Linear(dim, config.head_dim),
                Linear(config.head_dim, config.head_dim),
                Linear(config.head_dim, config.vocabulary_size),
            )
        )
        if not self.pos_embed.is_meta:  # no numbers to fill in
            self.initialize()

    def _usual_preprocess(self) -> Preprocess:
        if isinstance(self.backbone, VisionTransformer):
            return self.backbone.preprocess
        return Preprocess(
            image_size=(299, 299),
            mode="fit_longest",
            filter="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )

    @torch.no_grad()
    def initialize(self) -> None:
        """Starting weights as CATR's: Xavier uniform for every matrix behind the backbone.

        Positions of words: normal 0.02. The last layer: normal 0.02, so that a new captioner finds
        all words about as likely.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("backbone"):
                parts = module.weight.chunk(3) if name.endswith("attn.qkv") else [module.weight]
                for part in parts:  # Q, K and V are three square matrices, not one tall one
                    nn.init.xavier_uniform_(part)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for weight in (self.word_embed.weight, self.pos_embed, self._last_layer.weight):
            nn.init.normal_(weight, std=0.02)

    @property
    def _last_layer(self) -> nn.Linear:
        return cast(nn.Linear, self.head[2])

    # ---- the picture -----------------------------------------------------------------------------

    def _features(self, images: Tensor, attentions: list[Tensor] | None) -> Tensor:
        """(B, 3, height, width) -> (B, rows, cols, D), before the encoder."""
        if isinstance(self.backbone, ResNet):
            grid = rearrange(self.backbone(images), "b d rows cols -> b rows cols d")
        else:
            if attentions is None:
                tokens = self.backbone.encode(images)
            else:
                tokens, weights = self.backbone.encode(images, return_attention=True)
                attentions += weights
            rows, cols = self.backbone.patch_embed.grid_for(*images.shape[-2:])
            patches = tokens[:, self.backbone.num_prefix_tokens :]
            grid = rearrange(patches, "b (rows cols) d -> b rows cols d", rows=rows, cols=cols)
        return cast(Tensor, self.input_proj(grid))  # (B, rows, cols, width) -> (…, D)

    def _remember(
        self, features: Tensor, mask: Tensor | None, attentions: list[Tensor] | None
    ) -> Memory:
        """Runs the encoder over (B, rows, cols, D), mask (B, rows, cols)."""
        _, rows, cols, dim = features.shape
        real = features.new_ones(1, rows, cols, dtype=torch.bool) if mask is None else mask
        position = masked_sine_position_embedding(real, dim).to(features.dtype).flatten(1, 2)
        flat = None if mask is None else mask.flatten(1)  # (B, rows, cols) -> (B, M)
        tokens = features.flatten(1, 2)  # (B, rows, cols, D) -> (B, M, D)
        for block in self.encoder:
            tokens, weights = block(
                tokens,
                position=position,
                key_mask=flat,
                need_weights=attentions is not None,
            )
            if attentions is not None:
                attentions.append(weights)
        return Memory(self.encoder_norm(tokens), position, flat, (rows, cols))

    @overload
    def encode(
        self,
        images: Tensor,
        image_mask: Tensor | None = ...,
        *,
        return_attention: Literal[False] = ...,
    ) -> Memory: ...
    @overload
    def encode(
        self, images: Tensor, image_mask: Tensor | None = ..., *, return_attention: Literal[True]
    ) -> tuple[Memory, list[Tensor]]: ...
    def encode(
        self,
        images: Tensor,
        image_mask: Tensor | None = None,
        *,
        return_attention: bool = False,
    ) -> Memory | tuple[Memory, list[Tensor]]:
        """What the decoder looks at.

        Args:
            images: (B, 3, height, width); smaller pictures padded at the right and below.
            image_mask: (B, height, width) boolean, True = picture; None: no padding.
            return_attention: Also give the encoder's attention, see `CaptionerAttention`.

        Returns:
            The memory, or the pair of it and the list of weights.

        Raises:
            ValueError: A mask with a ViT, which would attend to the padding.
        """
        attentions: list[Tensor] | None = [] if return_attention else None
        features = self._features(images, attentions)
        if image_mask is not None:
            if not isinstance(self.backbone, ResNet):
                raise ValueError("a ViT sees padding as picture: give it pictures of one size")
            image_mask = shrink_mask(image_mask, (features.shape[1], features.shape[2]))
        memory = self._remember(features, image_mask, attentions)
        return memory if attentions is None else (memory, attentions)

    def look_at(self, pictures: Sequence[Image.Image]) -> Memory:
        """The memory of photos of any sizes.

        Each photo goes through the backbone unpadded, with those of its size; only grids are
        padded. So a photo has the same caption alone and in a batch.

        Args:
            pictures: B photos.

        Raises:
            BadImageError: A photo that cannot be used.
        """
        device, dtype = self.pos_embed.device, self.pos_embed.dtype
        inputs = [self.preprocess(picture) for picture in pictures]
        by_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(inputs):
            by_size.setdefault(image.shape, []).append(index)
        grids: dict[int, Tensor] = {}
        for indices in by_size.values():
            images = torch.stack([inputs[index] for index in indices]).to(device, dtype)
            grids |= zip(indices, self._features(images, None), strict=True)
        if len(by_size) == 1:
            return self._remember(torch.stack([grids[i] for i in range(len(inputs))]), None, None)
        rows = max(grid.shape[0] for grid in grids.values())
        cols = max(grid.shape[1] for grid in grids.values())
        features = torch.zeros(len(inputs), rows, cols, self.config.dim, device=device, dtype=dtype)
        mask = torch.zeros(len(inputs), rows, cols, dtype=torch.bool, device=device)
        for index, grid in grids.items():
            features[index, : grid.shape[0], : grid.shape[1]] = grid
            mask[index, : grid.shape[0], : grid.shape[1]] = True
        return self._remember(features, mask, None)

    # ---- the words -------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, num_pictures: int, memory: Memory) -> list[DecoderCache]:
        """Room for keys and values while `batch_size` sentences are written, one cache a block."""
        heads, head_dim = self.config.num_heads, self.config.dim // self.config.num_heads
        like: dict[str, Any] = {"dtype": memory.tokens.dtype, "device": memory.tokens.device}
        words, cells = self.config.max_length, memory.tokens.shape[1]
        return [
            DecoderCache(
                KeyValueCache(batch_size, heads, words, head_dim, **like),
                KeyValueCache(num_pictures, heads, cells, head_dim, **like),
            )
            for _ in self.decoder
        ]

    def decode(
        self,
        tokens: Tensor,
        memory: Memory,
        *,
        token_mask: Tensor | None = None,
        caches: Sequence[DecoderCache] | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Logits of the words that follow.

        Args:
            tokens: (B, T) numbers of words; with caches, only the new ones.
            memory: Of B pictures, or of B / K when K sentences in a row belong to one.
            token_mask: (B, T) boolean, True = a real token. Only what stands at and after padding
                differs with it: no word sees a later one.
            caches: From `new_cache`, extended in place.
            need_weights: Whether to give attention weights.

        Returns:
            Logits (B, T, vocabulary), and the weights of each block to words and to cells.

        Raises:
            ValueError: More words than `max_length`.
        """
        start = 0 if caches is None else caches[0].self_attention.length
        end = start + tokens.shape[1]
        if end > self.config.max_length:
            raise ValueError(f"{end} tokens, this captioner has {self.config.max_length} positions")
        position = self.pos_embed[:, start:end]  # (1, T, D)
        x = self.dropout(self.embed_norm(self.word_embed(tokens) + position))  # (B, T) -> (B, T, D)
        to_words, to_cells = [], []
        for index, block in enumerate(self.decoder):
            x, weights = block(
                x,
                memory.tokens,
                position=position,
                memory_position=memory.position,
                key_mask=token_mask,
                memory_mask=memory.mask,
                cache=None if caches is None else caches[index],
                need_weights=need_weights,
            )
            if need_weights:
                to_words.append(weights.self_attention)
                to_cells.append(weights.cross_attention)
        x = self.decoder_norm(x)
        for layer in self.head[:2]:
            x = F.relu(layer(x))
        return self._last_layer(x), to_words, to_cells  # (B, T, D) -> (B, T, vocabulary)

    @overload
    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        image_mask: Tensor | None = ...,
        *,
        return_attention: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        image_mask: Tensor | None = ...,
        *,
        return_attention: Literal[True],
    ) -> tuple[Tensor, CaptionerAttention]: ...
    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        image_mask: Tensor | None = None,
        *,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, CaptionerAttention]:
        """Teacher forcing: at each word, the logits of the one after it.

        Args:
            images: (B, 3, height, width).
            tokens: (B, T), the start token first. Padding at the end needs no mask: no word sees a
                later one.
            image_mask: As in `encode`.
            return_attention: Also give all attention weights, every block and head.

        Returns:
            Logits (B, T, vocabulary); with `return_attention` the pair of it and the weights.

        Raises:
            ValueError: See `encode` and `decode`.
        """
        if not return_attention:
            return self.decode(tokens, self.encode(images, image_mask))[0]
        memory, encoder = self.encode(images, image_mask, return_attention=True)
        logits, decoder, cross = self.decode(tokens, memory, need_weights=True)
        return logits, CaptionerAttention(encoder, decoder, cross)

    @torch.inference_mode()
    def caption(
        self,
        pictures: Sequence[Image.Image],
        *,
        beam_size: int = 1,
        max_length: int | None = None,
        length_penalty: float = 1.0,
        align: Align = "predicts",
        layer: int = -1,
        head: int | None = None,
    ) -> list[Caption]:
        """A sentence for each photo, with a map for each word.

        Args:
            pictures: Photos of any sizes.
            beam_size: Sentences that are followed at a time; 1: greedy.
            max_length: Most tokens, the start token counted; None: all that the captioner has.
            length_penalty: See `minivit.generation.generate`.
            align: Whose map a word gets: of the step that "predicts" it, or that "reads" it.
            layer: Decoder block of the maps, negative numbers from the last.
            head: Its head; None: the mean over heads.

        Raises:
            BadImageError: A photo that cannot be used.
            IndexError: A layer or head that does not exist.
            ValueError: A beam size or length that is not possible.
        """
        memory = self.look_at(pictures)
        found = generate(
            self,
            memory,
            beam_size=beam_size,
            max_length=max_length,
            length_penalty=length_penalty,
        )
        return describe(
            self, memory, pictures, [best[0] for best in found], align=align, layer=layer, head=head
        )

    def cell_box(self, rows: int, cols: int) -> tuple[float, float, float, float]:
        """Where a grid of cells lies, (left, top, right, bottom) in pixels of the input.

        The patches of a ViT tile the picture. A cell of a ResNet is centred on every 16th or 32nd
        pixel from the first one on, so that the first cell reaches over the edge.
        """
        if isinstance(self.backbone, VisionTransformer):
            height, width = self.backbone.config.patch_size
            return 0.0, 0.0, float(cols * width), float(rows * height)
        step = self.backbone.stride
        first = (1 - step) / 2
        return first, first, first + cols * step, first + rows * step
