"""The weights that a lesson looks at: of `make real` where they are, else the shipped ones."""

from __future__ import annotations

import minivit
from minivit import VisionTransformer
from weights_convert import real


def real_or_shipped() -> tuple[VisionTransformer, bool]:
    """The DINOv2 ViT-S/14 of `make real`, or the shipped ViT of the scenes; prints which one it is.

    Returns:
        The model in eval mode, and whether it is the real one.
    """
    path = real.path()
    if path is not None:
        model = minivit.load_model(path)
        print("Weights: DINOv2 ViT-S/14, trained on for saliency (make real)")
    else:
        model = minivit.load_model("scenes")
        print("Weights: the shipped ViT of the scenes (make real fetches a model of photos)")
    assert isinstance(model, VisionTransformer)
    return model, path is not None
