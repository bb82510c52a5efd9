"""The way home: a minivit model in timm's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from minivit.checkpoint import load_model
from minivit.files import replacing
from minivit.vit import VisionTransformer
from weights_convert.reading import ConvertError


def export(
    model: VisionTransformer | str | os.PathLike[str], output: str | os.PathLike[str]
) -> dict[str, Tensor]:
    """Writes a model with timm's names, so that other people's code can load it.

    A .safetensors file carries minivit's description in its header besides, so that `convert`
    brings the same model back bit for bit; other endings are written by torch.save.

    Args:
        model: A model or the path of a checkpoint.
        output: The file to write, `.safetensors`, `.pth`, `.pt` or `.bin`.

    Returns:
        The tensors by timm's names.

    Raises:
        ConvertError: A model that timm's VisionTransformer cannot be.
        OSError: The file cannot be written.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_model(model, dtype=None, expected=VisionTransformer)
    config = model.config
    for wrong, what in (
        (config.pooling == "cls_and_mean", "a head on class token and patch mean"),
        (config.representation_dim, "a tanh layer before the head"),
        (config.pos_embed == "sine", "sine positions"),
    ):
        if wrong:
            raise ConvertError(f"timm's VisionTransformer has no {what}; minivit's file keeps it")
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    description = {
        "config": config.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "labels": model.labels,
    }
    with replacing(output) as temporary:
        if Path(output).suffix == ".safetensors":
            metadata = {"format": "pt", "minivit_export": json.dumps(description)}
            save_file(tensors, temporary, metadata=metadata)
        else:
            torch.save(tensors, temporary)
    return tensors
