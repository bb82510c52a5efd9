"""The pretrained ViTs of timm that minivit can represent: weights_convert/timm_models.tsv.

    python -m tests.references.make_timm_models   (from the top of the repository; needs timm)

One row for each set of weights (`name.tag`) of timm's modules `vision_transformer` and `deit`, in
timm's order of names, a model's default tag first. Whether a model can be represented is read off
its modules, built on the meta device, and not off its name; a model that differs in anything from
pre-norm blocks of plain attention is left out. Nothing is downloaded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import timm
import torch
from timm.layers import (
    GELU,
    Attention,
    GELUTanh,
    GluMlp,
    LayerScale,
    Mlp,
    PatchEmbed,
    QuickGELU,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

MODULES = ["vision_transformer", "deit"]
FILE = Path(__file__).parents[2] / "weights_convert" / "timm_models.tsv"
COLUMNS = (
    "name", "num_heads", "activation", "layer_norm_eps", "image_height", "image_width",
    "num_classes", "pooling", "crop_fraction", "crop_mode", "filter", "mean", "std", "parameters",
    "hub", "licence",
)  # fmt: skip
POOLINGS = {"token": "cls", "avg": "mean"}


def names() -> Iterator[str]:
    """Every `name.tag` that has weights; the default tag is the first of its name."""
    tags: dict[str, list[str]] = {model: [] for model in timm.list_models(module=MODULES)}
    for name in timm.list_models(module=MODULES, pretrained=True):
        tags[name.partition(".")[0]].append(name)
    for model, tagged in tags.items():
        default = f"{model}.{timm.get_pretrained_cfg(model).tag}"
        yield from sorted(tagged, key=lambda name, default=default: name != default)


@cache
def build(model: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """The model without numbers; tags that agree in the arguments share it."""
    with torch.device("meta"):
        return timm.create_model(
            model, num_classes=num_classes, img_size=image_size, weight_init="skip"
        )


def activation(mlp: nn.Module) -> str | None:
    """minivit's word for what this MLP computes; None: it has none."""
    if type(mlp) is GluMlp:  # the packed SwiGLU: silu(first half) · second half
        return "swiglu" if type(mlp.act) is nn.SiLU and not mlp.gate_last else None
    if type(mlp) is not Mlp:
        return None
    if type(mlp.act) is nn.GELU:
        return {"none": "gelu", "tanh": "gelu_tanh"}[mlp.act.approximate]
    return {GELU: "gelu", GELUTanh: "gelu_tanh", QuickGELU: "quick_gelu"}.get(type(mlp.act))


def norms(model: nn.Module) -> list[nn.Module]:
    """Every normalisation that minivit's model has too."""
    inner = [norm for block in model.blocks for norm in (block.norm1, block.norm2)]
    outer = [model.norm_pre, model.norm, model.fc_norm]
    return inner + [norm for norm in outer if type(norm) is not nn.Identity]


def obstacle(model: nn.Module) -> str | None:
    """Why minivit's VisionTransformer cannot compute what this model does; None: it can.

    Register tokens with positions are no obstacle: a position that is always the same can be added
    to its token once and for all.
    """

    def has_bias(*layers: nn.Module) -> bool:
        return all(layer.bias is not None for layer in layers)

    def is_absent(*layers: nn.Module | None) -> bool:
        return all(layer is None or type(layer) is nn.Identity for layer in layers)

    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        return f"is a {type(model).__name__}"
    if model.attn_pool is not None or model.global_pool not in POOLINGS:
        return f"pooling {model.global_pool!r}"
    if model.pool_include_prefix and model.num_prefix_tokens:
        return "pooling over prefix tokens"
    patches = model.patch_embed
    if type(patches) is not PatchEmbed or not is_absent(patches.norm):
        return f"stem {type(patches).__name__}"
    if any(side % step for side, step in zip(patches.img_size, patches.patch_size, strict=True)):
        return f"{patches.img_size} pixels are no whole number of patches"
    if model.pos_embed is None:
        return "no learned positions"
    for block in model.blocks:
        if type(block) is not Block:
            return f"block {type(block).__name__}"
        attention, mlp = block.attn, block.mlp
        if type(attention) is not Attention or attention.gate is not None:
            return f"attention {type(attention).__name__}"
        if not is_absent(attention.q_norm, attention.k_norm, attention.norm):
            return "norms inside of attention"
        if attention.attn_dim != model.embed_dim or not has_bias(attention.proj):
            return "output projection of attention"
        if activation(mlp) is None:
            return f"MLP {type(mlp).__name__}"
        if not is_absent(mlp.norm) or not has_bias(mlp.fc1, mlp.fc2):
            return "norm inside of the MLP, or no bias"
        if {type(block.ls1), type(block.ls2)} not in ({nn.Identity}, {LayerScale}):
            return "LayerScale on one branch only"
    if is_absent(model.norm) == is_absent(model.fc_norm):
        return "not exactly one norm before the head"
    if any(not isinstance(norm, nn.LayerNorm) or not has_bias(norm) for norm in norms(model)):
        return "norm other than LayerNorm with a bias"
    if len({norm.eps for norm in norms(model)}) != 1:
        return "several epsilons"
    return None


def row(name: str) -> tuple[object, ...] | None:
    """The values of `COLUMNS`; None: minivit cannot represent this model."""
    pretrained = timm.get_pretrained_cfg(name)
    size = tuple(pretrained.input_size[1:])
    model = build(name.partition(".")[0], pretrained.num_classes, size)
    if obstacle(model) is not None:
        return None
    return (
        name,
        model.blocks[0].attn.num_heads,
        activation(model.blocks[0].mlp),
        norms(model)[0].eps,
        *size,
        model.num_classes,
        POOLINGS[model.global_pool],
        pretrained.crop_pct,
        pretrained.crop_mode,
        pretrained.interpolation,
        ",".join(map(str, pretrained.mean)),
        ",".join(map(str, pretrained.std)),
        sum(parameter.numel() for parameter in model.parameters()),
        pretrained.hf_hub_id or "",
        pretrained.license or "",
    )


def make() -> str:
    """The whole file."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(values for values in map(row, names()) if values is not None)
    return text.getvalue()


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
