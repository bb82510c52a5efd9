"""Attention rollout: attention followed through all blocks.

Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), equation 1,
with the residual connection as half of each block::

    Ã(l) = (mean over heads of A(l) + I) / 2         R = Ã(L) Ã(L-1) … Ã(1)

A row of R as a map over the picture: `patch_map(rollout(attentions)[:, 0], attentions)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minivit.inspected import Attentions


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much of each input token reaches each output token.

    Args:
        attentions: (B, H, N, N) weights of every block, first block first.

    Returns:
        (B, N, N), `[output token, input token]`; rows sum to 1.

    Raises:
        ValueError: No block was given, or only some rows of it; or the blocks or the rows that were
            asked for are in another order.
    """
    if not attentions:
        raise ValueError("rollout needs the attention of every block: return_attention=True")
    if isinstance(attentions, Attentions):
        for name, numbers in (("blocks", attentions.blocks), ("rows", attentions.queries or ())):
            if list(numbers) != sorted(numbers):
                raise ValueError(
                    f"rollout needs {name} in order, found {', '.join(map(str, numbers))}: use "
                    "return_attention=True"
                )
    flow: Tensor | None = None
    for attention in attentions:
        if attention.shape[-1] != attention.shape[-2]:
            raise ValueError(
                f"rollout needs whole maps (B, H, N, N), found {tuple(attention.shape)}: use "
                "return_attention=True"
            )
        mixed = attention.mean(dim=1)  # (B, H, N, N) -> (B, N, N)
        mixed = (mixed + torch.eye(mixed.shape[-1], dtype=mixed.dtype, device=mixed.device)) / 2
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None
    return flow
