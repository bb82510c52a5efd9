"""From a foreign checkpoint to a minivit model: read, recognise, rename, check, write."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from minivit.captioner import Captioner
from minivit.checkpoint import (
    CheckpointError,
    check_numbers,
    check_sizes,
    check_tensors,
    save_model,
)
from minivit.config import ResNetConfig, ViTConfig
from minivit.data.errors import BadDataError
from minivit.data.photos.class_names import read_class_names
from minivit.resnet import ResNet
from minivit.vit import VisionTransformer
from weights_convert.architecture import Hints, Parts, fit_channels
from weights_convert.formats import FORMATS
from weights_convert.heads import settle_head
from weights_convert.options import check_name, check_options
from weights_convert.reading import ConvertError, Source, read

POOLINGS = {"cls": "cls", "token": "cls", "mean": "mean", "avg": "mean"}  # timm's words too
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".tar", ".ckpt")


class Converted(NamedTuple):
    """What `convert` made.

    Attributes:
        model: In eval mode, on the CPU, in float32.
        format: The source's format.
        notes: Sentences: what was found, what was assumed, what was left out.
    """

    model: VisionTransformer | ResNet | Captioner
    format: str
    notes: tuple[str, ...]


def convert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    name: str | None = None,
    num_heads: int | None = None,
    activation: str | None = None,
    image_size: tuple[int, int] | None = None,
    pooling: str | None = None,
    which: str | None = None,
    prefix: str | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    head: str | os.PathLike[str] | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
) -> Converted:
    """Turns a public or a self-made checkpoint into a minivit model.

    Args:
        path: The file, or a folder in the layout of the Hugging Face hub.
        output: The .safetensors to write, in the precision of the source; None: none.
        format: One of `FORMATS`; None: recognised by the names of the tensors.
        name: Published name of the model, such as "vit_small_patch16_384"; None: the file's.
        num_heads: Heads of each attention, where neither shapes nor name tell.
        activation: Flavour of the MLPs, where neither the format nor the name tells.
        image_size: (height, width) in pixels, where the position grid is not square.
        pooling: What the head sees, "cls" or "mean", where neither tensors nor settings tell.
        which: Name of the set of weights to take, where a checkpoint holds several.
        prefix: Prefix of the names of the model to take, where there are several models.
        labels: Names of the classes: a file (a line each, or JSON), a folder with a folder a class
            (in torchvision's order), or the names themselves.
        head: A second file with the classification head (DINOv2's linear heads).
        vocabulary: The word-pieces of a captioner, one a line (BERT's vocab.txt).

    Raises:
        FileNotFoundError: No such file.
        ConvertError: What cannot be converted, in one sentence that says what to do; nothing is
            written.
        OSError: The output cannot be written.
    """
    source = read(path, which=which, prefix=prefix)
    where = str(source.path)
    if "minivit" in source.metadata:
        raise ConvertError(f"{where}: already a minivit checkpoint; open it as it is")
    if pooling is not None and pooling not in POOLINGS:
        raise ConvertError(f"unknown pooling {pooling!r}: choose cls or mean")
    format_is_given = format is not None
    format = format or recognise(source)
    if format not in FORMATS:
        raise ConvertError(f"unknown format {format!r}: choose from {', '.join(FORMATS)}")
    check_options(
        format,
        where,
        num_heads=num_heads,
        activation=activation,
        image_size=image_size,
        pooling=pooling,
        labels=labels,
        head=head,
        vocabulary=vocabulary,
    )
    if name is not None:
        check_name(name, format, format_is_given=format_is_given)
    if head is not None:
        _add_head(source, head)
    settle_head(source, format)
    hints = Hints(
        name or _stem(source.path),
        name is not None,
        num_heads=num_heads,
        activation=activation,
        image_size=image_size,
        pooling=POOLINGS.get(pooling or ""),
        vocabulary=vocabulary,
        notes=source.notes,
    )
    parts = _parts(source, format, hints)
    if labels is not None:
        parts.labels = read_labels(labels)
    fit_channels(parts, hints)
    _note_what_is_open(parts, source, hints)
    _note_nameless_classes(parts, hints)
    model = _build(parts, where)
    if output is not None:
        if Path(output).exists() and os.path.samefile(output, source.path):
            raise ConvertError(f"{output}: is the input itself; choose another name with -o")
        save_model(model, output)
    return Converted(model.float().eval(), format, tuple(hints.notes))


def _parts(source: Source, format: str, hints: Hints) -> Parts:
    """What the format makes of the file; whatever is wrong is said of the file."""
    module = importlib.import_module(f"weights_convert.formats.{format}")
    try:
        parts: Parts = module.convert(source, hints)
    except ConvertError:
        raise
    except KeyError as error:
        raise ConvertError(f"{source.path}: not {format}, it has no {error.args[0]!r}") from None
    except ValueError as error:
        raise ConvertError(f"{source.path}: {error}") from None
    except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        # A config.json is other people's: a text for a number, a list for a table.
        problem = f"what it says of itself is not as {format} has it ({error})"
        raise ConvertError(f"{source.path}: {problem}; compare its config.json") from error
    return parts


def _note_what_is_open(parts: Parts, source: Source, hints: Hints) -> None:
    """Says what a prefix does not tell about the photos, and what a head does not tell at all."""
    if not isinstance(parts.config, ViTConfig):
        return
    photos = parts.preprocess
    if source.prefix:
        height, width = photos.image_size
        shown = ", ".join(
            f"{name} {'/'.join(f'{value:g}' for value in values)}"
            for name, values in (("mean", photos.mean), ("std", photos.std))
        )
        hints.assume(
            f"photos {height}x{width}, {photos.mode}, {photos.filter}, {shown}: the script with "
            f"the prefix {source.prefix!r} may have prepared them otherwise"
        )
    head = parts.tensors.get("head.weight")
    if head is not None and not bool(head.any()):
        hints.notes.append(
            "the head is all zeros, as before fine-tuning: all logits are its bias; "
            "encode(images) gives features"
        )


def recognise(source: Source) -> str:
    """The format of a file, by the names of its tensors.

    Raises:
        ConvertError: None of `FORMATS`.
    """
    for format in FORMATS:
        if importlib.import_module(f"weights_convert.formats.{format}").recognises(source):
            return format
    names = sorted(source.tensors)
    stated = source.config.get("architectures") or source.config.get("model_type")
    raise ConvertError(
        f"{source.path}: a format that minivit does not know: {len(names)} tensors such as "
        f"{', '.join(names[:3])}"
        + (f", of {stated} by config.json" if stated else "")
        + f"; known: {', '.join(FORMATS)}"
    )


def _note_nameless_classes(parts: Parts, hints: Hints) -> None:
    """Says that nobody knows what the outputs mean, in time to say it."""
    if not isinstance(parts.config, ViTConfig) or not parts.is_classifier:
        return
    if parts.config.num_classes and parts.labels is None:
        hints.notes.append(
            f"the {parts.config.num_classes} classes have no names: predictions will be their "
            "numbers; give the names with --labels"
        )


def _stem(path: Path) -> str:
    """The file's name without its ending; of a folder's model.safetensors, the folder's name."""
    if path.name in ("model.safetensors", "pytorch_model.bin"):
        return path.absolute().parent.name
    for ending in _ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.name


def _add_head(source: Source, head: str | os.PathLike[str]) -> None:
    tensors = read(head).tensors
    for part in ("weight", "bias"):
        names = [name for name in tensors if name.split(".")[-1] == part]
        if len(names) != 1:
            raise ConvertError(f"{head}: not a linear head: {len(names)} tensors named {part}")
        source.tensors[f"linear_head.{part}"] = tensors[names[0]]


def read_labels(labels: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Names of classes from a file: a line each, a JSON list, or a JSON object {"0": "cat", …}.

    A folder with a folder a class, as torchvision's ImageFolder reads it, gives their names in its
    order: as text, so that "10" comes before "2".

    Raises:
        FileNotFoundError: No such file.
        ConvertError: A file or folder that names no classes so.
    """
    if not isinstance(labels, (str, os.PathLike)):
        return tuple(labels)
    if not Path(labels).exists():
        raise FileNotFoundError(f"{labels}: no such file; check --labels")
    try:
        return read_class_names(labels)
    except BadDataError as error:
        raise ConvertError(str(error)) from None


def _build(parts: Parts, source: str) -> VisionTransformer | ResNet | Captioner:
    """The model around the converted tensors, without a copy of them."""
    model: VisionTransformer | ResNet | Captioner
    try:
        check_sizes(parts.config, parts.preprocess, parts.tensors)
        with torch.device("meta"):
            if isinstance(parts.config, ViTConfig):
                model = VisionTransformer(
                    parts.config, preprocess=parts.preprocess, labels=parts.labels
                )
            elif isinstance(parts.config, ResNetConfig):
                model = ResNet(parts.config, preprocess=parts.preprocess)
            else:
                assert parts.tokenizer is not None
                model = Captioner(parts.config, parts.tokenizer, preprocess=parts.preprocess)
    except (
        ValueError,
        TypeError,
        RuntimeError,
        OverflowError,
    ) as error:  # sizes whose product is no int64
        raise ConvertError(f"{source}: {str(error).partition(chr(10))[0]}") from None
    tensors = {
        name: tensor.float() if tensor.dtype == torch.float64 else tensor
        for name, tensor in parts.tensors.items()
    }
    try:
        check_tensors(tensors, dict(model.state_dict()), source)
        check_numbers(tensors, source)
    except CheckpointError as error:
        raise ConvertError(str(error)) from None
    model.load_state_dict(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, assign=True
    )
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
