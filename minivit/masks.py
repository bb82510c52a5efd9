"""Masks: which query may look at which key.

A mask is boolean, True = may attend, or floating, added to the scores; its shape broadcasts to
(B, H, N, M). A causal mask hides later keys from earlier queries: the last query sees every key.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """(N, M) boolean mask in which the last query sees every key, the one before it all but one."""
    offset = num_keys - num_queries
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(offset)


def merge_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The mask that applies both: a key is seen only where both masks let it be seen.

    Args:
        first: None, boolean (True = may attend) or floating (added to the scores).
        second: Likewise; the shapes broadcast to each other.
    """
    if first is None or second is None:
        return first if second is None else second
    if first.dtype == torch.bool and second.dtype == torch.bool:
        return first & second
    dtype = second.dtype if first.dtype == torch.bool else first.dtype
    return _additive(first, dtype) + _additive(second, dtype)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, float("-inf"))


def fit_mask(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """The mask as kernels want it: at least (1, M); an additive one of the query's precision."""
    if mask is None:
        return None
    mask = mask[None] if mask.dim() < 2 else mask
    return mask if mask.dtype == torch.bool else mask.to(query.dtype)


def mask_of_rows(
    mask: Tensor | None, is_causal: bool, rows: Sequence[int], num_queries: int, key: Tensor
) -> Tensor | None:
    """What some queries may see: their rows of the mask, without those of the others.

    Args:
        mask: As in `scaled_dot_product_attention`.
        is_causal: As there.
        rows: Numbers of the queries.
        num_queries: N.
        key: (…, M, d).
    """
    if mask is not None and mask.dim() > 1 and mask.shape[-2] > 1:  # else one row serves them all
        mask = mask[..., rows, :]
    if is_causal:
        last_seen = torch.tensor(rows, device=key.device) + key.shape[-2] - num_queries
        places = torch.arange(key.shape[-2], device=key.device)
        mask = merge_masks(mask, places <= last_seen[:, None])
    return mask
