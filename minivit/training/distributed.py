"""Several processes that train one model.

`torchrun --nproc_per_node N train.py …` starts the processes and numbers them in the environment
(https://docs.pytorch.org/docs/stable/elastic/run.html). Every process holds the whole model and
computes a part of each step; DistributedDataParallel adds up the gradients. Only process 0 prints
and writes. Without torchrun there is one process, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
        device: Device of this process.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of these values over all processes, the same in each of them."""
        if self.count == 1:
            return values
        summed = values.to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(values.device)

    def agree(self, value: Any) -> Any:
        """The value of the first process, in all of them; the others' values are ignored."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def shard(self, length: int) -> range:
        """Numbers of the samples that this process evaluates; every sample has one process.

        Args:
            length: Number of all samples.
        """
        return range(self.rank, length, self.count)


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Joins the other processes of torchrun, if there are any, until the end of the block.

    Args:
        device: Device that the user chose; of several GPUs each process takes its own.

    Raises:
        OSError: Another process is gone.
        ValueError: More processes on this machine than it has GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        local_rank, num_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= num_gpus:
            raise ValueError(
                f"process {local_rank} of this machine has no GPU: there are {num_gpus}; use "
                f"--nproc_per_node {num_gpus}"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    importlib.import_module("torch.distributed.nn")  # before the group exists: see `_leave`
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    except RuntimeError as error:
        if not any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
            raise
        raise OSError(
            "another process of this training ended; what it said stands above; --resume goes on "
            "from the last saved state"
        ) from error
    finally:
        _leave()


def _leave() -> None:
    """Ends the group and its threads.

    A thread of gloo that still lets go of its last tensors while Python ends aborts the process
    after a good training (seen in torch 2.13, now and then on a busy machine). The threads end with
    the last reference to the group. DistributedDataParallel holds one, in a cycle; and
    torch.distributed.nn, which it imports, makes the group of that moment the default argument of
    ten functions: imported before, they hold none.
    """
    gc.collect()
    dist.destroy_process_group()


def make_repeatable(device: torch.device) -> None:
    """Has a GPU give the same bits for the same inputs, as a CPU does by itself."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
