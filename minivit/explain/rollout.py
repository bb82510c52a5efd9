"""Attention rollout: attention followed through all blocks.

Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), equation 1,
with the residual connection as half of each block::

    Ã(l) = (mean over heads of A(l) + I) / 2         R = Ã(L) Ã(L-1) … Ã(1)

Two variants are in wide use: the strongest head of each entry instead of the mean over heads, and
leaving out the smallest entries of each block, nine tenths of them, say, before I is added. After
either, rows no longer sum to 1, and each is divided by its sum.

A row of R as a map over the picture: `patch_map(rollout(attentions)[:, 0], attentions)`. One row
alone needs no such product: `minivit/explain/methods/rolled_row.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from minivit.inspected import Attentions

Fusion = Literal["mean", "max", "min"]


def rollout(
    attentions: Sequence[Tensor],
    *,
    fusion: Fusion = "mean",
    residual: float = 0.5,
    discard: float = 0.0,
) -> Tensor:
    """How much of each input token reaches each output token.

    Args:
        attentions: (B, H, N, N) weights of every block, first block first.
        fusion: One matrix from H: their mean, or the largest or smallest weight of each entry.
        residual: Part of each block that the residual connection is taken to be, from 0 to 1.
        discard: Part of the N·N entries of each fused matrix that is set to 0, the smallest first,
            rounded down to whole entries. Those equal to the smallest that stays stay too. Prefix
            tokens are treated as all others; well-known code spares the class token's weight for
            itself.

    Returns:
        (B, N, N), `[output token, input token]`; rows sum to 1.

    Raises:
        ValueError: No block was given, or only some rows of it; the blocks or the rows that were
            asked for are in another order; an unknown fusion, a residual outside [0, 1], a discard
            outside [0, 1), or a discard without a residual.
    """
    if not attentions:
        raise ValueError("rollout needs the attention of every block: return_attention=True")
    check_mix(residual, discard)
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
        mixed = mix(attention, fusion=fusion, residual=residual, discard=discard)
        flow = mixed if flow is None else mixed @ flow
    assert flow is not None
    return flow


def mix(attention: Tensor, *, fusion: Fusion, residual: float, discard: float) -> Tensor:
    """Ã of one block, (B, H, N, N) to (B, N, N): heads fused, residual added, rows of sum 1."""
    mixed = _discard_smallest(fuse(attention, fusion), discard)  # (B, H, N, N) -> (B, N, N)
    mixed = (1 - residual) * mixed
    mixed.diagonal(dim1=-2, dim2=-1).add_(residual)  # + residual · I, without making I
    if fusion != "mean" or discard:
        mixed = mixed / mixed.sum(dim=-1, keepdim=True)
    return mixed


def check_mix(residual: float, discard: float) -> None:
    """Raises a ValueError unless the two are as `rollout` wants them."""
    if not 0 <= residual <= 1:
        raise ValueError(f"residual is {residual}, expected a number from 0 to 1")
    if not 0 <= discard < 1:
        raise ValueError(f"discard is {discard}, expected a number from 0 to below 1")
    if discard and not residual:
        raise ValueError(
            f"discard is {discard} and residual is 0: a token whose weights are all discarded "
            "would be left with nothing; use a residual above 0"
        )


def fuse(attention: Tensor, fusion: Fusion) -> Tensor:
    """The heads, dimension 1, as one: their mean, or their largest or smallest values."""
    if fusion not in get_args(Fusion):
        raise ValueError(f"fusion is {fusion!r}: choose from {', '.join(get_args(Fusion))}")
    if fusion == "mean":
        return attention.mean(dim=1)
    return attention.amax(dim=1) if fusion == "max" else attention.amin(dim=1)


def _discard_smallest(fused: Tensor, part: float) -> Tensor:
    """(B, N, N) with the smallest entries of each matrix set to 0; see `discard`."""
    entries = fused.flatten(1)  # (B, N, N) -> (B, N·N)
    count = int(part * entries.shape[1])
    if not count:
        return fused
    smallest_kept = entries.kthvalue(count + 1, dim=1).values[:, None, None]  # (B, 1, 1)
    return fused.masked_fill(fused < smallest_kept, 0.0)
