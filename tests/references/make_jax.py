"""Logits, tokens and attention maps of small ViTs in Flax: convert_jax*.safetensors.

    PYTHONPATH=VISION_TRANSFORMER python -m tests.references.make_jax    (from the top)

VISION_TRANSFORMER is a checked-out copy of

    https://github.com/google-research/vision_transformer
    at c6de1e5378c9831a8477feb30994971bdc409e46

of which `vit_jax/models_vit.py` alone is used. It needs jax, flax and ml_collections (on a CPU),
and this script torch and safetensors. One file a model of `MODELS`. Weights and pictures are not
stored: `seeded.py` makes them again from their names. The pictures are stored as (B, 3, height,
width) like everywhere else here, and shown to Flax as (B, height, width, 3).

The weights have the names and shapes that a published .npz file has. Those files are older than
today's Flax, which counts submodules class by class: the name `LayerNorm_2` of the files is
`LayerNorm_1` now. `jax_new` has today's names, the other files the published ones, and Flax's own
`convert_pre_linen` reads them, as it does in the repository's `checkpoint.load`.

`tokens` are what `encoder_norm` gives, and the attention maps are what Flax itself records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from flax import linen, traverse_util
from flax.training.checkpoints import convert_pre_linen
from ml_collections import ConfigDict
from safetensors.torch import save_file
from torch import Tensor
from vit_jax.models_vit import VisionTransformer

from tests.references.seeded import described, foreign_weights, seeded

SEED = 2021
FOLDER = Path(__file__).parent
BLOCKS = (0, 1)  # whose attention is stored
HEADS = 2
PUBLISHED = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}  # today's name: that of the published files


class Model(NamedTuple):
    """What differs between the models, and what to show them: (B, channels, height, width)."""

    classifier: str = "token"
    representation_size: int | None = None
    published_names: bool = True
    pictures: tuple[int, int, int, int] = (2, 3, 32, 48)


MODELS = {
    "jax": Model(),
    "jax_new": Model(published_names=False),
    "jax_pre_logits": Model(representation_size=24),
    "jax_gap": Model(classifier="gap"),
}


def vision_transformer(case: Model) -> VisionTransformer:
    """A ViT as the repository's configurations describe it, with 2 blocks."""
    return VisionTransformer(
        num_classes=10,
        patches=ConfigDict({"size": (8, 8)}),
        hidden_size=32,
        transformer=ConfigDict({"num_layers": 2, "mlp_dim": 64, "num_heads": HEADS}),
        classifier=case.classifier,
        representation_size=case.representation_size,
    )


def published(name: str) -> str:
    """The name that today's `name` has in the published files."""
    return re.sub("|".join(PUBLISHED), lambda found: PUBLISHED[found[0]], name)


def tree(weights: dict[str, Tensor], published_names: bool) -> dict[str, Any]:
    """The nested parameters of today's Flax, of weights by their flat names."""
    flat = {name: tensor.numpy() for name, tensor in weights.items()}
    nested = traverse_util.unflatten_dict(flat, sep="/")
    return convert_pre_linen(nested) if published_names else nested


def record_attention(
    method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any], context: Any
) -> Any:
    """Has every attention layer keep what its softmax gave; calls all else as it was called."""
    is_attention = isinstance(context.module, linen.MultiHeadDotProductAttention)
    if is_attention and context.method_name == "__call__":
        options = options | {"sow_weights": True}
    return method(*arguments, **options)


def run(model: VisionTransformer, parameters: dict[str, Any], pictures: Any) -> dict[str, Tensor]:
    """Output, tokens and attention maps."""
    with linen.intercept_methods(record_attention):
        output, state = model.apply(
            {"params": parameters},
            pictures,
            train=False,
            capture_intermediates=lambda module, _method: module.name == "encoder_norm",
            mutable=["intermediates"],
        )
    kept = state["intermediates"]["Transformer"]
    found = {"output": output, "tokens": kept["encoder_norm"]["__call__"][0]}
    for index in BLOCKS:
        attention = kept[f"encoderblock_{index}"]["MultiHeadDotProductAttention_0"]
        found[f"attention.{index}"] = attention["attention_weights"][0]
    return {name: torch.from_numpy(np.array(array)) for name, array in found.items()}


def make(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of one file."""
    case = MODELS[name]
    model = vision_transformer(case)
    pictures = seeded("pictures", case.pictures, SEED)
    shown = pictures.permute(0, 2, 3, 1).contiguous().numpy()  # (B, 3, H, W) -> (B, H, W, 3)
    initial = model.init(jax.random.key(0), shown, train=False)["params"]
    flat = traverse_util.flatten_dict(initial, sep="/")
    shapes = {key: array.shape for key, array in flat.items()}
    if case.published_names:
        shapes = {published(key): shape for key, shape in shapes.items()}
    weights = foreign_weights(shapes, SEED)
    tensors = run(model, tree(weights, case.published_names), shown)
    packages = ("jax", "flax", "ml_collections", "numpy")
    metadata = described(weights, SEED, {"pictures": pictures}) | {
        "num_heads": str(HEADS),
        "repository": "https://github.com/google-research/vision_transformer",
        "commit": "c6de1e5378c9831a8477feb30994971bdc409e46",
        "versions": json.dumps({name: version(name) for name in packages}),
        "made_by": "PYTHONPATH=VISION_TRANSFORMER python -m tests.references.make_jax",
    }
    return tensors, metadata


if __name__ == "__main__":
    for name in MODELS:
        tensors, metadata = make(name)
        save_file(tensors, FOLDER / f"convert_{name}.safetensors", metadata=metadata)
