"""Muon: momentum whose matrices are made orthogonal before each step.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon/), with the step size of Liu et al. 2025
(arXiv:2502.16982, equation 4), which makes a learning rate for AdamW fit here too::

    M = μ M + (1 - μ) G          G: the gradient of one weight matrix
    O = nearest orthogonal matrix to (1 - μ) G + μ M,  by five Newton-Schulz steps
    W = W - lr · (λ W + 0.2 √max(rows, cols) · O)

On scenes Muon needs half of AdamW's pictures to leave the plateau where colours are known and
shapes are not. It trains the matrices inside the blocks only; AdamW trains the rest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steepest at 0 that still stays near 1


def orthogonalize(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, to about 30 % in each singular value.

    Newton-Schulz iteration: an odd polynomial of a matrix acts on its singular values alone, and
    this one drives all of them towards 1. Nothing but matrix products, so it runs in bfloat16.

    Args:
        matrices: (B, rows, cols).
        steps: Number of iterations.

    Returns:
        (B, rows, cols), in the dtype of `matrices`.
    """
    a, b, c = _QUINTIC
    x = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.mT  # (B, rows, cols) -> (B, rows, rows)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrices.shape[-2] > matrices.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """The optimizer of this file, for weight matrices only.

    Args:
        parameters: Matrices (rows, cols), or groups of them with options of their own.
        lr: Learning rate, of the size that AdamW would get.
        momentum: μ.
        weight_decay: λ, decoupled as in AdamW.

    Raises:
        ValueError: A parameter that is not a matrix.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() != 2:
                    raise ValueError(f"Muon trains matrices, found {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():  # one batched product for all of a shape
                directions = orthogonalize(
                    torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                )
                scale = 0.2 * math.sqrt(max(shape))
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The direction of a parameter before it is made orthogonal; moves its M."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)
