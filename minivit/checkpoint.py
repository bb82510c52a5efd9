"""One file holds a model: weights, config, preprocessing and labels in one .safetensors.

The tensors carry the names of `state_dict()`. Everything else is one JSON text under the key
"minivit" of the header's `__metadata__` (format: https://github.com/huggingface/safetensors)::

    {"version": 1, "architecture": "VisionTransformer" | "ResNet" | "Captioner",
     "config": {…}, "preprocess": {…}, "labels": […] or null, "tokenizer": {…} or null,
     "data_labels": […], where photos were labelled by other words, and
     "best_maps": […], of a captioner whose maps were measured}

Loading maps the file into memory and takes no copy of it. The weights are read once to see that
each is a number (90 MB that lie in the cache of the disk: about 20 ms on one core): a model with a
NaN in it answers the same for every picture, and nobody notices.

Nothing in a file is believed. Its description is compared with the names, shapes and kinds of its
tensors before a layer is built, so that a file that lies costs no time and no memory.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minivit.captioner import Captioner
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.fields import from_dict, shown
from minivit.files import not_a_file, replacing
from minivit.preprocess import Preprocess
from minivit.resnet import ResNet
from minivit.tokenizer import tokenizer_from_dict
from minivit.vit import VisionTransformer
from minivit.weights import find_weights
from minivit.word_maps import BestMap

VERSION = 1
_MOST_PIXELS = 2**26  # of a model's pictures: 8,192 × 8,192
_MOST_TIMES = 64  # as many pixels as the position embeddings were made for, or
_USUAL_PIXELS = 2**20  # 1,024 × 1,024, which any model may be shown
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
    if isinstance(model, VisionTransformer) and model.data_labels:
        description["data_labels"] = model.data_labels
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
        CheckpointError: Truncated, not a minivit checkpoint, of an unknown version, with a
            description that cannot be, or with missing, unexpected or misshapen tensors or such
            that hold a NaN or an infinity; not what was expected.
    """
    path = find_weights(path)
    description, tensors = _read(path)
    kind = description["architecture"]
    if expected is not None and kind != expected.__name__:
        raise CheckpointError(f"{path}: holds a {kind}, a {expected.__name__} is needed here")
    try:
        with torch.device("meta"):
            model = _new_model(kind, description, tensors)
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint has no {error.args[0]!r}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (
        TypeError,
        RuntimeError,
        OverflowError,
    ) as error:  # torch: sizes whose product is no int64
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: sizes that no model can have ({reason})") from None
    check_tensors(tensors, dict(model.state_dict()), str(path))
    check_numbers(tensors, str(path))
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(device=device, dtype=dtype).eval()


def _new_model(kind: str, description: dict[str, Any], names: Collection[str]) -> Model:
    """The model without weights; `names` are those of the file's tensors."""
    preprocess = Preprocess.from_dict(description["preprocess"])
    if kind == Captioner.__name__:
        tokenizer = tokenizer_from_dict(description["tokenizer"])
        captions = CaptionerConfig.from_dict(description["config"])
        check_sizes(captions, preprocess, names)
        captioner = Captioner(captions, tokenizer, preprocess=preprocess)
        captioner.best_maps = _best_maps(description.get("best_maps", []), captions)
        return captioner
    if kind == ResNet.__name__:
        resnet = ResNetConfig.from_dict(description["config"])
        check_sizes(resnet, preprocess, names)
        return ResNet(resnet, preprocess=preprocess)
    config, labels = ViTConfig.from_dict(description["config"]), description["labels"]
    check_sizes(config, preprocess, names)
    if labels is not None and not isinstance(labels, list):
        raise ValueError(f"labels are {shown(labels)}, expected a list of texts, or null")
    model = VisionTransformer(config, preprocess=preprocess, labels=labels)
    if (written := description.get("data_labels")) is not None:
        texts = isinstance(written, list) and all(isinstance(each, str) for each in written)
        if not texts or len(written) != config.num_classes:
            raise ValueError(
                f"data_labels are {shown(written)}, expected {config.num_classes} texts"
            )
        model.data_labels = tuple(written)
    return model


def _best_maps(values: object, config: CaptionerConfig) -> tuple[BestMap, ...]:
    """The maps that a file recommends; those that its captioner has.

    Raises:
        ValueError: No list of maps, or a block or head that is not there.
    """
    if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
        raise ValueError(f"best_maps is {shown(values)}, expected a list of objects")
    maps = tuple(from_dict(BestMap, each, "best map") for each in values)
    for each in maps:
        if each.block >= config.decoder_depth or (each.head or 0) >= config.num_heads:
            raise ValueError(
                f"a best map is of block {each.block}, head {each.head}: the decoder has "
                f"{config.decoder_depth} blocks of {config.num_heads} heads"
            )
    return maps


def check_sizes(
    config: ViTConfig | ResNetConfig | CaptionerConfig,
    preprocess: Preprocess | None,
    names: Collection[str],
) -> None:
    """Holds what a file says of itself against its tensors, before anything is built of it.

    Shapes are compared later, with a model that has no memory of its own (`check_tensors`); but to
    build blocks takes time, and pictures of a million pixels a side have no tensor that denies them
    where positions are fixed.

    Args:
        config: Config that the file states.
        preprocess: Transform that it states, or None.
        names: Names of its tensors, as minivit calls them.

    Raises:
        ValueError: More blocks than the tensors can be of, or pictures that are too large.
    """
    vit = config.backbone if isinstance(config, CaptionerConfig) else config
    most, sizes = _MOST_PIXELS, {"preprocess": preprocess.image_size} if preprocess else {}
    if isinstance(vit, ViTConfig):
        most = min(most, max(_USUAL_PIXELS, _MOST_TIMES * math.prod(vit.image_size)))
        sizes = {"config": vit.image_size} | sizes
    for what, (height, width) in sizes.items():
        if height * width > most:
            raise ValueError(
                f"{what} image_size is {shown((height, width))}, expected {most:,} pixels at most"
            )
    depths = {}
    if isinstance(config, CaptionerConfig):
        depths = {"encoder": config.encoder_depth, "decoder": config.decoder_depth}
    if isinstance(vit, ViTConfig):
        depths["blocks" if vit is config else "backbone.blocks"] = vit.depth
    for blocks, depth in depths.items():
        own = [name for name in names if re.match(rf"{re.escape(blocks)}\.[0-9]+\.", name)]
        if depth > len(own):  # which of fewer blocks are missing is said by name
            number = len({name[len(blocks) + 1 :].partition(".")[0] for name in own})
            raise ValueError(f"a depth of {depth} {blocks}, the file has the tensors of {number}")


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file; give the .safetensors of a minivit model")
    if not os.path.isdir(path) and (kind := not_a_file(path)):  # a folder may be a hub's
        raise CheckpointError(f"{path}: {kind}; give the .safetensors of a minivit model")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "minivit" not in metadata:
                raise CheckpointError(
                    f"{path}: a .safetensors file of another program; convert it first: "
                    f"python -m weights_convert {path} -o OUT.safetensors"
                )
            description = _description(path, metadata["minivit"])
            return description, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole .safetensors file ({error}); copy or download it again, or "
            f"convert it when it is of another program: python -m weights_convert {path} -o "
            "OUT.safetensors"
        ) from None


def _description(path: str | os.PathLike[str], text: str) -> dict[str, Any]:
    """What the header says of the model, as far as it can be judged without the model's kind."""
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, a number without end, or too deep
        raise CheckpointError(
            f"{path}: its description is no JSON ({error}); copy or download it again"
        ) from None
    if not isinstance(description, dict) or description.get("version") != VERSION:
        version = description.get("version") if isinstance(description, dict) else None
        raise CheckpointError(
            f"{path}: checkpoint version {shown(version)}; this minivit reads version {VERSION}"
        )
    kind = description.get("architecture")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise CheckpointError(f"{path}: holds a {shown(kind)}, expected one of {', '.join(_KINDS)}")
    return description


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
    return ", ".join(name[:200] for name in names[:3]) + (", …" if len(names) > 3 else "")


def check_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    """Looks at every weight once.

    Args:
        tensors: Tensors of a file.
        source: Name of the file, for the message.

    Raises:
        CheckpointError: Names the first tensor that holds whole numbers or truth values, or a NaN
            or an infinity.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source}: {name} holds {kind} values, weights are float16, bfloat16 or float32; "
                "convert it from the file that it was quantised from"
            )
        # A sum is finite only if all its terms are, and takes no memory; it may also overflow.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise CheckpointError(
                f"{source}: {name} holds {count:,} NaN or infinite of {tensor.numel():,} values; "
                "the weights are damaged: copy them again, or train from an earlier checkpoint"
            )
