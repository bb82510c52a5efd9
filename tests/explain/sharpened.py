"""Models and pictures that tell one explanation from another.

Starting weights make attention nearly uniform and every map flat. These are random too, but queries
and keys are large, and so are biases, norms' weights, positions and the head: each part of the
computation leaves its trace. Pictures are 3:2, and of another grid than the position embeddings
where they are `WIDE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minivit import VisionTransformer, ViTConfig

PATCH = (6, 4)  # (height, width): not square, so that rows and columns cannot be confused
SIZE = (24, 36)  # 4 rows x 9 cols
WIDE = (18, 32)  # 3 rows x 8 cols

VARIANTS: dict[str, dict[str, object]] = {
    "class": {},
    "registers": {"num_register_tokens": 3},
    "distilled": {"distillation_token": True, "num_register_tokens": 1},
    "mean": {"class_token": False, "pooling": "mean"},
    "both": {"pooling": "cls_and_mean", "head_blocks": 2, "pos_embed_prefix": False},
    "clip": {"norm_pre": True, "fc_norm": True, "pooling": "mean", "activation": "quick_gelu"},
}


def make_model(variant: str = "class", *, seed: int = 0, **options: object) -> VisionTransformer:
    """A model in float64 and eval mode, of 2 blocks and 3 heads."""
    torch.manual_seed(seed)
    values: dict[str, object] = {
        "image_size": SIZE,
        "patch_size": PATCH,
        "dim": 24,
        "num_heads": 3,
        "num_classes": 5,
    }
    config = ViTConfig.from_name("debug_patch8_32", **(values | VARIANTS[variant] | options))  # type: ignore[arg-type]
    model = VisionTransformer(config).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.3 * noise)
            elif "attn.qkv.weight" in name:
                weight.add_(0.3 * noise)
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)
            else:
                weight.add_(0.2 * noise)
    return model.requires_grad_()


def make_images(
    count: int = 2, size: tuple[int, int] = SIZE, *, channels: int = 3, seed: int = 1
) -> Tensor:
    """(count, channels, height, width) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, *size, generator=generator, dtype=torch.float64)


@contextmanager
def untouched(model: VisionTransformer, images: Tensor) -> Iterator[None]:
    """Asserts that what is done within leaves no trace, also where it fails.

    Bits of weights and pictures, gradients, requires_grad, training flags, hooks, methods, the
    random state and autograd's mode are compared.
    """
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.5)
    before = _traces(model, images)
    try:
        yield
    finally:
        after = _traces(model, images)
        assert before.keys() == after.keys()
        for name, value in before.items():
            if isinstance(value, Tensor):
                assert torch.equal(value, after[name]), name
            else:
                assert value == after[name], name


def _traces(model: VisionTransformer, images: Tensor) -> dict[str, object]:
    traces: dict[str, object] = {
        "images": images.clone(),
        "images.requires_grad": images.requires_grad,
        "images.grad": images.grad is None,
        "random state": torch.get_rng_state(),
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "forward": type(model).forward,
    }
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        traces |= {name: weight.detach().clone(), f"{name}.grad": weight.grad.clone()}
        traces[f"{name}.requires_grad"] = weight.requires_grad
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        traces[f"{name} training"] = module.training
        traces[f"{name} hooks"] = [len(each) for each in hooks]
        traces[f"{name} attributes"] = sorted(vars(module))
    return traces
