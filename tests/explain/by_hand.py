"""A Vision Transformer on a page, from its tensors alone, for tests of what is inside of it.

It imports nothing of the model's code: every line is the paper's. Every part of it passes through
a function that may put another in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from minivit import VisionTransformer, ViTConfig

Change = Callable[[str, int, Tensor], Tensor]
ROWS, COLS = 4, 6
PICTURES = (2, 3, 8 * ROWS, 8 * COLS)  # 3:2

# What the configs of the library can say of the way from the tokens to the logits.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"num_register_tokens": 3, "pos_embed_prefix": False, "layer_scale": 0.1},
    "mean": {"pooling": "mean"},
    "mean_no_class": {"pooling": "mean", "class_token": False, "num_register_tokens": 2},
    "mean_fc_norm": {"pooling": "mean", "fc_norm": True},
    "cls_fc_norm": {"fc_norm": True},
    "clip": {"norm_pre": True, "patch_bias": False, "head_bias": False},
    "distilled": {"distillation_token": True},
    "distilled_fc_norm": {"distillation_token": True, "pooling": "mean", "fc_norm": True},
    "dinov2": {"pooling": "cls_and_mean", "layer_scale": 0.1, "head_blocks": 2},
    "no_norm": {"final_norm": False},
    "swiglu": {"activation": "swiglu", "qkv_bias": False},
}


def make_model(**options: Any) -> VisionTransformer:
    """Three blocks of four heads in float64, with sharp attention and no number left at zero."""
    settings = {"image_size": (32, 48), "depth": 3, "num_heads": 4} | options
    model = VisionTransformer(ViTConfig.from_name("debug_patch8_32", **settings)).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            if "norm" in name or name.endswith("gamma"):
                weight.copy_(1 + 0.3 * noise)
            elif name.endswith("attn.qkv.weight"):
                weight.copy_(3 * noise / math.sqrt(weight.shape[1]))
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)
            elif name.endswith("token") or name == "pos_embed":
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise / math.sqrt(weight[0].numel()))
    return model


def make_images(seed: int = 0, batch: int = PICTURES[0]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *PICTURES[1:], generator=generator, dtype=torch.float64)


def stay(part: str, block: int, value: Tensor) -> Tensor:
    return value


def layer_norm(x: Tensor, weights: Mapping[str, Tensor], name: str, eps: float) -> Tensor:
    if f"{name}.weight" not in weights:
        return x
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def affine(x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.tensor(0.0))


def forward(model: VisionTransformer, images: Tensor, change: Change = stay) -> Tensor:
    """Logits (B, classes) of pictures of the config's size.

    Args:
        model: Model whose tensors are read.
        images: (B, 3, height, width).
        change: Function of the name of a part, the number of the block and the part, which gives
            what to go on with: "embedding", "weights" (B, H, N, N), "heads" (B, H, N, d),
            "attention", "mlps" (both before LayerScale), "blocks" (update) and "outputs".
    """
    config, w = model.config, {n: t.detach() for n, t in model.state_dict().items()}
    eps, size = config.layer_norm_eps, config.patch_size[0]
    patches = [
        [
            images[:, :, r * size : (r + 1) * size, c * size : (c + 1) * size].flatten(1)
            for c in range(COLS)
        ]
        for r in range(ROWS)
    ]
    pixels = torch.stack([cell for row in patches for cell in row], 1)
    x = pixels @ w["patch_embed.proj.weight"].flatten(1).T
    x = x + w.get("patch_embed.proj.bias", torch.tensor(0.0))
    names = ["cls_token", "dist_token", "reg_token"]
    prefix = [w[name].expand(len(x), -1, -1) for name in names if name in w]
    placed = w["pos_embed"]
    if config.pos_embed_prefix:
        registers = [prefix.pop()] if "reg_token" in w else []
        together = torch.cat([*prefix, x], 1) + placed
        count = together.shape[1] - x.shape[1]
        x = torch.cat([together[:, :count], *registers, together[:, count:]], 1)
    else:
        x = torch.cat([*prefix, x + placed], 1)
    x = change("embedding", 0, layer_norm(x, w, "norm_pre", eps))

    normed = []  # of the tokens after each block
    for i in range(config.depth):
        b, before = f"blocks.{i}.", x
        q, k, v = affine(layer_norm(x, w, b + "norm1", eps), w, b + "attn.qkv").chunk(3, -1)
        q, k, v = (t.reshape(*t.shape[:2], config.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = change("weights", i, scores.exp() / scores.exp().sum(-1, keepdim=True))
        heads = change("heads", i, weights @ v)
        attended = affine(heads.transpose(1, 2).reshape(x.shape), w, b + "attn.proj")
        attended = change("attention", i, attended)
        h = x + attended * w.get(b + "ls1.gamma", torch.tensor(1.0))
        hidden = affine(layer_norm(h, w, b + "norm2", eps), w, b + "mlp.fc1")
        if config.activation == "swiglu":
            gate, value = hidden.chunk(2, -1)
            hidden = gate * torch.sigmoid(gate) * value
        else:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        mlp = change("mlps", i, affine(hidden, w, b + "mlp.fc2"))
        h = h + mlp * w.get(b + "ls2.gamma", torch.tensor(1.0))
        x = change("outputs", i, before + change("blocks", i, h - before))
        normed.append(layer_norm(x, w, "norm", eps))

    first = config.num_prefix_tokens
    last = normed[-1]
    if config.pooling == "cls":
        pooled = last[:, 0]
    elif config.pooling == "mean":
        pooled = last[:, first:].mean(1)
    else:
        tokens = [n[:, 0] for n in normed[len(normed) - config.head_blocks :]]
        pooled = torch.cat([*tokens, last[:, first:].mean(1)], 1)
    logits = affine(layer_norm(pooled, w, "fc_norm", eps), w, "head")
    if config.distillation_token:
        logits = (logits + affine(last[:, 1], w, "head_dist")) / 2
    return logits
