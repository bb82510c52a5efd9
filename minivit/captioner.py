"""A captioner: a picture goes in, a sentence comes out, word by word.

The architecture is that of CATR (https://github.com/saahiluppal/catr), a descendant of DETR
(Carion et al. 2020, arXiv:2005.12872)::

    f = backbone(picture)                   a grid of features
    m = encoder(W f, positions of cells)    pre-norm; positions go to queries and keys only
    h = decoder(words so far, m)            self-attention, cross-attention to m, MLP
    p(next word) = softmax(MLP(h))          three layers

The backbone is a ResNet (CATR: depth 101, dilated) or a ViT, whose patch tokens are the grid.
CATR's decoder adds its whole table of 128 positions to queries and keys and so runs at 128 words
only. Here the table is cut to the words that are there: under the causal mask no word sees what was
cut off, and the numbers are the same.

`Captioner.caption` has four steps: the picture becomes a memory (`encode_photos`), a search writes
a sentence (`minivit.generation`), the decoder reads the whole sentence once more for its attention
(`decode`), and each word gets its map (`minivit.word_maps`).

Next: `minivit/generation.py`, how a sentence is searched.
"""

from __future__ import annotations

import os
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
from minivit.fields import renamed_arguments, warn_renamed
from minivit.generation import Hypothesis, NextWords, generate
from minivit.generation import sample as draw_sentences
from minivit.preprocess import Preprocess, open_image
from minivit.resnet import ResNet, shrink_mask
from minivit.tokenizer import Tokenizer
from minivit.vit import VisionTransformer
from minivit.word_maps import Align, BestMap, Box, Caption, decoder_input, describe

Picture = Image.Image | str | os.PathLike[str]  # or the file that it is in


class Memory(NamedTuple):
    """What the decoder looks at: the cells of B pictures.

    Attributes:
        tokens: Tokens of the cells, (B, M, D), M = rows * cols.
        position: Positions of the cells, (B or 1, M, D), added to keys.
        mask: (B, M) boolean, True = a cell that holds picture; None: all do.
        grid: Number of (rows, cols), padding counted.
    """

    tokens: Tensor
    position: Tensor
    mask: Tensor | None
    grid: tuple[int, int]

    def own_grids(self) -> list[tuple[int, int]]:
        """(rows, cols) of each picture without its padding, which lies below and on the right."""
        if self.mask is None:
            return [self.grid] * len(self.tokens)
        mask = self.mask.view(-1, *self.grid)  # (B, M) -> (B, rows, cols)
        rows, cols = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)
        return list(zip(rows.tolist(), cols.tolist(), strict=True))


class CaptionerAttention(NamedTuple):
    """Attention weights, one tensor for each block, `[query, key]`.

    Attributes:
        encoder: Weights of cells to cells, (B, H, M, M); those of a ViT's own blocks come first,
            with its prefix tokens.
        decoder: Weights of words to words, (B, H, T, T).
        cross: Weights of words to cells, (B, H, T, M).
    """

    encoder: list[Tensor]
    decoder: list[Tensor]
    cross: list[Tensor]


class Captioner(nn.Module):
    """Pictures and words in, logits of the next words out; `caption` writes whole sentences.

    Args:
        config: Sizes of all parts.
        tokenizer: Translation between words and their numbers.
        preprocess: Transform that makes an input of a photo; None: that of the ViT, or for a ResNet
            CATR's: longer side to 299 pixels, values from -1 to 1.

    Attributes:
        best_maps: Maps that point best at what words name, as measured after training
            (`minivit.training.caption.grounding`); empty: not measured.

    Raises:
        ValueError: The tokenizer has another number of words than the config.
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
        self.best_maps: tuple[BestMap, ...] = ()
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

    def backbone_grid(self, images: Tensor) -> Tensor:
        """What the backbone makes of pictures, before anything of the captioner's own.

        Args:
            images: (B, 3, height, width).

        Returns:
            (B, rows, cols, C), C = width of the backbone.
        """
        return self._backbone_grid(images)[0]

    def encode_grid(self, grid: Tensor) -> Memory:
        """The memory of pictures that the backbone has seen: `encode` from there on.

        Args:
            grid: (B, rows, cols, C), see `backbone_grid`.
        """
        return self._encode_grid(self.input_proj(grid), None)[0]

    def _backbone_grid(
        self, images: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The backbone's grid, (B, rows, cols, C), and the weights of a ViT's blocks."""
        if isinstance(self.backbone, ResNet):
            return rearrange(self.backbone(images), "b c rows cols -> b rows cols c"), []
        attentions: list[Tensor] = []
        if need_weights:
            tokens, attentions = self.backbone.encode(images, return_attention=True)
        else:
            tokens = self.backbone.encode(images)
        rows, _ = self.backbone.patch_embed.grid_for(*images.shape[-2:])
        patches = tokens[:, self.backbone.num_prefix_tokens :]
        return rearrange(patches, "b (rows cols) c -> b rows cols c", rows=rows), attentions

    def _features(self, images: Tensor, need_weights: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The grid before the encoder, (B, rows, cols, D), and the weights of a ViT's blocks."""
        grid, attentions = self._backbone_grid(images, need_weights)
        return self.input_proj(grid), attentions  # (B, rows, cols, C) -> (…, D)

    def _encode_grid(
        self, features: Tensor, mask: Tensor | None, need_weights: bool = False
    ) -> tuple[Memory, list[Tensor]]:
        """The encoder over (B, rows, cols, D) with a mask (B, rows, cols), and its weights."""
        _, rows, cols, dim = features.shape
        real = features.new_ones(1, rows, cols, dtype=torch.bool) if mask is None else mask
        position = masked_sine_position_embedding(real, dim).to(features.dtype).flatten(1, 2)
        flat = None if mask is None else mask.flatten(1)  # (B, rows, cols) -> (B, M)
        tokens = features.flatten(1, 2)  # (B, rows, cols, D) -> (B, M, D)
        attentions = []
        for block in self.encoder:
            tokens, weights = block(
                tokens, position=position, key_mask=flat, need_weights=need_weights
            )
            if need_weights:
                attentions.append(weights)
        return Memory(self.encoder_norm(tokens), position, flat, (rows, cols)), attentions

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
        """The memory of pictures: the grid of features after the encoder.

        Args:
            images: (B, 3, height, width); smaller pictures are padded on the right and below.
            image_mask: (B, height, width) boolean, True = picture; None: no padding.
            return_attention: Whether to give the encoder's attention too, see `CaptionerAttention`.

        Returns:
            The memory, or the pair of it and the list of weights.

        Raises:
            ValueError: A mask with a ViT, which would attend to the padding.
        """
        features, of_backbone = self._features(images, return_attention)
        if image_mask is not None:
            if not isinstance(self.backbone, ResNet):
                raise ValueError("a ViT sees padding as picture: give it pictures of one size")
            image_mask = shrink_mask(image_mask, (features.shape[1], features.shape[2]))
        memory, of_encoder = self._encode_grid(features, image_mask, return_attention)
        return (memory, of_backbone + of_encoder) if return_attention else memory

    def encode_photos(self, pictures: Picture | Sequence[Picture]) -> Memory:
        """The memory of photos of any sizes.

        Each photo goes through the backbone unpadded, with those of its size; only grids are
        padded. So a photo has the same caption alone and in a batch.

        Args:
            pictures: B photos or their files, or one.

        Raises:
            BadImageError: A photo that cannot be used.
        """
        pictures = opened(pictures)
        device, dtype = self.pos_embed.device, self.pos_embed.dtype
        inputs = [self.preprocess(picture) for picture in pictures]
        by_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(inputs):
            by_size.setdefault(image.shape, []).append(index)
        grids: dict[int, Tensor] = {}
        for indices in by_size.values():
            images = torch.stack([inputs[index] for index in indices]).to(device, dtype)
            grids |= zip(indices, self._features(images)[0], strict=True)
        if len(by_size) == 1:
            features = torch.stack([grids[index] for index in range(len(inputs))])
            return self._encode_grid(features, None)[0]
        rows = max(grid.shape[0] for grid in grids.values())
        cols = max(grid.shape[1] for grid in grids.values())
        features = torch.zeros(len(inputs), rows, cols, self.config.dim, device=device, dtype=dtype)
        mask = torch.zeros(len(inputs), rows, cols, dtype=torch.bool, device=device)
        for index, grid in grids.items():
            features[index, : grid.shape[0], : grid.shape[1]] = grid
            mask[index, : grid.shape[0], : grid.shape[1]] = True
        return self._encode_grid(features, mask)[0]

    def look_at(self, pictures: Sequence[Image.Image]) -> Memory:
        """The name that `encode_photos` had before."""
        warn_renamed("look_at", "encode_photos")
        return self.encode_photos(pictures)

    # ---- the words -------------------------------------------------------------------------------

    def new_cache(self, batch_size: int, num_pictures: int, memory: Memory) -> list[DecoderCache]:
        """Room for keys and values of words and cells, one cache for each decoder block.

        Args:
            batch_size: Number of sentences that are written, of all pictures together.
            num_pictures: Number of pictures.
            memory: Memory of these pictures.
        """
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
            memory: Memory of B pictures, or of B / K when K sentences in a row belong to one.
            token_mask: (B, T) boolean, True = a real token. Only what stands at and after padding
                differs with it: no word sees a later one.
            caches: Caches made by `new_cache`, extended in place.
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
            return_attention: Whether to give the attention weights of every block and head too.

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

    # ---- sentences -------------------------------------------------------------------------------

    def next_words(self, memory: Memory) -> NextWords:
        """What a search (`minivit.generation`) asks for the next word; a new one for each search.

        Args:
            memory: Memory of the pictures that the sentences are about.
        """
        return _CachedDecoder(self, memory)

    @renamed_arguments(layer="block")
    @torch.inference_mode()
    def caption(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        beam_size: int = 1,
        max_length: int | None = None,
        length_penalty: float = 1.0,
        sample: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        align: Align = "predicts",
        block: int = -1,
        head: int | None = None,
    ) -> list[Caption]:
        """A sentence for each photo, with a map for each word.

        Args:
            pictures: Photos of any sizes or their files, or one: then the list has one sentence.
            beam_size: Number of sentences followed at a time; 1: greedy.
            max_length: Greatest number of tokens, the start token counted; None: all that the
                captioner has.
            length_penalty: Exponent of the length, see `minivit.generation.generate`.
            sample: Seed for words drawn by chance; None: the likeliest sentence.
            temperature: Divisor of the logits, see `minivit.generation.sample`; this and the next
                two need `sample`.
            top_k: Number of the likeliest words from which one is drawn; None: all.
            top_p: Probability that these words must reach together.
            align: "predicts" or "reads": whether a word gets the map of the step that says it or of
                the one that takes it in, see `minivit.word_maps`.
            block: Decoder block of the maps, negative numbers from the last.
            head: Head of that block; None: the mean over heads.

        Raises:
            BadImageError: A photo that cannot be used.
            IndexError: A block or head that does not exist.
            ValueError: A beam size, length, temperature, `top_k` or `top_p` that is not possible,
                beams together with `sample`, or what belongs to `sample` without it.
        """
        self.check_map(block, head)
        if sample is not None and beam_size != 1:
            raise ValueError(
                f"sample is {sample} and beam_size is {beam_size}: a sentence is either drawn by "
                "chance or searched with beams; leave one of the two out"
            )
        if sample is None and (temperature, top_k, top_p) != (1.0, None, 1.0):
            raise ValueError(
                f"temperature {temperature}, top_k {top_k}, top_p {top_p}: they change how words "
                "are drawn by chance; give a seed as sample too"
            )
        pictures = opened(pictures)
        memory = self.encode_photos(pictures)
        if sample is None:
            ranked = generate(
                self.next_words(memory),
                beam_size=beam_size,
                max_length=max_length,
                length_penalty=length_penalty,
            )
            sentences = [best for best, *_ in ranked]
        else:
            sentences = draw_sentences(
                self.next_words(memory),
                seed=sample,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                max_length=max_length,
            )
        return self._describe(sentences, memory, pictures, align, block, head)

    @torch.inference_mode()
    def caption_text(
        self,
        pictures: Picture | Sequence[Picture],
        text: str,
        *,
        align: Align = "predicts",
        block: int = -1,
        head: int | None = None,
    ) -> list[Caption]:
        """A sentence of one's own about each photo: how likely its words are, and their maps.

        The captioner reads the words as if it had said them (teacher forcing); a word's probability
        is given the photo and the words before it.

        Args:
            pictures: Photos of any sizes or their files, or one: then the list has one sentence.
            text: The sentence, the same for all photos.
            align: As in `caption`, like the next two.
            block: Decoder block of the maps, negative numbers from the last.
            head: Head of that block; None: the mean over heads.

        Raises:
            BadImageError: A photo that cannot be used.
            IndexError: A block or head that does not exist.
            ValueError: No words, too many, or one that the captioner does not know.
        """
        self.check_map(block, head)
        ids = self.known_words(text)
        pictures = opened(pictures)
        memory = self.encode_photos(pictures)
        tokens = decoder_input([ids] * len(pictures), self.tokenizer).to(memory.tokens.device)
        log_probs = self.decode(tokens, memory)[0].float().log_softmax(dim=-1)  # (B, T, vocabulary)
        words = torch.tensor([*ids, self.tokenizer.end_id], device=log_probs.device)
        index = words.expand(len(pictures), -1)[..., None]  # (T,) -> (B, T, 1)
        own = log_probs.gather(2, index)[..., 0].tolist()  # (B, T, vocabulary) -> (B, T)
        sentences = [Hypothesis(ids, each, True, sum(each) / len(each)) for each in own]
        return self._describe(sentences, memory, pictures, align, block, head)

    def known_words(self, text: str) -> list[int]:
        """The numbers of a sentence's tokens.

        Raises:
            ValueError: No words, more than the captioner has positions for, or unknown ones, which
                it would all read as the same.
        """
        tokens = self.tokenizer
        ids = tokens.encode(text)
        unknown = [word for word in text.split() if tokens.unknown_id in tokens.encode(word)]
        if unknown or not ids:
            problem = f"no word of this captioner: {', '.join(unknown)}" if ids else "no words"
            some = ", ".join([word for word in tokens.vocabulary if word.isalpha()][:12])
            raise ValueError(
                f"the text {text!r} has {problem}; it knows {len(tokens)} words, such as {some}"
            )
        if len(ids) >= self.config.max_length:
            raise ValueError(
                f"the text has {len(ids)} word-pieces, this captioner takes "
                f"{self.config.max_length - 1}: shorten it"
            )
        return ids

    def _describe(
        self,
        sentences: Sequence[Hypothesis],
        memory: Memory,
        pictures: Sequence[Image.Image],
        align: Align,
        block: int,
        head: int | None,
    ) -> list[Caption]:
        """Sentences with the map of each word, and where the grids lie in the photos."""
        maps = self._maps(sentences, memory, block, head)
        grids = memory.own_grids()
        sizes = [picture.size for picture in pictures]
        boxes = [self._box_in_photo(*both) for both in zip(sizes, grids, strict=True)]
        return describe(sentences, maps, self.tokenizer, grids=grids, boxes=boxes, align=align)

    def best_map(self, align: Align = "predicts", words: str = "all") -> BestMap | None:
        """The map that points best for an alignment and a kind of words; None: not measured."""
        matches = (each for each in self.best_maps if (each.align, each.words) == (align, words))
        return next(matches, None)

    def check_map(self, block: int, head: int | None) -> None:
        """Raises an IndexError unless there are such a decoder block and such a head of it."""
        depth, heads = self.config.decoder_depth, self.config.num_heads
        if not -depth <= block < depth:
            raise IndexError(f"block {block}: this captioner has {depth} decoder blocks")
        if head is not None and not 0 <= head < heads:
            raise IndexError(f"head {head}: this captioner has {heads} heads, from 0")

    def _maps(
        self, sentences: Sequence[Hypothesis], memory: Memory, block: int, head: int | None
    ) -> Tensor:
        """What each row of the decoder looks at, (B, T, rows, cols), when it reads whole sentences.

        The search did not keep it: one more pass costs less than the weights of every step.
        """
        end = self.tokenizer.end_id
        words = [[*each.token_ids, end] if each.ended else each.token_ids for each in sentences]
        tokens = decoder_input(words, self.tokenizer, max_length=self.config.max_length)
        _, _, to_cells = self.decode(tokens.to(memory.tokens.device), memory, need_weights=True)
        weights = to_cells[block]  # (B, H, T, M)
        maps = weights.mean(dim=1) if head is None else weights[:, head]  # -> (B, T, M)
        shape = (*maps.shape[:2], *memory.grid)
        return maps.float().cpu().view(shape)  # (B, T, M) -> (B, T, rows, cols)

    def _box_in_photo(self, photo_size: tuple[int, int], grid: tuple[int, int]) -> Box:
        """Where a grid of cells lies, (left, top, right, bottom) in pixels of a photo."""
        width, height = self.preprocess.view_size(*photo_size)
        left, top, right, bottom = self.preprocess.crop_box(*photo_size)
        across, down = (right - left) / width, (bottom - top) / height  # photo pixels per input's
        x0, y0, x1, y1 = self.cell_box(*grid)
        return left + x0 * across, top + y0 * down, left + x1 * across, top + y1 * down

    def cell_box(self, rows: int, cols: int) -> Box:
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


def opened(pictures: Picture | Sequence[Picture]) -> list[Image.Image]:
    """Photos as a list: one is a list of one, and files are opened.

    Raises:
        BadImageError: A file that cannot be used.
    """
    if isinstance(pictures, (Image.Image, str, os.PathLike)):
        pictures = [pictures]
    return [each if isinstance(each, Image.Image) else open_image(each) for each in pictures]


class _CachedDecoder:
    """A captioner as `NextWords`: it owns the keys and values of the words so far."""

    def __init__(self, captioner: Captioner, memory: Memory) -> None:
        self.captioner = captioner
        self.memory = memory
        self.caches: list[DecoderCache] = []
        self.num_pictures = len(memory.tokens)
        self.start_id = captioner.tokenizer.start_id
        self.end_id = captioner.tokenizer.end_id
        self.vocabulary_size = captioner.config.vocabulary_size
        self.max_length = captioner.config.max_length
        self.device = memory.tokens.device

    def logits(self, last_words: Tensor) -> Tensor:
        """Adds a word to each sentence and gives the logits of the next one."""
        if not self.caches:  # the first word says how many sentences there are
            self.caches = self.captioner.new_cache(len(last_words), self.num_pictures, self.memory)
        tokens = last_words[:, None]  # (R,) -> (R, 1)
        logits, _, _ = self.captioner.decode(tokens, self.memory, caches=self.caches)
        return logits[:, -1]  # (R, 1, vocabulary) -> (R, vocabulary)

    def reorder(self, index: Tensor) -> None:
        """Lets sentence i go on from sentence `index[i]`."""
        for cache in self.caches:
            cache.reorder(index)
