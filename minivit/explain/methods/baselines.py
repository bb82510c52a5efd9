"""Maps that know nothing of the model: what an explanation has to be better than.

A map of a picture with the thing in the middle is easy to get right without looking, and edges are
where things are (Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292, on maps
that are little else). A method that scores no better than these says nothing about the model.

With y and x the middle of a patch as shares of the picture's sides, from -½ to ½, and g the grey
values of its pixels::

    random   drawn evenly from 0 to 1
    centre   exp(-(y² + x²) / (2 width²))
    edges    mean over pixels of √((Sₓ * g)² + (S_y * g)²)        S: Sobel's kernels
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minivit.explain.chance import generators
from minivit.explain.conditions import Target
from minivit.fields import is_number
from minivit.precision import widen
from minivit.vit import VisionTransformer


def random(
    model: VisionTransformer, images: Tensor, target: Target = None, *, seed: int = 0
) -> Tensor:
    """Uniform random numbers, others for every picture, the same for a picture each time.

    It cannot tell anything: arXiv:1810.03292 asks what of a method is left beside such maps.

    Args:
        model: Model whose grid is filled.
        images: (B, C, height, width).
        target: Not looked at.
        seed: Seed, from which and from the picture the numbers are drawn.

    Returns:
        (B, rows, cols), from 0 to 1.

    Raises:
        ValueError: A seed that is not a whole number from 0.
    """
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    maps = torch.empty(len(images), *grid)
    for own, generator in zip(maps, generators(images, seed), strict=True):
        own.uniform_(generator=generator)
    return maps.to(images.device, widen(images).dtype)


def centre(
    model: VisionTransformer, images: Tensor, target: Target = None, *, width: float = 0.25
) -> Tensor:
    """A Gaussian blob in the middle, where people who take photos put things.

    It cannot tell one picture from another. The table of the pointing game has such a row too
    (arXiv:1608.00507).

    Args:
        model: Model whose grid is filled.
        images: (B, C, height, width).
        target: Not looked at.
        width: Standard deviation as a share of each side of the picture, so that the blob is as
            oblong as the picture.

    Returns:
        (B, rows, cols), the values in the middle of each patch; 1 in the middle of the picture.

    Raises:
        ValueError: A width that is not above 0.
    """
    if not is_number(width, 0) or not width:
        raise ValueError(f"width is {width!r}, expected a number above 0")
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    down, right = (
        ((torch.arange(count) + 0.5) / count - 0.5) / width for count in (rows, cols)
    )  # (rows,) and (cols,): deviations from the middle
    blob = torch.exp(-(down[:, None] ** 2 + right**2) / 2)  # (rows, cols)
    return blob.to(images.device, widen(images).dtype).repeat(len(images), 1, 1)


def edges(model: VisionTransformer, images: Tensor, target: Target = None) -> Tensor:
    """Strength of edges: length of the Sobel gradient of grey values, mean over a patch's pixels.

    Grey is the mean over channels of the input. Pixels beyond the border are those on it, so that
    the border is no edge. It cannot tell things from texture, nor what any model looks at: the
    edge detector of arXiv:1810.03292.

    Args:
        model: Model whose grid is filled.
        images: (B, C, height, width).
        target: Not looked at.

    Returns:
        (B, rows, cols); in the middle of a ramp 8 times the step from pixel to pixel.
    """
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    grey = widen(images.detach()).mean(dim=1, keepdim=True)  # (B, C, height, width) -> (B, 1, …)
    across = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).to(grey)
    kernels = torch.stack([across, across.mT])[:, None]  # (2, 1, 3, 3)
    slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernels)
    strength = slopes.square().sum(dim=1).sqrt()  # (B, 2, height, width) -> (B, height, width)
    return F.adaptive_avg_pool2d(strength, grid)  # (B, height, width) -> (B, rows, cols)
