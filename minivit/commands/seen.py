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
    from torch import Tensor

    from minivit.preprocess import Preprocess
    from minivit.vit import VisionTransformer


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


def predicted_label(model: VisionTransformer, logits: Tensor) -> str:
    """A line with the likeliest label and its probability; "" when classes have no names."""
    if not model.labels:
        return ""
    probability, best = logits.float().softmax(dim=-1).max(dim=-1)
    return f"\npredicted: {model.labels[int(best)]} ({float(probability):.1%})"
