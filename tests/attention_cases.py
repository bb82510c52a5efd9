"""Queries, keys, values and masks of every kind, for the tests of attention and of its variants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

B, H, N, M, d = 2, 3, 5, 7, 4
# Options for no weights, all weights, and some rows of them.
WAYS: dict[str, dict[str, Any]] = {
    "fused": {},
    "all": {"need_weights": True},
    "rows": {"rows": [0, -1]},
}
KINDS = (
    "none",
    "boolean",
    "boolean, two dimensions",
    "boolean, one dimension",
    "boolean, a head each",
    "keys",
    "additive",
    "additive with -inf",
    "causal",
    "causal and boolean",
    "causal and keys",
    "causal and additive",
    "some queries see nothing",
    "one picture sees nothing",
)


def qkv(n: int = N, m: int = M, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(B, H, length, d, dtype=dtype) for length in (n, m, m))


def make_mask(
    kind: str, n: int = N, m: int = M, dtype: torch.dtype = torch.float32
) -> tuple[Tensor | None, bool]:
    """A mask of that kind, and whether causality is asked for besides."""

    def boolean(*shape: int) -> Tensor:
        mask = torch.rand(shape) > 0.4
        mask[..., 0] = True  # every query sees something
        return mask

    causal = kind.startswith("causal")
    match kind.removeprefix("causal").removeprefix(" and "):
        case "none" | "":
            return None, causal
        case "boolean":
            return boolean(B, 1, n, m), causal
        case "boolean, two dimensions":
            return boolean(n, m), causal
        case "boolean, one dimension":
            return boolean(m), causal
        case "boolean, a head each":
            return boolean(B, H, n, m), causal
        case "keys":
            return boolean(B, 1, 1, m), causal
        case "additive":
            return torch.randn(1, H, n, m, dtype=dtype), causal
        case "additive with -inf":
            hidden = ~boolean(B, H, n, m)
            return torch.randn(B, H, n, m, dtype=dtype).masked_fill(hidden, -torch.inf), causal
        case "some queries see nothing":
            mask = boolean(B, 1, n, m)
            mask[0, :, n // 2] = False
            return mask, causal
        case "one picture sees nothing":
            mask = boolean(B, 1, n, m)
            mask[1] = False
            return mask, causal
    raise AssertionError(kind)
