"""What keeps attention weights exact in a model that computes in half precision.

`model.bfloat16()` and `torch.autocast` round Q and K to eight binary digits. Trained weights make
scores above 300, where bfloat16 knows only even numbers, and softmax makes of a score that is off
by 1 a weight that is off by a factor of e. So weights that are asked for are made of Q and K that
are computed in float32, from the tokens that the block was given; `attention.py` calls this. They
differ by 1e-5 from those of exact arithmetic on these tokens.

The tokens have been rounded in every block before, which nothing here can undo. On a trained
DINOv2 ViT-S/14 the weights differ from those of the same model in float32

* in the class token's row by up to 0.020 (0.034 where all is rounded),
* anywhere by up to 0.085 with `model.bfloat16()` and 0.059 with autocast (0.44 and 0.43).

`benchmarks/README.md` has the figures by block, `benchmarks/attention_precision.py` measures other
models. Maps without this loss are those of a float32 model outside autocast.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from minivit.cpu import Linear, linear


def widen(tensor: Tensor) -> Tensor:
    """The same numbers in float32 where they come in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products are as precise as what is multiplied."""
    if not torch.amp.is_autocast_available(device.type):  # "meta", where nothing is computed
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def exact_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`minivit.cpu.linear` in float32, (…, C) to (…, D), whatever precision is in force."""
    with no_autocast(x.device):
        return linear(widen(x), widen(weight), None if bias is None else widen(bias))


def is_rounded(layer: nn.Linear) -> bool:
    """Whether a layer's output is rounded to half precision, and its weights give it exactly."""
    dtype, device = layer.weight.dtype, layer.weight.device.type
    if dtype == torch.float32 and torch.amp.is_autocast_available(device):
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
    return dtype.itemsize < 4 and is_plain(layer)


def is_plain(layer: nn.Linear) -> bool:
    """Whether a layer gives what its weights say.

    Not where it is of another class or has hooks: then only the layer itself knows what it gives.
    """
    return type(layer) is Linear and not (layer._forward_hooks or layer._forward_pre_hooks)
