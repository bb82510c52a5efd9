"""How alike the outputs of the class token and of each patch are: no attention, no gradient.

::

    map_j = cos(y_class, y_j)        y = tokens after the last block and norm
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from minivit.explain.conditions import Target, fixed
from minivit.explain.methods.readout import to_maps
from minivit.precision import widen
from minivit.vit import VisionTransformer


def class_similarity(model: VisionTransformer, images: Tensor, target: Target = None) -> Tensor:
    """Cosine of the class token's output and each patch's.

    It says which places ended up with what the class token ended up with. That is no proof that it
    came from there: patches can hold a summary of the picture too, and often do in background.

    Args:
        model: Vision Transformer with a class token.
        images: (B, C, height, width).
        target: Not looked at.

    Returns:
        (B, rows, cols), from -1 to 1.

    Raises:
        ValueError: The model has no class token.
    """
    if not model.config.class_token:
        raise ValueError("the model has no class token, whose output the patches are held against")
    with fixed(model):
        tokens = widen(model.encode(images))  # (B, C, height, width) -> (B, N, D)
    return to_maps(model, images, F.cosine_similarity(tokens[:, :1], tokens, dim=-1))
