"""Gradients added up on the straight way from a baseline to the picture.

Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks" (arXiv:1703.01365), equation 1::

    IG(x) = (x - x') ⊙ ∫₀¹ ∂S_c/∂x (x' + α (x - x')) dα

where x' is the baseline. Completeness: the attributions of all pixels sum to S_c(x) - S_c(x'). The
integral is a sum over a few α, so they do so up to an error, which is returned: many steps make it
small, and a map whose error is not small beside the difference is not to be trusted. The paper adds
up α = 1/n, 2/n, …; here α and weights are those of Gauss and Legendre, more exact by far for the
same number of gradients. They are taken one after the other, with the memory of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers, fixed
from minivit.explain.methods.input_gradient import class_gradient, over_patches
from minivit.fields import is_whole
from minivit.precision import widen
from minivit.vit import VisionTransformer


class Integral(NamedTuple):
    """Integrated gradients, and how exact they are.

    Attributes:
        maps: (B, rows, cols), as `integrated_gradients` gives them.
        attributions: (B, C, height, width), the part of each value of the picture.
        difference: (B,) logit of the picture minus that of the baseline.
        error: (B,) sum of the attributions minus the difference: 0 for an exact integral.
    """

    maps: Tensor
    attributions: Tensor
    difference: Tensor
    error: Tensor


def integrated_gradients(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    steps: int = 16,
    baseline: float | Tensor = 0.0,
    signed: bool = False,
) -> Tensor:
    """Part of each patch in the difference of logits to a baseline: arXiv:1703.01365.

    It says what the picture has that the baseline lacks: what looks like the baseline gets nothing,
    be it the object. The number of steps is not checked; `integrate` returns the error beside it.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: Class; None: the predicted one.
        steps: Number of gradients, each a forward and a backward pass.
        baseline: Picture without anything to see: a number for every pixel, 0 being the mean colour
            after preprocessing; or a tensor that expands to the pictures.
        signed: Rule of `over_patches`; with True the values of a map sum to the difference.

    Returns:
        (B, rows, cols), logits; the mean a value of the picture, or with `signed` the sum.

    Raises:
        ValueError: No steps, a baseline of another shape; or as in `input_gradient`.
    """
    return integrate(model, images, target, steps=steps, baseline=baseline, signed=signed).maps


def integrate(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    steps: int = 16,
    baseline: float | Tensor = 0.0,
    signed: bool = False,
) -> Integral:
    """`integrated_gradients` with its completeness error; the same arguments.

    Raises:
        ValueError: As in `integrated_gradients`.
    """
    if not is_whole(steps, 1):
        raise ValueError(f"steps is {steps!r}, expected a whole number, at least 1")
    images = images.detach()
    start = _baseline(baseline, images)
    with fixed(model):
        logits = model(images)
        numbers = class_numbers(model, target, logits)
        ends = (widen(logits) - widen(model(start))).gather(
            1, numbers[:, None]
        )  # (B, classes) -> (B, 1)
    way = images - start
    total = torch.zeros_like(widen(images))
    for point, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        alpha = (float(point) + 1) / 2  # from -1 … 1 to 0 … 1, where weights sum to 1, not 2
        total += float(weight) / 2 * class_gradient(model, start + alpha * way, numbers)
    attributions = way * total
    difference = ends[:, 0]  # (B, 1) -> (B,)
    return Integral(
        maps=over_patches(attributions, model.patch_embed.patch_size, signed=signed),
        attributions=attributions,
        difference=difference,
        error=attributions.sum(dim=(1, 2, 3)) - difference,
    )


def _baseline(baseline: float | Tensor, images: Tensor) -> Tensor:
    """The baseline for each picture, (B, C, height, width)."""
    value = torch.as_tensor(baseline, dtype=images.dtype, device=images.device).detach()
    try:
        return value.expand_as(images)
    except RuntimeError:
        raise ValueError(
            f"the baseline is {tuple(value.shape)}, expected a number or what expands to the "
            f"pictures, {tuple(images.shape)}"
        ) from None
