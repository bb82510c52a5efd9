"""What a model is shown of a picture, and what is said of both, for the commands that draw photos.

Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from minivit.weights import SHIPPED, weights_title

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from minivit.preprocess import Preprocess
    from minivit.vit import VisionTransformer

MOST_TIMES = 32  # as many patches as the model was made for: a panorama of 32:1


def whole_photo(model: VisionTransformer) -> Preprocess:
    """The model's transform without its crop: as many patches as the photo's shape asks for."""
    return replace(
        model.preprocess,
        mode="fit_shortest",
        crop_fraction=1.0,
        multiple_of=math.lcm(*model.config.patch_size),
    )


def shipped_remark(weights: Path) -> str:
    """Words behind the name of a figure that the shipped weights drew; "" for other weights."""
    shipped = weights in SHIPPED.values()
    return f"drawn by {weights_title(weights)}" if shipped else ""


def check_cost(
    model: VisionTransformer, preprocess: Preprocess, photo: Image.Image, *, all_maps: bool = False
) -> None:
    """Refuses a photo that becomes far more patches than the model was made for, before it does.

    The work of attention grows with the square of their number: a strip of 100:1, shown as a whole,
    takes ten thousand times as long as a photo, and nobody would know why nothing happens.

    Args:
        model: Model that is to see the photo.
        preprocess: Transform that it will be seen through.
        photo: Photo to be shown.
        all_maps: Whether the maps of all heads and tokens are kept, which takes memory.

    Raises:
        BadImageError: The patches are more than `MOST_TIMES` as many, or their maps do not fit into
            the free memory.
    """
    from minivit.explain.free_memory import require_memory
    from minivit.preprocess import BadImageError

    patch_height, patch_width = model.config.patch_size
    width, height = preprocess.view_size(*photo.size)
    rows, cols = height // patch_height, width // patch_width
    usual = max(
        math.prod(model.grid_size),
        math.prod(model.preprocess.image_size) // (patch_height * patch_width),
    )
    times = rows * cols / usual
    if times > MOST_TIMES:
        raise BadImageError(
            f"a photo of {photo.width} x {photo.height} becomes {rows:,} x {cols:,} patches, "
            f"{times:,.0f} times as many as the model was made for, and attention would take about "
            f"{times**2:,.0f} times as long: crop the photo (at most {MOST_TIMES} times)"
        )
    if all_maps:
        config = model.config
        needed = 4 * config.depth * config.num_heads * (rows * cols + model.num_prefix_tokens) ** 2
        try:
            require_memory(
                needed,
                next(model.parameters()).device,
                what=f"the maps of {rows:,} x {cols:,} patches",
                advice="crop the photo",
            )
        except ValueError as error:
            raise BadImageError(str(error)) from None


def predicted_label(model: VisionTransformer, logits: Tensor) -> str:
    """A line with the likeliest label and its probability; "" when classes have no names."""
    if not model.labels:
        return ""
    probability, best = logits.float().softmax(dim=-1).max(dim=-1)
    return f"\npredicted: {model.labels[int(best)]} ({float(probability):.1%})"
