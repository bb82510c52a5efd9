"""IDX files, the format of MNIST and of Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747).

As its authors specify it beside http://yann.lecun.com/exdb/mnist/, high byte first::

    0  0  type  dimensions      type 8: unsigned bytes; 3 dimensions: images, 1: labels
    size of each dimension      4 bytes each
    values                      the last dimension changes fastest

Fashion-MNIST comes as Debian's package dataset-fashion-mnist, in /usr/share/datasets/fashion-mnist.

For training such a folder is one layout of photos among others: `read_photos` gives its pictures,
which are in memory, as it gives photos in files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from minivit.data.errors import BadDataError
from minivit.data.photos.idx_files import PARTS, file_name, find_idx
from minivit.data.photos.idx_files import has_idx as has_idx
from minivit.data.photos.sets import PhotoSet, PhotoSplits
from minivit.data.text_files import Split

_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
FASHION_NAMES = (*_CLOTHES, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# SHA-256 of the 10,000 test labels, by which Fashion-MNIST differs from the digits: the shapes of
# the two are the same.
_FASHION_LABELS = "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"
_PIECE = 1 << 20  # bytes read at once


class IdxData(NamedTuple):
    """Grey pictures uint8 (n, height, width), usually 28 × 28, and labels int64 (n,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of Fashion-MNIST's classes where these are its labels, else numbers from 0."""
        labels = self.test_labels.to(torch.uint8).numpy().tobytes()
        if hashlib.sha256(labels).hexdigest() == _FASHION_LABELS:
            return FASHION_NAMES
        highest = max(int(self.train_labels.max()), int(self.test_labels.max()))
        return tuple(str(label) for label in range(highest + 1))


def read_idx(folder: Path) -> IdxData:
    """Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two of `t10k`.

    Each file plain or as `.gz`; `train-images.idx3-ubyte`, as some copies are called, is read too.

    Raises:
        BadDataError: A file is missing, is no IDX file of unsigned bytes with as many dimensions,
            or has another length than it says; images and labels differ in number, training and
            test images in size; there are no images.
    """
    tensors: list[Tensor] = []
    for part in PARTS:
        images_file, images = _part(folder, part, "images")
        labels_file, labels = _part(folder, part, "labels")
        if len(images) != len(labels):
            problem = f"{len(labels)} labels for the {len(images)} images of {images_file.name}"
            raise BadDataError.about(labels_file, problem, "expected one an image; copy both again")
        if tensors and images.shape[1:] != tensors[0].shape[1:]:
            sizes = [tuple(images.shape[1:]), tuple(tensors[0].shape[1:])]
            problem = f"images of {sizes[0]} pixels, those of training have {sizes[1]}"
            raise BadDataError.about(images_file, problem, "copy the files of one data set")
        tensors += [images, labels.long()]
    return IdxData(*tensors)


def split_idx(folder: Path, *, seed: int, held_out: float, limit: int = 0) -> PhotoSplits:
    """The pictures of a folder for training; the files of `t10k` are for the test.

    Args:
        folder: Folder with the four files.
        seed: Seed for the random order of the training pictures.
        held_out: Fraction of them, the first in this order, that is held out for validation.
        limit: Number of the others to keep; 0: all of them.

    Raises:
        BadDataError: As `read_idx`; pictures of one class alone; nothing to train or validate on.
    """
    data = read_idx(folder)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.train_labels), generator=random)
    count = round(held_out * len(order))
    validation = _photo_set(data.train_images, data.train_labels, order[:count])
    train = _photo_set(data.train_images, data.train_labels, order[count:]).first(limit)
    test = _photo_set(data.test_images, data.test_labels)
    if len(set(data.train_labels.tolist())) < 2:
        problem = f"only one class, {int(data.train_labels[0])}, among the training pictures"
        raise BadDataError.about(folder, problem, "expected two or more")
    for part, use in ((train, "train"), (validation, "validate")):
        if not len(part):
            problem = f"{len(order)} training pictures, none to {use} on"
            raise BadDataError.about(folder, problem, "hold out another share of them")
    names = data.class_names
    description = (
        f"IDX files: {len(train):,} pictures of {len(names)} classes to train on, "
        f"{len(validation):,} held out (seed {seed}), {len(test):,} to test on"
    )
    return PhotoSplits(train, validation, names, description, names, test)


def idx_part(folder: Path, split: Split) -> tuple[PhotoSet, tuple[str, ...]]:
    """The pictures of one part, in the order of the file, and the names of the classes.

    Raises:
        BadDataError: As `read_idx`; another split than train and test.
    """
    data = read_idx(folder)
    if split not in PARTS:
        raise BadDataError.about(folder, f"no split {split}", f"found {', '.join(PARTS)}")
    images, labels = (data.train_images, data.train_labels)
    if split == "test":
        images, labels = data.test_images, data.test_labels
    return _photo_set(images, labels, description=f"IDX files, {split} part"), data.class_names


def _photo_set(
    images: Tensor, labels: Tensor, chosen: Tensor | None = None, *, description: str = ""
) -> PhotoSet:
    """These pictures of a file in this order; None: all of them as they come."""
    chosen = torch.arange(len(labels)) if chosen is None else chosen
    return PhotoSet(
        paths=(),
        labels=tuple(labels[chosen].tolist()),
        names=tuple(str(number) for number in chosen.tolist()),
        description=description,
        pixels=images[chosen],
    )


# ---- the files -----------------------------------------------------------------------------------


def _part(folder: Path, part: str, what: str) -> tuple[Path, Tensor]:
    """The file and its values, uint8."""
    path = find_idx(folder, part, what)
    if path is None:
        problem = f"no {file_name(part, what)}, plain or as .gz"
        raise BadDataError.about(folder, problem, "expected all four files of a data set")
    dimensions = 3 if what == "images" else 1
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = _read_as_said(file, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"the file cannot be read ({' '.join(str(error).split())})"
        raise BadDataError.about(path, problem, "copy or download it again") from error
    return path, parse_idx(path, data, dimensions=dimensions)


def _read_as_said(file: io.BufferedIOBase, dimensions: int) -> bytearray:
    """A header and as many values as it says, and one byte more, which shows that there are others.

    Packed files of 12 MB can hold gigabytes of zeros; what no header asked for is not unpacked.
    """
    start = 4 + 4 * dimensions
    data = bytearray(file.read(start))
    is_idx = len(data) == start and data[:4] == _magic(dimensions)
    wanted = start + math.prod(_sizes(data, dimensions)) + 1 if is_idx else 0
    while len(data) < wanted:
        # In pieces: a header may say more than any memory holds, and the file be short.
        if not (piece := file.read(min(_PIECE, wanted - len(data)))):
            break
        data += piece
    return data


def _magic(dimensions: int) -> bytes:
    return bytes((0, 0, 8, dimensions))


def _sizes(data: bytes | bytearray, dimensions: int) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4)]


def parse_idx(path: Path, data: bytes | bytearray, *, dimensions: int) -> Tensor:
    """The values of an IDX file of unsigned bytes, uint8, in the shape that it states.

    Args:
        path: Name of the file, for errors.
        data: Content of the whole file, unpacked.
        dimensions: Number of dimensions that it has to have.

    Raises:
        BadDataError: Another magic number or length, or a dimension of size 0.
    """
    magic = _magic(dimensions)
    start = 4 + 4 * dimensions
    if data[:4] != magic or len(data) < start:
        problem = f"begins with {data[:4].hex(' ') or 'nothing'} and has {len(data):,} bytes"
        advice = f"expected an IDX file: {magic.hex(' ')}, then {dimensions} sizes of 4 bytes"
        raise BadDataError.about(path, problem, advice)
    sizes = _sizes(data, dimensions)
    number = len(data) - start
    if number != math.prod(sizes) or 0 in sizes:
        shape = " × ".join(f"{size:,}" for size in sizes)
        there = f"{number:,}" if number < math.prod(sizes) else "more"
        problem = f"{there} values, its header says {shape}"
        raise BadDataError.about(path, problem, "copy or download it again")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).reshape(sizes)
