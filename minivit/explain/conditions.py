"""Under which conditions every method computes: the model in eval mode, and left as it was.

A method asks the model, and changes nothing: weights, their `.grad`, hooks, training flags,
`requires_grad`, autograd's mode and the random state are after it what they were before, also after
an error inside. So methods get gradients from `torch.autograd.grad`, which writes no `.grad`, and
chance from a generator of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minivit.precision import widen
from minivit.vit import VisionTransformer

Target = int | str | Sequence[int | str] | Tensor | np.ndarray[Any, Any] | None
"""The class to explain, by number or label: one for all, or one a picture; None: predicted."""


@contextlib.contextmanager
def fixed(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Has the model compute as in use, without dropout, and sets it back at the end.

    Weights are constants within: where gradients are wanted, they are those of activations, and a
    graph begins where a tensor that requires them enters.

    Args:
        model: Model in any mode.
        gradients: Whether autograd records what is computed within.

    Raises:
        ValueError: Gradients are wanted under `torch.inference_mode`, which cannot record, or of a
            model that was loaded under it.
    """
    if gradients and torch.is_inference_mode_enabled():
        raise ValueError(
            "this method needs gradients, and torch.inference_mode records none: call it outside; "
            "under torch.no_grad it works"
        )
    if gradients and any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            "this method needs gradients, and the model was loaded under torch.inference_mode, "
            "whose tensors take no part in them: load it outside"
        )
    training = [module for module in model.modules() if module.training]
    # Without gradients nothing is recorded, whatever the weights require.
    recorded = [weight for weight in model.parameters() if gradients and weight.requires_grad]
    try:
        for module in training:
            module.training = False
        for weight in recorded:
            weight.requires_grad_(False)
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for module in training:
            module.training = True
        for weight in recorded:
            weight.requires_grad_(True)


def class_numbers(model: VisionTransformer, target: Target, logits: Tensor) -> Tensor:
    """The number of the class to explain, for each picture.

    Args:
        model: Model with a head; its labels are the names that `target` may use.
        target: As in `Target`.
        logits: (B, classes) of the pictures, for the predicted class.

    Returns:
        (B,) int64.

    Raises:
        ValueError: The model has no head; no such number or label; or not one a picture.
    """
    count, num_classes = logits.shape
    if not model.config.num_classes:
        raise ValueError("the model has no head, so there is no class to explain")
    if target is None:
        return logits.argmax(dim=1)
    if isinstance(target, (Tensor, np.ndarray)):
        target = target.tolist()
    if isinstance(target, Iterable) and not isinstance(target, str):
        numbers = [_number(model, each) for each in target]
    else:
        numbers = [_number(model, target)] * count
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} classes for {count} pictures: give one, or one a picture")
    for number in numbers:
        if not 0 <= number < num_classes:
            raise ValueError(f"class {number}: choose from 0 to {num_classes - 1}")
    return torch.tensor(numbers, dtype=torch.int64, device=logits.device)


def log_probability(logits: Tensor, numbers: Tensor) -> Tensor:
    """Log-probability of each picture's class, in float32 at least.

    Args:
        logits: (B, classes).
        numbers: (B,) numbers of the classes, from `class_numbers`.

    Returns:
        (B,).
    """
    return widen(logits).log_softmax(dim=1).gather(1, numbers[:, None])[:, 0]


def _number(model: VisionTransformer, name: object) -> int:
    """Number of a class, given by number or label."""
    if isinstance(name, Integral) and not isinstance(name, bool):
        return int(name)
    if not isinstance(name, str):
        raise ValueError(f"class {name!r}: expected a whole number or a label")
    labels = model.labels or ()
    if name not in labels:
        shown = ", ".join(labels[:8]) + ", …" * (len(labels) > 8)
        raise ValueError(
            f"no class is called {name!r}: " + (f"choose from {shown}" if labels else "use numbers")
        )
    if labels.count(name) > 1:
        raise ValueError(f"{labels.count(name)} classes are called {name!r}: use numbers")
    return labels.index(name)
