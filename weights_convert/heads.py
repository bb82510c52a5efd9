"""Heads that a training script put in the place of the model's own.

`model.heads = nn.Linear(…)`, `model.fc = nn.Sequential(nn.Dropout(), nn.Linear(…))`, or a wrapper
with `backbone.` and `classifier.`: one linear layer, whatever it is called, is the head. More than
one is a network of its own, which minivit does not run behind a ViT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from weights_convert.reading import ConvertError, Source

# Name of the linear head in each layout, and what else may stand under the first part of that name.
_HEADS = {
    "timm": ("head", r"head\.(weight|bias)"),
    "dino": ("head", r"head\.(weight|bias|mlp\..*|last_layer\..*)"),
    "torchvision": ("heads.head", r"heads\.(head|pre_logits)\.(weight|bias)"),
    "lukemelas": ("fc", r"fc\.(weight|bias)"),
    "hugging_face": ("classifier", r"classifier\.(weight|bias)"),
    "dinov2": ("linear_head", r"linear_head\.(weight|bias)"),
}


def settle_head(source: Source, format: str) -> None:
    """Gives a replaced head, inside the model or beside it, the name that its layout knows.

    Args:
        source: The file; its tensors are renamed in place, and its notes say what was assumed.
        format: Layout of the model.

    Raises:
        ConvertError: A head of several layers, two heads, or other tensors beside the model.
    """
    name, own = _HEADS.get(format, ("", ""))
    tensors = source.tensors
    if name:
        root = name.split(".")[0]
        inside = [key for key in tensors if key.startswith(f"{root}.")]
        if any(not re.fullmatch(own, key) for key in inside):
            _rename(tensors, tensors, inside, name, source)
    if format == "hugging_face" and source.config:  # the class that it names judges the rest
        tensors |= source.outside
        source.outside = {}
    if not source.outside:
        return
    if not name or f"{name}.weight" in tensors:
        shown = ", ".join(sorted(source.outside)[:3])
        raise ConvertError(
            f"{source.path}: {len(source.outside)} tensors beside the model ({shown}); minivit "
            f"runs one model with one linear head (give --prefix {source.prefix or 'PREFIX'} to "
            "convert the model without them)"
        )
    _rename(source.outside, tensors, list(source.outside), name, source)


def _rename(
    tensors: dict[str, Tensor],
    into: dict[str, Tensor],
    names: list[str],
    head: str,
    source: Source,
) -> None:
    """Moves the one linear layer among some tensors to the name of the head."""
    layer = _linear_layer(tensors, names, source)
    for name in names:
        into[f"{head}.{name.rpartition('.')[2]}"] = tensors.pop(name)
    source.notes.append(
        f"assumed: {layer!r} is the head, on what the model pools, and nothing beside it counts "
        "when predicting (dropout does not)"
    )


def _linear_layer(tensors: dict[str, Tensor], names: Iterable[str], source: Source) -> str:
    """The module that these tensors are of.

    Raises:
        ConvertError: They are not one linear layer.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name in names:
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensors[name]
    linear = [
        module
        for module, parts in modules.items()
        if {"weight"} <= parts.keys() <= {"weight", "bias"} and parts["weight"].dim() == 2
    ]
    if len(linear) == len(modules) == 1:
        return linear[0]
    shown = ", ".join(sorted(modules)[:4]) + (", …" if len(modules) > 4 else "")
    what = "an MLP" if len(linear) > 1 else "more than a linear layer"
    without = "take it out of the state_dict"
    if source.outside and source.prefix:
        without = f"give --prefix {source.prefix}"
    raise ConvertError(
        f"{source.path}: the head is {what}: {shown}; minivit has one linear layer there "
        f"({without} to convert the model without a head)"
    )
