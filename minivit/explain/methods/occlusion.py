"""How much less likely the class becomes when a patch cannot be seen.

Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901),
section 4.2, slide a grey square over the picture. A grey square is something to see too, and a
Vision Transformer need not be shown one: the token of a patch can be left out
(`minivit/explain/kept.py`). Both are here, and a blurred square, which keeps the colours::

    value of a window = log p_c(picture) - log p_c(picture without the window)
    value of a patch  = mean of the values of the windows that cover it

As each patch is embedded by itself, a picture with a square in it is never made: its tokens are the
picture's, and inside the square those of the grey or blurred picture.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from minivit.explain.conditions import Target, class_numbers, fixed, log_probability
from minivit.explain.kept import keep_patches
from minivit.explain.states import logits_of_states
from minivit.fields import is_number, is_whole
from minivit.precision import widen
from minivit.vit import VisionTransformer

Filling = Literal["removed", "grey", "blurred"]


def occlusion(
    model: VisionTransformer,
    images: Tensor,
    target: Target = None,
    *,
    filling: Filling = "removed",
    window: int = 1,
    blur: float = 1.0,
    batch_size: int = 32,
) -> Tensor:
    """Drop of the class's log-probability when patches cannot be seen: arXiv:1311.2901.

    What two patches show alike is missed by neither when one of them is hidden: a window as large
    as the thing finds it, a single patch may not. Negative values are patches that speak against
    the class. The cost is a forward pass a window, of a few tokens less when they are removed.

    Args:
        model: Vision Transformer with a head.
        images: (B, C, height, width).
        target: Class; None: the predicted one.
        filling: What is seen instead of a window: nothing, its tokens being left out; grey, which
            is 0 in the input, the mean colour of preprocessing; or the blurred picture.
        window: Side of the window in patches; windows lie inside the picture, at every place.
        blur: Standard deviation of the blur in sides of a patch.
        batch_size: Number of windows that go through the model at once.

    Returns:
        (B, rows, cols), natural logarithms, in float32 at least.

    Raises:
        ValueError: An unknown filling, a window that is larger than the picture or would leave no
            patch to a model that pools over them, a bad number; or as in `class_numbers`.
    """
    _check(filling, window, blur, batch_size)
    images = images.detach()
    with fixed(model):
        tokens = model.embed(images)  # (B, C, height, width) -> (B, N, D)
        rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
        covered = _windows(rows, cols, window).to(tokens.device)  # (W, rows·cols)
        everything = window * window == rows * cols
        if filling == "removed" and everything and model.config.pooling != "cls":
            raise ValueError(
                f"window is {window}, which leaves none of the {rows} x {cols} patches, and the "
                "head sees the mean over patches: use a smaller one"
            )
        others = (
            None if filling == "removed" else model.embed(_filled(model, images, filling, blur))
        )
        logits = logits_of_states(model, [tokens])
        numbers = class_numbers(model, target, logits)
        whole = log_probability(logits, numbers)  # (B,)
        if not len(whole):
            return whole.new_zeros(0, rows, cols)
        left = [
            log_probability(
                logits_of_states(model, [_hide(model, tokens, others, pictures, covered[windows])]),
                numbers[pictures],
            )
            for pictures, windows in _batches(len(images), len(covered), batch_size, tokens.device)
        ]
        drops = whole[:, None] - torch.cat(left).view(len(images), len(covered))  # (B·W,) -> (B, W)
        share = covered / covered.sum(dim=0)  # of each window in the mean of a patch
        return (drops @ share.to(drops.dtype)).view(-1, rows, cols)  # (B, W) -> (B, rows, cols)


def _check(filling: Filling, window: int, blur: float, batch_size: int) -> None:
    if filling not in get_args(Filling):
        raise ValueError(f"filling is {filling!r}: choose from {', '.join(get_args(Filling))}")
    for name, value in (("window", window), ("batch_size", batch_size)):
        if not is_whole(value, 1):
            raise ValueError(f"{name} is {value!r}, expected a whole number, at least 1")
    if not is_number(blur, 0) or not blur:
        raise ValueError(f"blur is {blur!r}, expected a number above 0")


def _windows(rows: int, cols: int, window: int) -> Tensor:
    """(W, rows·cols) boolean: which patches each window covers, from the top left, row by row."""
    if window > min(rows, cols):
        raise ValueError(
            f"window is {window}, and the picture has {rows} rows x {cols} cols of patches: use at "
            f"most {min(rows, cols)}"
        )
    row, col = torch.arange(rows)[:, None], torch.arange(cols)
    return torch.stack(
        [
            ((row >= top) & (row < top + window) & (col >= left) & (col < left + window)).flatten()
            for top in range(rows - window + 1)
            for left in range(cols - window + 1)
        ]
    )


def _batches(
    num_pictures: int, num_windows: int, size: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Numbers of picture and window, each pair once, in batches."""
    numbers = torch.arange(num_pictures * num_windows, device=device)
    return [(batch // num_windows, batch % num_windows) for batch in torch.split(numbers, size)]


def _hide(
    model: VisionTransformer,
    tokens: Tensor,
    others: Tensor | None,
    pictures: Tensor,
    covered: Tensor,
) -> Tensor:
    """Tokens of chosen pictures, in each of them a window left out or filled with others.

    Args:
        model: Model whose `embed` gave the tokens.
        tokens: (B, N, D).
        others: (B, N, D) tokens of the grey or blurred pictures; None: leave out.
        pictures: (b,) numbers of the pictures.
        covered: (b, rows·cols) boolean, True where the window is.

    Returns:
        (b, N, D), or fewer tokens.
    """
    if others is None:
        # A window covers the same number of patches wherever it lies.
        kept = (~covered).nonzero()[:, 1].view(len(covered), -1)  # (b, rows·cols) -> (b, K)
        return keep_patches(model, tokens[pictures], kept)
    hidden = F.pad(covered, (model.num_prefix_tokens, 0))  # (b, rows·cols) -> (b, N)
    return torch.where(hidden[..., None], others[pictures], tokens[pictures])


def _filled(model: VisionTransformer, images: Tensor, filling: Filling, blur: float) -> Tensor:
    """The pictures all grey, or all blurred."""
    if filling == "grey":
        return torch.zeros_like(images)
    high, wide = model.patch_embed.patch_size
    return _smooth(_smooth(images, blur * high).mT, blur * wide).mT


def _smooth(images: Tensor, deviation: float) -> Tensor:
    """Pictures blurred from top to bottom by a Gaussian, their edges going on beyond them."""
    radius = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-radius, radius + 1, dtype=widen(images).dtype, device=images.device)
    kernel = torch.exp(-((offsets / deviation) ** 2) / 2)
    kernel = (kernel / kernel.sum()).to(images.dtype)[:, None]  # (2·radius + 1, 1)
    beyond = F.pad(images, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(beyond.flatten(0, 1)[:, None], kernel[None, None]).reshape(images.shape)
