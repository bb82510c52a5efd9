"""Outputs of models of torchvision, transformers and PyTorch-Pretrained-ViT: convert_*.safetensors.

    python -m tests.references.make_pypi       (from the top of the repository; needs extra parity)

One file a case of `CASES`. The parity run makes the models again from here, saves them as their own
library saves them, and converts that. The default run has names and shapes of the tensors only, and
makes the numbers with `seeded.py`. Pictures are 3:2 where the library takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_pretrained_vit.model as lukemelas
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from tests.references.seeded import described, foreign_weights, seeded

SEED = 2022
FOLDER = Path(__file__).parent


class Outputs(NamedTuple):
    """What a source's own code gave: logits or features, tokens after the norm, weights a block."""

    output: Tensor
    tokens: Tensor
    attentions: list[Tensor]


class Case(NamedTuple):
    """A source's model, what to show it (B, 3, height, width), and how to run it."""

    make: Callable[[], nn.Module]
    run: Callable[[Any, Tensor], Outputs]
    pictures: tuple[int, int, int, int]


# ---- torchvision --------------------------------------------------------------------------------


def make_torchvision(**options: Any) -> VisionTransformer:
    """A ViT of two layers; `options` are torchvision's."""
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}
    return VisionTransformer(**sizes, mlp_dim=64, num_classes=10, **options)


def run_torchvision(model: Any, pictures: Tensor) -> Outputs:
    """torchvision asks its attention for no weights; here it is asked for them."""
    attentions: list[Tensor] = []
    tokens: list[Tensor] = []
    for layer in model.encoder.layers:
        attention, forward = layer.self_attention, layer.self_attention.forward

        def with_weights(*inputs: Tensor, forward: Any = forward, **_options: Any) -> Any:
            result = forward(*inputs, need_weights=True, average_attn_weights=False)
            attentions.append(result[1])
            return result

        attention.forward = with_weights
    handle = model.encoder.register_forward_hook(lambda _m, _i, output: tokens.append(output))
    output = model(pictures)
    handle.remove()
    for layer in model.encoder.layers:
        del layer.self_attention.forward
    return Outputs(output, tokens[0], attentions)


# ---- transformers -------------------------------------------------------------------------------


def make_transformers(name: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of two layers of the class `name`; `options` are of its config."""

    def make() -> nn.Module:
        settings = getattr(transformers, config)(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            attn_implementation="eager",
            **options,
        )
        return getattr(transformers, name)(settings)

    return make


def run_transformers(model: Any, pictures: Tensor) -> Outputs:
    """The logits (of CLIP the embedding), and the tokens of the model under the head."""
    options: dict[str, Any] = {"output_attentions": True}
    square = pictures.shape[-1] == pictures.shape[-2] == model.config.image_size
    if not square and not type(model).__name__.startswith("Dinov2"):
        options["interpolate_pos_encoding"] = True
    result = model(pictures, **options)
    if isinstance(model, transformers.CLIPVisionModelWithProjection):
        tokens = model.vision_model.post_layernorm(result.last_hidden_state)
        return Outputs(result.image_embeds, tokens, list(result.attentions))
    options.pop("output_attentions")
    base = model.base_model(pictures, **options)
    return Outputs(result.logits, base.last_hidden_state, list(result.attentions))


# ---- PyTorch-Pretrained-ViT ---------------------------------------------------------------------


def make_lukemelas() -> nn.Module:
    """A small model under a name of its own, since that package builds by name only."""
    config = {
        "patches": 8,
        "dim": 64,
        "ff_dim": 96,
        "num_heads": 2,
        "num_layers": 2,
        "attention_dropout_rate": 0.0,
        "dropout_rate": 0.1,
        "representation_size": None,
        "classifier": "token",
    }
    lukemelas.PRETRAINED_MODELS["small"] = {
        "config": config,
        "num_classes": 10,
        "image_size": (32, 48),
        "url": None,
    }
    return lukemelas.ViT("small", pretrained=False)


def run_lukemelas(model: Any, pictures: Tensor) -> Outputs:
    """That package keeps the weights of the last call on its attention module."""
    tokens: list[Tensor] = []
    handle = model.norm.register_forward_hook(lambda _m, _i, output: tokens.append(output))
    output = model(pictures)
    handle.remove()
    return Outputs(output, tokens[0], [block.attn.scores for block in model.transformer.blocks])


CASES = {
    "torchvision": Case(make_torchvision, run_torchvision, (2, 3, 32, 32)),
    "torchvision_pre_logits": Case(
        lambda: make_torchvision(representation_size=24),
        run_torchvision,
        (2, 3, 32, 32),
    ),
    "lukemelas": Case(make_lukemelas, run_lukemelas, (2, 3, 32, 48)),
} | {
    name: Case(make_transformers(*arguments, **options), run_transformers, shape)
    for name, arguments, options, shape in (
        (
            "hf_vit",
            ("ViTForImageClassification", "ViTConfig"),
            {"num_labels": 10},
            (2, 3, 32, 48),
        ),
        (
            "hf_deit",
            ("DeiTForImageClassification", "DeiTConfig"),
            {"num_labels": 10},
            (2, 3, 32, 32),
        ),
        (
            "hf_deit_teacher",
            ("DeiTForImageClassificationWithTeacher", "DeiTConfig"),
            {"num_labels": 10, "hidden_act": "gelu_new"},
            (2, 3, 32, 48),
        ),
        (
            "hf_dinov2",
            ("Dinov2ForImageClassification", "Dinov2Config"),
            {"num_labels": 10},
            (2, 3, 32, 48),
        ),
        (
            "hf_dinov2_swiglu",
            ("Dinov2ForImageClassification", "Dinov2Config"),
            {"num_labels": 10, "use_swiglu_ffn": True},
            (2, 3, 32, 48),
        ),
        (
            "hf_dinov2_registers",
            ("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig"),
            {"num_labels": 10},
            (2, 3, 48, 24),
        ),
        (
            "hf_clip",
            ("CLIPVisionModelWithProjection", "CLIPVisionConfig"),
            {"projection_dim": 16},
            (2, 3, 32, 48),
        ),
    )
}  # fmt: skip


@torch.no_grad()
def run(name: str) -> tuple[nn.Module, Tensor, Outputs]:
    """The case's model with seeded weights, its pictures, and what it makes of them."""
    case = CASES[name]
    model = case.make().eval()
    state = model.state_dict()
    model.load_state_dict(foreign_weights({key: t.shape for key, t in state.items()}, SEED))
    pictures = seeded("pictures", case.pictures, SEED)
    return model, pictures, case.run(model, pictures)


def make(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of one file."""
    model, pictures, outputs = run(name)
    state = model.state_dict()
    tensors = {"output": outputs.output, "tokens": outputs.tokens}
    tensors |= {f"attention.{i}": weights for i, weights in enumerate(outputs.attentions)}
    packages = ("torch", "numpy", "torchvision", "transformers", "pytorch-pretrained-vit")
    metadata = described(state, SEED, {"pictures": pictures}) | {
        "num_heads": str(outputs.attentions[0].shape[1]),
        "versions": json.dumps({package: version(package) for package in packages}),
        "made_by": "python -m tests.references.make_pypi",
    }
    if hasattr(model, "config"):
        metadata["config"] = json.dumps(model.config.to_dict(), default=str)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, metadata


if __name__ == "__main__":
    for name in CASES:
        tensors, metadata = make(name)
        save_file(tensors, FOLDER / f"convert_{name}.safetensors", metadata=metadata)
