"""One file holds a model: weights, config, preprocessing and labels in one .safetensors.

The tensors carry the names of `state_dict()`. Everything else is one JSON text under the key
"minivit" of the header's `__metadata__` (format: https://github.com/huggingface/safetensors)::

    {"version": 1, "architecture": "VisionTransformer" | "ResNet" | "Captioner",
     "config": {…}, "preprocess": {…}, "labels": […] or null, "tokenizer": {…} or null,
     "best_maps": […], of a captioner whose maps were measured}

Loading maps the file into memory: weights are read from disk when they are first used, and a
thousand-fold larger file opens as fast as a small one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minivit.captioner import Captioner
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.files import replacing
from minivit.preprocess import Preprocess
from minivit.resnet import ResNet
from minivit.tokenizer import tokenizer_from_dict
from minivit.vit import VisionTransformer
from minivit.weights import find_weights
from minivit.word_maps import BestMap

VERSION = 1
Model = VisionTransformer | ResNet | Captioner
Kind = TypeVar("Kind", VisionTransformer, ResNet, Captioner)
_KINDS: dict[str, type[Model]] = {
    kind.__name__: kind for kind in (VisionTransformer, ResNet, Captioner)
}


class CheckpointError(ValueError):
    """A file that is not a checkpoint that this version can read; the message is one sentence."""


def save_model(
    model: Model, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None
) -> None:
    """Writes a model to one .safetensors file, completely or not at all.

    Args:
        model: The model; its training state is not saved.
        path: The file; an existing one is replaced once the new one is whole.
        dtype: Precision of the stored weights, such as torch.float16 for half the size; None: as
            they are.

    Raises:
        OSError: The file cannot be written.
    """
    description = {
        "version": VERSION,
        "architecture": type(model).__name__,
        "config": model.config.to_dict(),
        "preprocess": model.preprocess.to_dict(),
        "labels": getattr(model, "labels", None),
        "tokenizer": model.tokenizer.to_dict() if isinstance(model, Captioner) else None,
    }
    if isinstance(model, Captioner) and model.best_maps:
        description["best_maps"] = [asdict(each) for each in model.best_maps]
    tensors = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"minivit": json.dumps(description)})
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from None


@overload
def load_model(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = ...,
    dtype: torch.dtype | None = ...,
    expected: None = ...,
) -> Any: ...
@overload
def load_model(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = ...,
    dtype: torch.dtype | None = ...,
    expected: type[Kind],
) -> Kind: ...
def load_model(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    expected: type[Any] | None = None,
) -> Any:
    """Reads a model that `save_model` or `weights_convert` wrote; it is in eval mode.

    Args:
        path: The .safetensors file, or the name of a shipped one (`minivit.weights`).
        device: Where the weights go; on the CPU they stay mapped to the file.
        dtype: Precision of the weights in memory; None: as stored.
        expected: The class that the file must hold, such as VisionTransformer; None: any.

    Returns:
        A VisionTransformer, Captioner or ResNet, with `preprocess`, `config`, and `labels` or
        `tokenizer` as saved.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Truncated, not a minivit checkpoint, of an unknown version, or with
            missing, unexpected or misshapen tensors; not what was expected.
    """
    path = find_weights(path)
    description, tensors = _read(path)
    kind = description["architecture"]
    if expected is not None and kind != expected.__name__:
        raise CheckpointError(f"{path}: holds a {kind}, a {expected.__name__} is needed here")
    try:
        with torch.device("meta"):
            model = _new_model(kind, description)
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint has no {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    check_tensors(tensors, dict(model.state_dict()), str(path))
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(device=device, dtype=dtype).eval()


def _new_model(kind: str, description: dict[str, Any]) -> Model:
    preprocess = Preprocess.from_dict(description["preprocess"])
    if kind == Captioner.__name__:
        tokenizer = tokenizer_from_dict(description["tokenizer"])
        config = CaptionerConfig.from_dict(description["config"])
        captioner = Captioner(config, tokenizer, preprocess=preprocess)
        captioner.best_maps = tuple(BestMap(**each) for each in description.get("best_maps", ()))
        return captioner
    if kind == ResNet.__name__:
        return ResNet(ResNetConfig.from_dict(description["config"]), preprocess=preprocess)
    return VisionTransformer(
        ViTConfig.from_dict(description["config"]),
        preprocess=preprocess,
        labels=description["labels"],
    )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file; give the .safetensors of a minivit model")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "minivit" not in metadata:
                raise CheckpointError(
                    f"{path}: a .safetensors file of another program; convert it first: "
                    f"python -m weights_convert {path} -o OUT.safetensors"
                )
            description = json.loads(metadata["minivit"])
            if not isinstance(description, dict) or description.get("version") != VERSION:
                version = description.get("version") if isinstance(description, dict) else None
                raise CheckpointError(
                    f"{path}: checkpoint version {version!r}; this minivit reads version {VERSION}"
                )
            if description.get("architecture") not in _KINDS:
                raise CheckpointError(
                    f"{path}: holds a {description.get('architecture')!r}, expected one of "
                    f"{', '.join(_KINDS)}"
                )
            return description, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole .safetensors file ({error}); copy or download it again, or "
            f"convert it when it is of another program: python -m weights_convert {path} -o "
            "OUT.safetensors"
        ) from None


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    """Compares names and shapes.

    Args:
        tensors: The tensors of a file.
        expected: The tensors of the model.
        source: The file's name, for the message.

    Raises:
        CheckpointError: Names the first few tensors that are missing, unexpected or misshapen, and
            says how many there are.
    """
    complaints = []
    for what, names in (
        ("missing", sorted(set(expected) - set(tensors))),
        ("unexpected", sorted(set(tensors) - set(expected))),
    ):
        if names:
            complaints.append(f"{len(names)} {what} ({_first_few(names)})")
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(set(tensors) & set(expected))
        if tensors[name].shape != expected[name].shape
    ]
    if misshapen:
        complaints.append(f"{len(misshapen)} of a wrong shape ({_first_few(misshapen)})")
    if complaints:
        raise CheckpointError(f"{source}: tensors do not fit the model: {'; '.join(complaints)}")


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
