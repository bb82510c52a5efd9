"""Numbers that the scripts here and the tests both make, so that they need not be stored.

A tensor depends on its name, its shape and a seed, and on nothing else: not on the order in which
tensors are made, nor on the versions of numpy and torch. (numpy promises that the bits of PCG64
stay what they are, which it does not promise of its normal distribution.)
"""

from __future__ import annotations

import math
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


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of names, shapes and values; stored with a reference, compared in the tests."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(f"{name}{tuple(tensors[name].shape)}".encode(), total)
        total = zlib.crc32(tensors[name].contiguous().numpy().tobytes(), total)
    return f"{total:08x}"
