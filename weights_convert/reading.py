"""Opening other people's files without running anything that is in them.

A `.pth` or `.bin` is a pickle, a small program that could do anything to the machine that runs it.
torch reads it with `weights_only=True`, which knows tensors and plain containers and refuses the
rest. One harmless class is let through besides: `argparse.Namespace`, in which training scripts
keep their settings. A `.npz` is read with `allow_pickle=False`. What a file claims about sizes is
compared with its length before memory is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import pickletools
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minivit.files import not_a_file
from weights_convert.foreign_files import is_safetensors, refusal
from weights_convert.towers import CONTAINERS, TowerError, find_model
from weights_convert.towers import unwrap as unwrap

_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")  # pickle opcodes
_MOST_COMPRESSED = 8  # times its compressed size: more than any weights, less than a zip bomb


class ConvertError(ValueError):
    """A file that cannot be converted; the message is one sentence and says what to do."""


@dataclass
class Source:
    """What a file holds, before anybody knows what it means.

    Attributes:
        path: The file with the weights.
        tensors: By the source's own names.
        container: Name of the dictionary in the file that held them, such as "teacher"; else "".
        prefix: Prefix that was taken off every name.
        outside: Tensors that stood beside the model: a head, perhaps.
        notes: Sentences for the user: what was taken, what was left out.
        training: Settings of the training script that the file carries (timm's `args`).
        metadata: Strings in the header of a .safetensors file.
        config: The config.json or open_clip_config.json beside it; empty when there is none.
        processor: The preprocessor_config.json beside it; empty when there is none.
        is_numpy: Whether it was a .npz.
    """

    path: Path
    tensors: dict[str, Tensor]
    container: str = ""
    prefix: str = ""
    outside: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    is_numpy: bool = False


def read(
    path: str | os.PathLike[str], *, which: str | None = None, prefix: str | None = None
) -> Source:
    """Reads a checkpoint, or a folder in the layout of the Hugging Face hub.

    Args:
        path: `.safetensors`, `.pth`, `.pt`, `.bin`, `.npz` (told apart by content, not by name), or
            a folder with model.safetensors or pytorch_model.bin and its config.json.
        which: Name of the set of weights to take, where a checkpoint holds several.
        prefix: Prefix of the names of the model to take, where there are several models.

    Raises:
        FileNotFoundError: No such file, or a folder without weights.
        ConvertError: Empty, truncated, a file of another program (`foreign_files`), or one that
            holds more than weights.
    """
    file = Path(path)
    if file.is_dir():
        file = _weights_in(file)
    if sentence := refusal(file):
        raise ConvertError(f"{file}: {sentence}")
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file; check the path")
    if kind := not_a_file(file):
        raise ConvertError(f"{file}: {kind}; give the checkpoint as a file")
    try:
        read_source = _read_npz if _is_npz(file) else _read_torch
        source = read_source(file, which, prefix)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ConvertError(f"{file}: a damaged archive ({error}); download it again") from None
    for name, tensor in (source.tensors | source.outside).items():
        size = tensor.numel() * tensor.element_size()
        if not source.is_numpy and size > file.stat().st_size:
            raise ConvertError(
                f"{file}: {name} claims {size:,} bytes, the file has {file.stat().st_size:,}"
            )
    source.config = _read_json(file.parent / "config.json") or _read_json(
        file.parent / "open_clip_config.json"
    )
    # transformers 5 writes the processors of a model with text into one file
    source.processor = _read_json(file.parent / "preprocessor_config.json") or _read_json(
        file.parent / "processor_config.json"
    ).get("image_processor", {})
    return source


def _is_npz(path: Path) -> bool:
    """Whether it is a zip file of arrays alone."""
    if _is_safetensors(path) or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return is_safetensors(file.read(9))


def _read_torch(path: Path, which: str | None, prefix: str | None) -> Source:
    """A .safetensors or a file by torch.save: the model in it."""
    metadata: dict[str, str] = {}
    if _is_safetensors(path):
        content, metadata = _read_safetensors(path)
    else:
        content = _read_pickle(path, zipped=zipfile.is_zipfile(path))
    if not isinstance(content, dict):
        raise ConvertError(
            f"{path}: no dictionary of weights in it; found {type(content).__name__}, expected "
            f"tensors by name, or one of {', '.join(CONTAINERS)}"
        )
    try:
        model = find_model(content, which=which, prefix=prefix)
    except TowerError as error:
        raise ConvertError(f"{path}: {error}") from None
    return Source(
        path,
        model.tensors,
        model.container,
        prefix=model.prefix,
        outside=model.outside,
        notes=model.notes,
        training=_training(content),
        metadata=metadata,
    )


def _training(content: dict[Any, Any]) -> dict[str, Any]:
    """The settings that timm's training script saves beside the weights, as it names them."""
    settings = content.get("args")
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    stated = dict(settings) if isinstance(settings, dict) else {}
    if isinstance(content.get("arch"), str):
        stated = {"model": content["arch"]} | stated
    return stated


def _weights_in(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return folder / name
    if any((folder / f"adapter_model.{ending}").exists() for ending in ("safetensors", "bin")):
        raise ConvertError(
            f"{folder}: a PEFT adapter, not a model; merge it with merge_and_unload() of PEFT and "
            "save the model that comes out"
        )
    if (folder / "model.safetensors.index.json").exists():
        raise ConvertError(f"{folder}: weights in several files; save them as one first")
    if sentence := refusal(folder):
        raise ConvertError(f"{folder}: {sentence}")
    raise FileNotFoundError(f"{folder}: no model.safetensors or pytorch_model.bin in this folder")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    if kind := not_a_file(path):
        raise ConvertError(f"{path}: {kind}; remove it")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, a number without end, or too deep
        raise ConvertError(f"{path}: not JSON ({error}); mend or remove it") from None
    if not isinstance(values, dict):
        raise ConvertError(f"{path}: expected an object with fields, found {type(values).__name__}")
    return values


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the strings in the header."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ConvertError(
            f"{path}: not a whole .safetensors file ({error}); download it again"
        ) from None


def _read_npz(path: Path, which: str | None, prefix: str | None) -> Source:
    for flag, value in (("--which", which), ("--prefix", prefix)):
        if value is not None:
            raise ConvertError(f"{path}: {flag} does not apply to a .npz, which holds one model")
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                with archive.open(member) as packed:
                    claimed = _claimed_bytes(packed)
                if claimed > member.file_size or (
                    member.file_size > _MOST_COMPRESSED * max(1, member.compress_size) + 4096
                ):
                    raise ConvertError(
                        f"{path}: {member.filename} claims {claimed:,} bytes, "
                        f"{member.compress_size:,} are there"
                    )
                if member.compress_type == zipfile.ZIP_STORED:
                    _seek_content(file, member)  # read in one piece, which zipfile does not
                    array = np.load(file, allow_pickle=False)
                else:
                    with archive.open(member) as packed:
                        array = np.load(io.BytesIO(packed.read()), allow_pickle=False)
                name = member.filename.removesuffix(".npy")
                if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # numpy has no bfloat16
                    tensors[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
                elif array.dtype.kind in "fiu":
                    tensors[name] = torch.from_numpy(array)
    except ConvertError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # on damaged headers numpy raises anything, even a TokenError
        raise ConvertError(f"{path}: not a .npz of plain arrays ({error})") from None
    return Source(path, tensors, is_numpy=True)


def _seek_content(file: BinaryIO, member: zipfile.ZipInfo) -> None:
    """Goes to a stored member's first byte (PKWARE's APPNOTE, 4.3.7: local file header)."""
    file.seek(member.header_offset)
    name_length, extra_length = struct.unpack("<26x2H", file.read(30))
    file.seek(name_length + extra_length, os.SEEK_CUR)


def _claimed_bytes(file: Any) -> int:
    """Size of an array by the header of its .npy (format: numpy.lib.format)."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    return math.prod(shape) * dtype.itemsize


def _read_pickle(path: Path, *, zipped: bool) -> Any:
    if zipped:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise ConvertError(
                f"{path}: a TorchScript archive, which holds a program; where you trust it, load "
                "it with torch.jit.load, save its state_dict() with torch.save, and convert that"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ConvertError(
                f"{path}: a compressed archive, which torch.save does not make; unpack it first"
            )
    else:
        _check_storages(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of a pickle
            # a zipped file is mapped: what is not used, such as an optimizer's state, is not read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:  # on damaged files torch raises anything
        raise ConvertError(f"{path}: {_explain(error)}") from None


def _check_storages(path: Path) -> None:
    """Compares the sizes that an old torch file claims with its length, before torch believes them.

    The file begins with four pickles (magic number, protocol, machine, content); a tensor's storage
    stands in the content as the tuple ("storage", type, key, device, number of elements, None).
    """
    length, largest = path.stat().st_size, 0
    with path.open("rb") as file, contextlib.suppress(Exception):  # torch itself reports damage
        for _ in range(4):
            number = 0
            for opcode, argument, _position in pickletools.genops(file):
                if opcode.name in _INTEGERS:
                    number = int(argument or 0)
                elif opcode.name == "BINPERSID":  # ends the tuple
                    largest = max(largest, number)
    if largest > length:
        raise ConvertError(
            f"{path}: claims a tensor of {largest:,} numbers, the file has {length:,} bytes"
        )


def _explain(error: Exception) -> str:
    """What torch's refusal means, and what to do."""
    message = " ".join(str(error).split())
    if unsafe := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"holds a Python object of {unsafe[1]} beside the weights, and opening that would run "
            "code of the file; where you trust it, save only its state_dict() and convert that"
        )
    if isinstance(error, (EOFError, OSError)) or "failed finding central directory" in message:
        return "truncated; download it again"
    # torch's own message is advice on its flags, with the reason in the middle of it
    reason = re.split(r"\. | Check the doc", message.rpartition("WeightsUnpickler error: ")[2])[0]
    return (
        f"not a checkpoint that torch can read ({reason[:120]}); give a .safetensors, .pth or .npz"
    )
