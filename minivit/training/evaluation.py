"""Held-out samples: every one counted once, and in fp32.

The same weights therefore have the same figures, with any number of processes.
"""

from __future__ import annotations

import torch
from torch import nn

from minivit.training.distributed import Processes
from minivit.training.task import Data, Task, consecutive


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, data: Data, *, processes: Processes, batch_size: int = 250
) -> tuple[float, float]:
    """Mean loss and share of right answers, in fp32.

    Args:
        task: Task that measures.
        model: Model of the task or its moving average; put into eval mode here.
        data: Samples, each of which counts once.
        processes: This process and the others.
        batch_size: Samples at once.

    Returns:
        (loss a term, accuracy from 0 to 1).
    """
    model.eval()
    pieces = consecutive(processes.shard(len(data)), batch_size)
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in data.load(0, pieces):
        sums += task.measure(model, batch).cpu()
    loss, right, count = processes.total(sums).tolist()
    return loss / max(1, count), right / max(1, count)
