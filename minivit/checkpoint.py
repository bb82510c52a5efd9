"""One file holds a model: weights, config, preprocessing and labels in one .safetensors.

The tensors carry the names of `state_dict()`. Everything else is one JSON text under the key
"minivit" of the header's `__metadata__` (format: https://github.com/huggingface/safetensors)::

    {"version": 1, "architecture": "VisionTransformer",
     "config": {…}, "preprocess": {…}, "labels": […] or null}

Loading maps the file into memory: weights are read from disk when they are first used, and a
thousand-fold larger file opens as fast as a small one.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minivit.config import ViTConfig
from minivit.files import replacing
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer

VERSION = 1


class CheckpointError(ValueError):
    """A file that is not a checkpoint that this version can read; the message is one sentence."""


def save_model(
    model: VisionTransformer, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None
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
        "labels": model.labels,
    }
    tensors = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"minivit": json.dumps(description)})
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from None


def load_model(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> VisionTransformer:
    """Reads a model that `save_model` or `weights_convert` wrote; it is in eval mode.

    Args:
        path: The .safetensors file.
        device: Where the weights go; on the CPU they stay mapped to the file.
        dtype: Precision of the weights in memory; None: as stored.

    Returns:
        The model, with `preprocess`, `labels` and `config` as saved.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Truncated, not a minivit checkpoint, of an unknown version, or with
            missing, unexpected or misshapen tensors.
    """
    description, tensors = _read(path)
    try:
        config = ViTConfig.from_dict(description["config"])
        preprocess = Preprocess.from_dict(description["preprocess"])
        with torch.device("meta"):
            model = VisionTransformer(config, preprocess=preprocess, labels=description["labels"])
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint has no {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    check_tensors(tensors, dict(model.state_dict()), str(path))
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(device=device, dtype=dtype).eval()


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
                found = description.get("version") if isinstance(description, dict) else None
                raise CheckpointError(
                    f"{path}: checkpoint version {found!r}; this minivit reads version {VERSION}"
                )
            if description.get("architecture") != VisionTransformer.__name__:
                raise CheckpointError(
                    f"{path}: holds a {description.get('architecture')!r}, expected "
                    f"{VisionTransformer.__name__!r}"
                )
            return description, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole .safetensors file ({error}); copy or download it again"
        ) from None


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], source: str) -> None:
    """Compares names and shapes.

    Args:
        found: The tensors of a file.
        expected: The tensors of the model.
        source: The file's name, for the message.

    Raises:
        CheckpointError: Names the first few tensors that are missing, unexpected or misshapen, and
            says how many there are.
    """
    complaints = []
    for what, names in (
        ("missing", sorted(set(expected) - set(found))),
        ("unexpected", sorted(set(found) - set(expected))),
    ):
        if names:
            complaints.append(f"{len(names)} {what} ({_first_few(names)})")
    misshapen = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(set(found) & set(expected))
        if found[name].shape != expected[name].shape
    ]
    if misshapen:
        complaints.append(f"{len(misshapen)} of a wrong shape ({_first_few(misshapen)})")
    if complaints:
        raise CheckpointError(f"{source}: tensors do not fit the model: {'; '.join(complaints)}")


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
