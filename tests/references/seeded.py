"""Numbers that the scripts here and the tests both make, so that they need not be stored.

A tensor depends on its name, its shape and a seed, and on nothing else: not on the order in which
tensors are made, nor on the versions of numpy and torch. (numpy promises that the bits of PCG64
stay what they are, which it does not promise of its normal distribution.)
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def seeded(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """Uniform numbers of mean 0 and variance 1, float32."""
    bits = np.random.PCG64([seed, zlib.crc32(name.encode())])
    unit = (bits.random_raw(math.prod(shape)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    values = (2.0 * unit - 1.0) * math.sqrt(3.0)
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def seeded_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights for a ViT, by the names of its `state_dict()`.

    Larger than those of a new model, so that attention is far from uniform and no bias, scale or
    token is so small that its absence would go unnoticed.
    """
    weights = {}
    for name, shape in shapes.items():
        values = seeded(name, shape, seed)
        if name.endswith("gamma"):  # LayerScale
            values = 0.5 + 0.1 * values
        elif "norm" in name and name.endswith("weight"):
            values = 1.0 + 0.1 * values
        elif name.endswith(("pos_embed", "token")):
            values = 0.5 * values
        elif len(shape) == 1:  # biases
            values = 0.1 * values
        else:
            values = values * (1.5 / math.sqrt(math.prod(shape[1:])))
        weights[name] = values
    return weights


# By the last part of a name, ".weight" taken off: cls_token, register_tokens, cls, pos_embedding,
# position_embeddings, word_embeddings, query_embed, class_embedding; but not patch_embedding (a
# convolution) and not DETR's class_embed (a linear layer).
TOKENS = re.compile(
    r"(\w*_)?tokens?|cls|probe|class_embedding"
    r"|(pos|position|positional|word|token|token_type|query|row|col)_embed(ding|dings)?"
)
LAYER_SCALE = re.compile(r"(gamma|lambda)(_?\d)?")
BARE_MATRIX = re.compile(r"(\w*_)?(proj|projection)")  # a parameter of its own, used as x @ matrix


def foreign_weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Weights by the names of other layouts: torch's, Hugging Face's, Flax's, of ViTs and ResNets.

    As large as those of `seeded_weights`, and for the same reasons. Parts of a name are parted by
    "." or "/". Every tensor is float32 but counters and indices, which are int64.
    """
    return {name: _foreign(name, tuple(shape), seed) for name, shape in shapes.items()}


def _foreign(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    parts = re.split(r"[./]", name)
    last, parent = parts[-1], parts[-2] if len(parts) > 1 else ""
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "position_ids":  # a buffer of older transformers
        return torch.arange(math.prod(shape)).reshape(shape)
    values = seeded(name, shape, seed)
    if last == "running_var":  # so large that a deep ResNet neither grows nor dies out
        return 2.0 + 0.3 * values.abs()
    if LAYER_SCALE.fullmatch(last) and "norm" not in parent.lower():
        return 0.5 + 0.1 * values
    if TOKENS.fullmatch(parent if last == "weight" else last):
        return 0.5 * values
    if last == "scale" or (last in ("weight", "gamma") and len(shape) == 1):  # normalisations
        return 1.0 + 0.1 * values
    if len(shape) <= 1 or last.endswith("bias") or last == "running_mean":
        return 0.1 * values
    return values * (1.5 / math.sqrt(_fan_in(last, parent, shape)))


def _fan_in(last: str, parent: str, shape: tuple[int, ...]) -> int:
    """How many numbers are summed for one output, by the layout that a matrix's name stands for."""
    if last == "kernel":  # Flax: (in, out), (height, width, in, out), (in, heads, d)
        return shape[0] if parent in ("query", "key", "value") else math.prod(shape[:-1])
    if BARE_MATRIX.fullmatch(last):  # (in, out)
        return shape[0]
    return math.prod(shape[1:])  # torch: (out, in), (out, in, height, width)


def described(
    weights: Mapping[str, Tensor], seed: int, pictures: Mapping[str, Tensor]
) -> dict[str, str]:
    """The metadata that make `foreign_weights` and the pictures again, and checksums of both.

    `pictures` are `seeded(name, …, seed)` by name; the shape of each is stored as `{name}_shape`.
    """
    shapes = {name: list(tensor.shape) for name, tensor in weights.items()}
    return {
        "seed": str(seed),
        "shapes": json.dumps(shapes),
        "weights": fingerprint(weights),
        "pictures": fingerprint(pictures),
    } | {f"{name}_shape": json.dumps(list(tensor.shape)) for name, tensor in pictures.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of names, shapes and values; stored with a reference, compared in the tests."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(f"{name}{tuple(tensors[name].shape)}".encode(), total)
        total = zlib.crc32(tensors[name].contiguous().numpy().tobytes(), total)
    return f"{total:08x}"
