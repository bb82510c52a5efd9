"""Logits, tokens and attention maps of small timm models: vit_*.safetensors.

    python -m tests.references.make_vit        (from the top of the repository; needs timm)

One file a model of `MODELS`. Weights and pictures are not stored: `seeded.py` makes them again from
their names. All pictures are 3:2. Attention maps are what leaves the softmax in timm's own explicit
attention, caught at the dropout behind it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from timm.layers import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.references.seeded import fingerprint, seeded, seeded_weights

SEED = 2021
FOLDER = Path(__file__).parent


class Model(NamedTuple):
    """A timm model, and what to show it: (B, channels, height, width)."""

    make: Callable[[], nn.Module]
    pictures: tuple[int, int, int, int] = (2, 3, 32, 48)
    blocks: tuple[int, ...] = (0, 1)  # whose attention is stored


def small(**options: Any) -> Callable[[], nn.Module]:
    """A ViT of two blocks; `options` are timm's."""
    defaults = {
        "img_size": (32, 48),
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 10,
    }
    return partial(VisionTransformer, **(defaults | options))


registers = partial(
    small, reg_tokens=3, no_embed_class=True, init_values=0.1, dynamic_img_size=True
)  # as timm writes DINOv2 with registers

MODELS = {
    "class_token": Model(small()),
    "distilled": Model(
        partial(timm.create_model, "deit_tiny_distilled_patch16_224", img_size=(64, 96)),
        pictures=(2, 3, 64, 96),
        blocks=(0, 6, 11),
    ),
    "registers": Model(registers()),
    "registers_larger": Model(registers(img_size=(24, 24)), pictures=(2, 3, 48, 72)),
    "registers_smaller": Model(registers(img_size=(80, 80)), pictures=(2, 3, 32, 48)),
    "mean_pooling": Model(small(global_pool="avg")),
    "no_class_token": Model(small(global_pool="avg", class_token=False, fc_norm=False)),
    "clip": Model(
        small(pre_norm=True, act_layer="quick_gelu", norm_layer=partial(LayerNorm, eps=1e-5))
    ),
    "features": Model(  # no head; grey pictures; patches that are not square
        small(
            patch_size=(8, 4), in_chans=1, num_classes=0, qkv_bias=False, act_layer="gelu_tanh",
            mlp_ratio=2, embed_dim=36, num_heads=3,
        ),
        pictures=(1, 1, 32, 48),
    ),
}  # fmt: skip


def attention_maps(model: nn.Module) -> dict[int, Tensor]:
    """A dictionary that each forward pass fills with the attention weights of every block."""
    found: dict[int, Tensor] = {}
    for index, block in enumerate(model.blocks):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda _module, _inputs, output, index=index: found.__setitem__(index, output)
        )
    return found


@torch.no_grad()
def make(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of one file."""
    case = MODELS[name]
    model = case.make().eval()
    weights = seeded_weights({key: t.shape for key, t in model.state_dict().items()}, SEED)
    model.load_state_dict(weights)
    pictures = seeded("pictures", case.pictures, SEED)
    maps = attention_maps(model)
    tensors = {"logits": model(pictures), "tokens": model.forward_features(pictures)}
    tensors |= {f"attention.{index}": maps[index] for index in case.blocks}
    metadata = {
        "seed": str(SEED),
        "weights": fingerprint(weights),
        "pictures": fingerprint({"pictures": pictures}),
        "versions": json.dumps({name: version(name) for name in ("timm", "torch", "numpy")}),
        "made_by": "python -m tests.references.make_vit",
    }
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata


if __name__ == "__main__":
    for name in MODELS:
        tensors, metadata = make(name)
        save_file(tensors, FOLDER / f"vit_{name}.safetensors", metadata=metadata)
