"""Which weights move, how fast, and by which rule.

Parameters are sorted into groups: by the factor of their learning rate (0: they stay), by whether
they are decayed, and, with "muon", by whether they are a matrix inside a block.

Next: `minivit/training/run_folder.py`, what a run leaves behind.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from minivit.training.muon import Muon
from minivit.training.settings import Settings

_MATRIX = re.compile(r"(^|\.)(blocks|encoder|decoder)\.\d+\.")


def make_optimizers(
    module: nn.Module, settings: Settings, lr_scale: Callable[[str], float] = lambda _name: 1.0
) -> list[torch.optim.Optimizer]:
    """Optimizers for all parameters that are to move; the others are told to need no gradient.

    Every group keeps its highest rate under "highest_lr", which `set_rates` scales.

    Args:
        module: Module that is trained.
        settings: Rule, rate, decay.
        lr_scale: Function from a parameter's name to the factor of its learning rate.

    Raises:
        ValueError: No parameter moves.
    """
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        scale = lr_scale(name)
        parameter.requires_grad_(scale > 0)
        if scale == 0:
            continue
        matrix = settings.optimizer == "muon" and is_block_matrix(name, parameter)
        groups[matrix, scale, settings.decay_all or is_decayed(name, parameter)].append(parameter)
    if not groups:
        raise ValueError("nothing is trained: every weight stays as it is")

    def tables(matrices: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": parameters,
                "lr": settings.lr * scale,
                "highest_lr": settings.lr * scale,
                "weight_decay": settings.weight_decay if decayed else 0.0,
            }
            for (matrix, scale, decayed), parameters in groups.items()
            if matrix == matrices
        ]

    optimizers: list[torch.optim.Optimizer] = []
    if matrices := tables(True):
        optimizers.append(Muon(matrices, lr=settings.lr))
    if others := tables(False):
        optimizers.append(_torch_optimizer(others, settings))
    return optimizers


def _torch_optimizer(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    """An optimizer of torch in its fused form, one pass over all weights."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)
    betas = (0.9, settings.beta2)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=settings.lr, betas=betas, fused=True)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)


def set_rates(optimizers: list[torch.optim.Optimizer], fraction: float) -> None:
    """Gives every group this fraction of its highest rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * fraction


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether this is a weight matrix or kernel: no norm, bias, token or position."""
    return name.endswith("weight") and parameter.dim() > 1


def is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains this: a matrix inside a block, not inside a captioner's backbone."""
    return parameter.dim() == 2 and bool(_MATRIX.search(name)) and "backbone." not in name


def layer_lr_scale(name: str, depth: int, decay: float) -> float:
    """Layer-wise learning-rate decay (BEiT, arXiv:2106.08254, appendix H).

    ::

        head and last norm: 1      block i of L: decay^(L - i)      embedding: decay^(L + 1)

    Args:
        name: Name of a parameter of a ViT.
        depth: L, number of blocks of the ViT.
        decay: Factor from one layer to the one before.
    """
    if block := re.search(r"(^|\.)blocks\.(\d+)\.", name):
        return decay ** (depth - int(block[2]))
    embedding = ("patch_embed", "pos_embed", "cls_token", "dist_token", "reg_token", "norm_pre")
    if any(part in name.split(".") for part in embedding):
        return decay ** (depth + 1)
    return 1.0
