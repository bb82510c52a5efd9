"""Data sets held in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset


def load_all(
    dataset: Dataset[tuple[torch.Tensor, ...]],
    *,
    workers: int = 0,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Every sample of a data set, stacked: drawn once instead of once an epoch.

    Args:
        dataset: Items are tuples of tensors of one shape each.
        workers: Processes that make the samples; 0: this one.
        on_batch: Called with the number of samples that have come in.

    Returns:
        One tensor (n, …) for each entry of an item.
    """
    batches: list[list[torch.Tensor]] = []
    for batch in DataLoader(dataset, batch_size=256, num_workers=workers):
        batches.append(batch)
        if on_batch is not None:
            on_batch(len(batch[0]))
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
