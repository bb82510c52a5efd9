"""The input gradient, averaged over noisy copies of the picture.

Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise" (arXiv:1706.03825)::

    M(x) = 1/n Σ ∂S_c/∂x (x + ε_i)       ε_i ~ N(0, σ²),   σ = noise · (max x - min x)

The gradients are averaged with their signs, and a patch's value is made of the mean. Some average
absolute values instead, in which the noise of two copies does not cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minivit.explain.chance import generators
from minivit.explain.conditions import Target, class_numbers, fixed
from minivit.explain.methods.input_gradient import class_gradient, over_patches
from minivit.fields import is_number, is_whole
from minivit.precision import widen
from minivit.vit import VisionTransformer


def smooth_gradient(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    noise: float = 0.15,
    samples: int = 16,
    seed: int = 0,
    signed: bool = False,
) -> Tensor:
    """Mean gradient of the class's logit by the pixels of noisy copies: arXiv:1706.03825.

    What the map shows lies as much in the noise as in the model: the class is explained on pictures
    that the model never sees. The memory is that of one copy of the batch.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: Class; None: the one that is predicted for the picture without noise.
        noise: Standard deviation as a share of the difference between the picture's largest and
            smallest value; the paper finds 0.1 to 0.2 good.
        samples: Number of copies.
        seed: Seed of the noise, which depends on it and on the picture alone.
        signed: Rule of `over_patches`.

    Returns:
        (B, rows, cols), logits per unit of the input.

    Raises:
        ValueError: A negative noise, no samples, a negative seed; or as in `input_gradient`.
    """
    if not is_number(noise, 0):
        raise ValueError(f"noise is {noise!r}, expected a number, at least 0")
    if not is_whole(samples, 1):
        raise ValueError(f"samples is {samples!r}, expected a whole number, at least 1")
    images = images.detach()
    with fixed(model):
        numbers = class_numbers(model, target, model(images))
    lowest, highest = (
        each(images, dim=(1, 2, 3), keepdim=True) for each in (torch.amin, torch.amax)
    )
    deviation = noise * (highest - lowest)  # (B, 1, 1, 1)
    chance = generators(images, seed)
    total = torch.zeros_like(widen(images))
    drawn = torch.empty(images.shape)
    for _ in range(samples):
        for own, generator in zip(drawn, chance, strict=True):
            own.normal_(generator=generator)
        total += class_gradient(model, images + deviation * drawn.to(images), numbers)
    return over_patches(total / samples, model.patch_embed.patch_size, signed=signed)
