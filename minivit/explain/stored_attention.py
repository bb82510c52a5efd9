"""The attention weights of all blocks, stored as the queries and keys that they are made of.

All maps of a picture are L·H·N² numbers, its queries and keys 2·L·N·D, and any row of any map comes
from them by one product and one softmax: a page can hold what a reader may ask for. Two rules make
16 bits a number enough, whatever the scores are:

* softmax does not see one vector that is added to all keys, so the mean key is taken off. Trained
  models have such vectors: they make scores of 320 of which all but 30 are the same for every key;
* each query and each key has a scale of its own, its largest number divided by 32767.

::

    k' = k - mean over tokens of k
    Q16 = round(q / s_q)     s_q = max |q| / 32767        K16, s_k: the same of k'
    weights = softmax((s_q Q16) · (s_k K16)ᵀ / √d)

On a trained DINOv2 ViT-S/14 no weight of any block moves by more than 1.3e-4 (float16 moves single
ones by 1.4e-2, int8 by 0.20; without the mean key 1.3e-3 and 0.03). A picture of 224 pixels takes
4.9 MB instead of 19.0 for the maps in float32, one of 518 pixels 26 MB instead of 541: 4·D + 8·H
bytes a token and block. `benchmarks/attention_precision.py` measures other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from minivit.attention import attention_weights, row_numbers
from minivit.blocks import EncoderBlock
from minivit.vit import VisionTransformer

LARGEST = torch.iinfo(torch.int16).max


@dataclass(frozen=True)
class StoredAttention:
    """Queries and keys of all blocks, and where their tokens lie on the picture.

    Attributes:
        queries: (L, B, H, N, d) int16, in units of `query_scales`.
        keys: (L, B, H, N, d) int16, without the mean key, in units of `key_scales`.
        query_scales: (L, B, H, N, 1) float32.
        key_scales: (L, B, H, N, 1) float32.
        grid_size: (rows, cols) of the patches of these pictures.
        num_prefix_tokens: Number of tokens before the patches.
    """

    queries: Tensor
    keys: Tensor
    query_scales: Tensor
    key_scales: Tensor
    grid_size: tuple[int, int]
    num_prefix_tokens: int

    @property
    def nbytes(self) -> int:
        """Bytes of all four tensors."""
        tensors = (self.queries, self.keys, self.query_scales, self.key_scales)
        return sum(tensor.nbytes for tensor in tensors)

    def weights(self, block: int, *, rows: Sequence[int] | None = None) -> Tensor:
        """The attention weights of a block, or some rows of them.

        Args:
            block: Number of the block; a negative one counts from the last.
            rows: Numbers of the tokens that look, negative ones from the last; None: all.

        Returns:
            (B, H, N, N) or (B, H, len(rows), N) float32.

        Raises:
            IndexError: A block or a row that does not exist.
        """
        depth, _, _, num_tokens, _ = self.queries.shape
        if not -depth <= block < depth:
            raise IndexError(
                f"attention of block {block} was asked for, but {depth} blocks are stored: "
                f"choose from {-depth} to {depth - 1}"
            )
        numbers = row_numbers(range(num_tokens) if rows is None else rows, num_tokens)
        query = (self.queries[block] * self.query_scales[block])[:, :, numbers]
        return attention_weights(query, self.keys[block] * self.key_scales[block])


@torch.no_grad()
def store_queries_keys(model: VisionTransformer, images: Tensor) -> StoredAttention:
    """Runs a model on pictures and keeps the queries and keys of every block in 16 bits.

    Nothing of the model is changed or hooked; its own blocks run one after the other.

    Args:
        model: Model in eval mode, as `minivit.load_model` gives it.
        images: (B, C, height, width), as `model.preprocess` makes them.

    Raises:
        ValueError: The model is in training mode, where noise is part of what it computes; or
            pictures that it does not take.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() before storing")
    tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
    queries, keys = [], []
    for module in model.blocks:
        block = cast(EncoderBlock, module)
        query, key = block.attn.queries_and_keys(block.before(block.norm1, tokens))
        queries.append(_to_int16(query))
        keys.append(_to_int16(key - key.mean(dim=-2, keepdim=True)))
        tokens, _ = block(tokens)
    (q, q_scales), (k, k_scales) = (
        (torch.stack([numbers for numbers, _ in parts]), torch.stack([scale for _, scale in parts]))
        for parts in (queries, keys)
    )
    return StoredAttention(
        queries=q,
        keys=k,
        query_scales=q_scales,
        key_scales=k_scales,
        grid_size=model.patch_embed.grid_for(*images.shape[-2:]),
        num_prefix_tokens=model.num_prefix_tokens,
    )


def _to_int16(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (…, N, d) up to 32767, and the scales (…, N, 1) that make vectors of them."""
    largest = vectors.abs().amax(dim=-1, keepdim=True)
    scale = (largest / LARGEST).float().clamp(min=torch.finfo(torch.float32).tiny)  # not 0
    return (vectors / scale).round().to(torch.int16), scale
