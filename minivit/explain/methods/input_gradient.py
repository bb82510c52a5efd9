"""The gradient of a class's logit by the pixels: which pixels would change it, were they changed.

Simonyan et al. 2013, "Deep Inside Convolutional Networks" (arXiv:1312.6034), section 3::

    w = ∂S_c / ∂x            S_c: logit of class c, before softmax

They show the largest |w| of the three channels of each pixel; others the sum or the mean over
channels, or w ⊙ x (arXiv:1605.01713), the first-order estimate of what the logit would
lose if the pixel were 0, which after preprocessing is the mean colour. Here a patch, not a pixel,
gets a value, by one of two rules; see `over_patches`, which the other gradients of pixels use too.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from minivit.explain.conditions import Target, fixed
from minivit.explain.methods.readout import class_score
from minivit.explain.states import logits_of_states
from minivit.precision import widen
from minivit.vit import VisionTransformer


def input_gradient(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    times_input: bool = False,
    signed: bool = False,
) -> Tensor:
    """Gradient of the class's logit by the pixels of each patch: arXiv:1312.6034.

    It knows very small changes only: a pixel that the class depends on, but in a saturated way, has
    a gradient near 0. One backward pass through all blocks makes it noisy.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: Class; None: the predicted one.
        times_input: Whether each gradient is multiplied by its pixel.
        signed: Rule of `over_patches`.

    Returns:
        (B, rows, cols), logits per unit of the input; with `times_input` logits.

    Raises:
        ValueError: As in `fixed` and `class_numbers`.
    """
    gradient = class_gradient(model, images, target)
    values = gradient * images.detach() if times_input else gradient
    return over_patches(values, model.patch_embed.patch_size, signed=signed)


def class_gradient(model: VisionTransformer, images: Tensor, target: Target) -> Tensor:
    """Gradient of each picture's logit by its pixels, (B, C, height, width) in float32 at least."""
    with fixed(model, gradients=True):
        # A copy, not a view: a tensor made under torch.inference_mode takes no part in a graph.
        pixels = images.detach().clone().requires_grad_()
        logits = logits_of_states(model, [model.embed(pixels)])
        (gradient,) = torch.autograd.grad(class_score(model, target, logits), pixels)
    return widen(gradient)


def over_patches(values: Tensor, patch_size: tuple[int, int], *, signed: bool) -> Tensor:
    """A number a patch of a number for each channel of each pixel.

    Args:
        values: (B, C, height, width).
        patch_size: (height, width) of a patch.
        signed: False: mean of the absolute values over channels and pixels, so that a patch matters
            where its pixels do, be it for the class or against it. True: the sum of the values,
            where pixels for and against cancel: it keeps sums (completeness).

    Returns:
        (B, rows, cols).
    """
    high, wide = patch_size
    by_patch = rearrange(
        values, "b c (rows h) (cols w) -> b rows cols (c h w)", h=high, w=wide
    )  # (B, C, height, width) -> (B, rows, cols, C·h·w)
    return by_patch.sum(dim=-1) if signed else by_patch.abs().mean(dim=-1)
