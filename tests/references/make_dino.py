"""Features, tokens and attention maps of small DINO and DINOv2 models: convert_dino*.safetensors.

    PYTHONPATH=DINO:DINOV2 python -m tests.references.make_dino   (from the top of the repository)

DINO and DINOV2 are checked-out copies of

    https://github.com/facebookresearch/dino     at 7c446df5b9f45747937fb0d72314eb9f7b66930a
    https://github.com/facebookresearch/dinov2   at b8931f7bf91576930313be2c6d6af376033b35f0

which need torch, numpy and Pillow; xformers is not used. One file a model of `MODELS`, made of the
classes and with the arguments behind the repositories' own hub names, only smaller. Weights and
pictures are not stored: `seeded.py` makes them again from their names.

`tokens` are what the last norm gives, `output` is what the model returns: the class token after
the norm, or logits. `output_other` belongs to pictures of another shape than the position grid,
for which the models resize their positions. DINO returns its attention maps; those of DINOv2 are
torch's own attention once more, for the queries and keys that the model gave it, with an identity
as values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import vision_transformer as dino
from dinov2.hub.classifiers import _LinearClassifierWrapper
from dinov2.layers import MemEffAttention, NestedTensorBlock
from dinov2.models.vision_transformer import DinoVisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.references.seeded import described, foreign_weights, seeded

SEED = 2021
FOLDER = Path(__file__).parent
DINO = ("facebookresearch/dino", "7c446df5b9f45747937fb0d72314eb9f7b66930a")
DINOV2 = ("facebookresearch/dinov2", "b8931f7bf91576930313be2c6d6af376033b35f0")
SIZE = {"embed_dim": 32, "depth": 3, "num_heads": 2}


class Model(NamedTuple):
    """A model, where it is from, and what to show it: (B, channels, height, width)."""

    make: Callable[[], nn.Module]
    source: tuple[str, str]
    pictures: tuple[int, int, int, int]
    other: tuple[int, int, int, int] | None = None
    blocks: tuple[int, ...] = (0, 2)  # whose attention is stored


def dinov2(**options: Any) -> DinoVisionTransformer:
    """What the hub makes, of another size; `options` are DINOv2's."""
    hub = {
        "img_size": 84,
        "patch_size": 14,
        "init_values": 1.0,
        "ffn_layer": "mlp",
        "block_chunks": 0,
        "block_fn": partial(NestedTensorBlock, attn_class=MemEffAttention),
    }
    return DinoVisionTransformer(**(hub | SIZE | options))


def linear(layers: int) -> nn.Module:
    """The hub's classifier: class tokens of the last layers, 1 or 4, and mean of the patches."""
    head = nn.Linear((1 + layers) * SIZE["embed_dim"], 10)
    return _LinearClassifierWrapper(backbone=dinov2(depth=4), linear_head=head, layers=layers)


MODELS = {
    "dino": Model(
        partial(
            dino.VisionTransformer, img_size=[48], patch_size=8, mlp_ratio=4, qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), **SIZE,
        ),
        DINO,
        pictures=(2, 3, 48, 48),
        other=(2, 3, 40, 72),
    ),
    "dinov2": Model(dinov2, DINOV2, pictures=(2, 3, 84, 84), other=(2, 3, 70, 126)),
    "dinov2_registers": Model(
        partial(
            dinov2, num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0
        ),
        DINOV2,
        pictures=(2, 3, 84, 84),
        other=(2, 3, 56, 126),  # fewer rows than positions: there antialiasing shows
    ),
    "dinov2_chunked": Model(
        partial(dinov2, depth=4, block_chunks=2), DINOV2, pictures=(2, 3, 84, 84), blocks=(0, 3)
    ),
    "dinov2_swiglu": Model(
        partial(dinov2, ffn_layer="swiglufused"), DINOV2, pictures=(2, 3, 84, 84)
    ),
    "dinov2_linear": Model(partial(linear, 1), DINOV2, pictures=(2, 3, 84, 84)),
    "dinov2_linear4": Model(partial(linear, 4), DINOV2, pictures=(2, 3, 84, 84)),
}  # fmt: skip


def attention_weights(model: nn.Module, pictures: Tensor) -> list[Tensor]:
    """What softmax gave, (B, heads, N, N), block by block."""
    found = []
    attend = nn.functional.scaled_dot_product_attention

    def seen(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        identity = torch.eye(key.shape[-2]).expand(*key.shape[:-1], -1)
        found.append(attend(query, key, identity, **options))
        return attend(query, key, value, **options)

    def returned(_module: nn.Module, _inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        found.append(outputs[1])

    hooks = [
        module.register_forward_hook(returned)
        for module in model.modules()
        if isinstance(module, dino.Attention)
    ]
    with patch.object(nn.functional, "scaled_dot_product_attention", seen):
        model(pictures)
    for hook in hooks:
        hook.remove()
    return found


def normed_tokens(model: nn.Module, pictures: Tensor) -> Tensor:
    """(B, N, D): what the last norm gave."""
    found = []
    backbone = getattr(model, "backbone", model)
    with backbone.norm.register_forward_hook(lambda _module, _inputs, output: found.append(output)):
        model(pictures)
    return found[-1]


@torch.no_grad()
def make(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of one file."""
    case = MODELS[name]
    model = case.make().eval()
    weights = foreign_weights({key: t.shape for key, t in model.state_dict().items()}, SEED)
    model.load_state_dict(weights)
    pictures = {"pictures": seeded("pictures", case.pictures, SEED)}
    maps = attention_weights(model, pictures["pictures"])
    tensors = {
        "output": model(pictures["pictures"]),
        "tokens": normed_tokens(model, pictures["pictures"]),
    } | {f"attention.{index}": maps[index] for index in case.blocks}
    if case.other is not None:
        pictures["pictures_other"] = seeded("pictures_other", case.other, SEED)
        tensors["output_other"] = model(pictures["pictures_other"])
    repository, commit = case.source
    metadata = described(weights, SEED, pictures) | {
        "num_heads": str(SIZE["num_heads"]),
        "repository": f"https://github.com/{repository}",
        "commit": commit,
        "versions": json.dumps({name: version(name) for name in ("torch", "numpy")}),
        "made_by": "PYTHONPATH=DINO:DINOV2 python -m tests.references.make_dino",
    }
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata


if __name__ == "__main__":
    for name in MODELS:
        tensors, metadata = make(name)
        save_file(tensors, FOLDER / f"convert_{name}.safetensors", metadata=metadata)
