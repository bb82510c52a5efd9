"""Files of other programs: what they are, so that their owner hears what would convert.

They are told apart by their first bytes, by the fields they begin with or by what lies beside them,
never by the ending of their name. What their layouts are known from:

- magic bytes: GGUF and GGML (ggml's docs/gguf.md and its earlier loaders), HDF5 (file format
  specification, superblock), TensorFlow Lite (`file_identifier` in schema.fbs)
- protocol buffers, which have no magic (ONNX, Core ML, TensorFlow): `protobuf_kinds`
- MessagePack with the extension types 1 to 3 of flax.serialization
- LevelDB's table format, whose footer ends TensorFlow's checkpoints (tensor_bundle)
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from weights_convert.protobuf_kinds import protobuf_kind, read_fields

_HDF5, _HDF5_START = "an HDF5 file (Keras, TensorFlow)", b"\x89HDF\r\n\x1a\n"
_CHECKPOINT = "a TensorFlow checkpoint"
_CORE_ML = "a Core ML model"
_PADDLE = "weights of PaddlePaddle"

_MAGICS = (
    # (place, bytes, kind)
    (0, b"GGUF", "a GGUF model"),
    *((0, magic, "a GGML model") for magic in (b"lmgg", b"fmgg", b"tjgg")),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, _HDF5_START, _HDF5),
    (0, b'{"base_code":{"magic":"pir"', "a program of PaddlePaddle"),
)
_TABLE_END = bytes.fromhex("57fb808b247547db")  # LevelDB: the last 8 bytes of a table
_LAYOUTS = {  # the format that a .safetensors states, where tensors are not laid out as torch's
    "mlx": "weights in MLX's layout",
    "tf": "weights of TensorFlow",
    "flax": "weights of Flax",
}
# MessagePack, by marker: bytes of the length that stands before a value, and bytes of the value (of
# a dictionary or an array: of the number of its entries)
_LENGTHS_BEFORE = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_FIXED_LENGTHS = {
    **{0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8},
    **{0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4},
}
_LONGEST_HEADER = 100_000_000  # bytes, by the safetensors library
# members of an archive by torch.export, of today and before
_EXPORTED = ("/models/model.json", "serialized_exported_program.json")
_START = 512  # bytes that tell most kinds
_WINDOW = 1 << 20  # bytes at either end of a pickle that are searched


def refusal(path: str | os.PathLike[str]) -> str | None:
    """What to say about a file or folder that holds no checkpoint: what it is, and what to do.

    Args:
        path: As of `foreign_kind`.

    Returns:
        A sentence without the path; None for everything that may be a checkpoint.
    """
    start = _start_of(Path(path))
    if start == b"":
        return "the file is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights; fetch them with 'git lfs pull'"
    if kind := foreign_kind(path):
        return (
            f"{kind}, which cannot be converted; give the checkpoint that it was exported from "
            "(.safetensors, .pth or .npz)"
        )
    if start.lstrip().startswith(b"<"):
        return "a web page, not weights; the download went wrong"
    return None


def no_weights(path: Path) -> str:
    """What is wrong with a download that should be a checkpoint, or an empty string.

    A .safetensors, a zip file (.npz, .pth) and a pickle are told by their first bytes. Other files
    that lie beside weights, such as a vocabulary, are not asked about.
    """
    if sentence := refusal(path):
        return sentence
    start = _start_of(path)
    if is_safetensors(start) or start[:2] == b"PK" or start[:1] == b"\x80":
        return ""
    return f"it is no checkpoint, it begins with {start[:16]!r}"


def foreign_kind(path: str | os.PathLike[str]) -> str | None:
    """What a file or folder of another program is, such as "an ONNX model"; None: not known here.

    A checkpoint that weights_convert reads is never known here, whole or damaged. Nothing is
    unpickled or unpacked, and little is read, however large the file is.

    Args:
        path: The file, the folder, or what the names of a TensorFlow checkpoint's files begin with.
    """
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        return _CHECKPOINT if _is_part_of_checkpoint(path) else None
    with path.open("rb") as file:
        start = file.read(_START)
        if is_safetensors(start):
            return _kind_of_safetensors(file)
        if start.startswith(b"PK"):
            return _kind_of_zip(file)
        if start[:1] == b"\x80" and start[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
            return _PADDLE if _is_paddle_pickle(file) else None
        for place, magic, kind in _MAGICS:
            if start.startswith(magic, place):
                return kind
        if _is_openvino(start):
            return "an OpenVINO model"
        if _is_openvino(_start_of(path.with_suffix(".xml"))):
            return "weights of an OpenVINO model"
        if _is_part_of_checkpoint(path):
            return _CHECKPOINT
        if _is_paddle_tensor(start):
            return _PADDLE
        if _is_flax(file):
            return "Flax weights in MessagePack"
        return protobuf_kind(file) or (_HDF5 if _has_late_superblock(file) else None)


def is_safetensors(start: bytes) -> bool:
    """Whether a file that starts so is a .safetensors: the length of a header, then the header."""
    # A GGUF of 123 tensors has a brace in the same place, where its length would be astronomic.
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _start_of(path: Path) -> bytes:
    """The first bytes; of what is no file, bytes that mean nothing."""
    if not path.is_file():
        return b"\0"
    with path.open("rb") as file:
        return file.read(_START)


# ---- folders and neighbours ----------------------------------------------------------------------


def _kind_of_folder(folder: Path) -> str | None:
    if (folder / "Manifest.json").is_file() and (folder / "Data" / "com.apple.CoreML").is_dir():
        return _CORE_ML
    if (folder / "_CHECKPOINT_METADATA").is_file() and (folder / "_METADATA").is_file():
        return "an Orbax checkpoint (Flax, JAX)"
    onnx = folder / "onnx"  # where the Hugging Face hub keeps them
    files = [*folder.iterdir(), *(onnx.iterdir() if onnx.is_dir() else ())]
    for path in islice(sorted(path for path in files if path.is_file()), 100):
        if kind := foreign_kind(path):
            return f"{kind} ({path.relative_to(folder)})"
    return None


def _is_part_of_checkpoint(path: Path) -> bool:
    """Whether a TensorFlow checkpoint's table, which lists its tensors, is here or beside it."""
    stem = re.sub(r"\.(?:meta|data-\d{5}-of-\d{5})$", "", path.name)
    return any(_is_table(path.with_name(name)) for name in (path.name, stem, f"{stem}.index"))


def _is_table(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size < 48:  # the length of the footer
        return False
    with path.open("rb") as file:
        file.seek(-len(_TABLE_END), os.SEEK_END)
        return file.read() == _TABLE_END


def _is_openvino(start: bytes) -> bool:
    return start.startswith(b"<?xml") and b"<net " in start


# ---- containers that weights_convert reads too ---------------------------------------------------


def _kind_of_safetensors(file: BinaryIO) -> str | None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(length))
        metadata = header.get("__metadata__")
        if isinstance(metadata, dict) and "format" in metadata:
            return _LAYOUTS.get(metadata["format"])
        # MLX's own save_weights says nothing of itself; its kernels do.
        shapes = [tensor["shape"] for tensor in header.values() if tensor and "shape" in tensor]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None  # damaged: the safetensors library says where
    return _LAYOUTS["mlx"] if any(map(_has_channels_last, shapes)) else None


def _has_channels_last(shape: Any) -> bool:
    """Whether it is (D, size, size, 1 or 3): no torch kernel of a patch embedding looks so."""
    return (
        isinstance(shape, list)
        and len(shape) == 4
        and shape[3] in (1, 3)
        and shape[1] == shape[2] > 3
    )


def _kind_of_zip(file: BinaryIO) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if {"config.json", "metadata.json"} <= set(names):
        return "a Keras model"
    if any(name.endswith(_EXPORTED) for name in names):
        return "a program of torch.export"
    return None


def _is_paddle_pickle(file: BinaryIO) -> bool:
    """Whether the table of names is in it that paddle.save puts behind a state dictionary."""
    file.seek(0)
    start = file.read(_WINDOW)
    file.seek(max(0, file.seek(0, os.SEEK_END) - _WINDOW))
    name = b"StructuredToParameterName@@"
    return name in start or name in file.read()


# ---- PaddlePaddle's tensors, Flax's MessagePack, HDF5 --------------------------------------------


def _is_paddle_tensor(start: bytes) -> bool:
    """Whether a stream begins with a tensor: versions and levels of 0, its description's length."""
    if len(start) < 22 or any(start[:16]):
        return False
    (length,) = struct.unpack_from("<i", start, 16)
    if not 2 <= length <= len(start) - 20:
        return False
    fields = read_fields(io.BytesIO(start), 20, 20 + length)
    numbers = [field.number for field in fields if field.wire_type == 0]
    return numbers[:1] == [1] and set(numbers[1:]) <= {2}  # the type, then one size after another


def _is_flax(file: BinaryIO) -> bool:
    """Whether it is a MessagePack dictionary whose first extension is one of Flax's: an array."""
    file.seek(0)
    for index, (marker, extension) in enumerate(islice(_messagepack_values(file), 2000)):
        if index == 0 and not (0x81 <= marker <= 0x8F or marker in (0xDE, 0xDF)):
            return False  # no dictionary with something in it
        if index == 1 and not (0xA0 <= marker <= 0xBF or 0xD9 <= marker <= 0xDB):
            return False  # its first key is no string
        if extension is not None:
            return extension in (1, 2, 3)  # an array, a complex number, a number of numpy's
    return False


def _messagepack_values(file: BinaryIO) -> Iterator[tuple[int, int | None]]:
    """(marker, type of an extension or None) of each value; what a container has comes after it.

    Format: https://github.com/msgpack/msgpack/blob/master/spec.md
    """
    while marker_byte := file.read(1):
        marker, extension = marker_byte[0], None
        if 0xA0 <= marker <= 0xBF:  # a short string
            length = marker - 0xA0
        elif marker in _LENGTHS_BEFORE:
            length = int.from_bytes(file.read(_LENGTHS_BEFORE[marker]), "big")
        else:
            length = _FIXED_LENGTHS.get(marker, 0)
        if 0xC7 <= marker <= 0xC9 or 0xD4 <= marker <= 0xD8:
            extension = int.from_bytes(file.read(1), "big", signed=True)
        file.seek(length, os.SEEK_CUR)
        yield marker, extension


def _has_late_superblock(file: BinaryIO) -> bool:
    """Whether HDF5 begins behind a block of the user's: at 512 bytes, 1024, 2048 and so on."""
    size, place = file.seek(0, os.SEEK_END), 512
    while place < size:
        file.seek(place)
        if file.read(len(_HDF5_START)) == _HDF5_START:
            return True
        place *= 2
    return False
