"""Masks of photos: where the object is, and the part of each cell of a grid that it covers.

A mask is a PNG file of one channel, as large as its photo and upright. Its values are read in one
of three ways, by what occurs:

* 1, 2 and 3 alone (no 0): a trimap as of Oxford-IIIT Pets (Parkhi et al. 2012): object, background,
  and the border between them, of which nobody says which it is;
* 0 and 255 alone: black and white, the object is white;
* anything else: the object is what is above 0, and 255 marks pixels that are to be ignored, as in
  the label pictures of PASCAL VOC.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minivit.data.errors import BadDataError
from minivit.data.photos.folders import pictures_in
from minivit.data.photos.sets import listed, many
from minivit.files import not_a_file

_TRIMAP_OBJECT, _TRIMAP_BORDER = 1, 3
_WHITE = _IGNORED = 255
_ROUNDING = 1e-6  # part of a pixel or of a cell that sums of floating numbers may be off by
_MODES = {"1": "black and white", "L": "grey", "P": "a palette"}  # of one byte a pixel


Rule = Literal["trimap", "black and white", "above 0"]
"""The way in which a mask was read, in the order of the list above."""


class Mask(NamedTuple):
    """Where the object of a photo is, both (height, width) boolean.

    Attributes:
        object: Pixels of the object.
        known: Pixels of which the mask says whether they are object or not.
        rule: Rule by which the values of a file were read.
    """

    object: Tensor
    known: Tensor
    rule: Rule = "above 0"


class Cells(NamedTuple):
    """What a mask says of the cells of a grid, both (rows, cols) float32 from 0 to 1.

    Attributes:
        share: Part of the cell's known area that is object; 0 where nothing is known.
        known: Part of the cell's area of which the mask says something.
    """

    share: Tensor
    known: Tensor


class MaskedPhoto(NamedTuple):
    """A photo and the mask of the same stem."""

    photo: Path
    mask: Path


def masked_photos(photos: Path, masks: Path) -> list[MaskedPhoto]:
    """The photos of a folder, each with its mask, in natural order.

    Args:
        photos: Folder of photos.
        masks: Folder of PNG files; those of which there is no photo are not read.

    Raises:
        BadDataError: There are no photos, a photo has no mask, or two photos have the same stem.
    """
    files = pictures_in(photos)
    if not files:
        raise BadDataError.about(photos, "no photos in this folder", "give the folder with photos")
    by_stem = {path.stem: path for path in pictures_in(masks) if path.suffix.lower() == ".png"}
    stems = (path.stem for path in files)
    if twice := {stem for stem, count in Counter(stems).items() if count > 1}:
        advice = "a mask belongs to one photo: rename or remove the other"
        raise BadDataError.about(photos, f"several photos are named {listed(twice)}", advice)
    missing = [path.name for path in files if path.stem not in by_stem]
    if missing:
        problem = f"{many(len(missing), 'photo')} of {len(files):,} without a mask: "
        advice = f"expected a PNG file of the same stem, such as {Path(missing[0]).stem}.png"
        raise BadDataError.about(masks, problem + listed(missing), advice)
    return [MaskedPhoto(path, by_stem[path.stem]) for path in files]


def read_mask(path: Path, *, size: tuple[int, int] | None = None) -> Mask:
    """Reads a mask.

    Args:
        path: PNG file.
        size: (width, height) of the photo as `open_image` gives it; None: not compared.

    Raises:
        BadDataError: The file cannot be read, has colours, or is of another size than the photo.
    """
    pixels = _values(path)
    kinds = set(np.unique(pixels).tolist())
    values = torch.from_numpy(pixels)
    if size is not None and (values.shape[1], values.shape[0]) != size:
        problem = (
            f"the mask is {values.shape[1]}x{values.shape[0]} and its photo {size[0]}x{size[1]}"
        )
        advice = "expected one pixel of mask for each pixel of the photo, turned as EXIF says"
        raise BadDataError.about(path, problem, advice)
    if kinds <= {1, 2, 3}:
        return Mask(values == _TRIMAP_OBJECT, values != _TRIMAP_BORDER, "trimap")
    if kinds <= {0, _WHITE}:
        everywhere = torch.ones_like(values, dtype=torch.bool)
        return Mask(values == _WHITE, everywhere, "black and white")
    return Mask((values > 0) & (values != _IGNORED), values != _IGNORED)


def _values(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """(height, width) of a PNG file of one channel; of a palette the numbers of its colours."""
    try:
        if kind := not_a_file(path):
            raise OSError(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                mode = picture.mode
                values = np.array(picture) if mode in _MODES else None
    except Exception as error:  # on damaged files Pillow raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        problem = f"the mask cannot be read ({reason})"
        raise BadDataError.about(path, problem, "expected a PNG file of one channel") from error
    if values is None:
        problem = f"the mask has the mode {mode}"
        advice = f"expected one channel of 8 bits, {' or '.join(_MODES.values())}"
        raise BadDataError.about(path, problem, advice)
    return values.astype(np.uint8)


def cell_shares(
    mask: Mask,
    grid: tuple[int, int],
    *,
    box: tuple[float, float, float, float] | None = None,
) -> Cells:
    """What a mask says of each cell of a grid, measured by area.

    A cell counts the part of each pixel that lies in it, so that a grid of any size lies on a mask
    of any size, and no pixel is lost or counted twice.

    Args:
        mask: Mask of the whole photo.
        grid: (rows, cols).
        box: Region of the photo that the grid lies on, (left, top, right, bottom) in its pixels, as
            `Preprocess.crop_box` gives it; None: all of it.

    Raises:
        ValueError: The box is empty or reaches beyond the mask.
    """
    height, width = mask.object.shape
    left, top, right, bottom = box or (0, 0, width, height)
    if not (
        -_ROUNDING <= left < right <= width + _ROUNDING
        and -_ROUNDING <= top < bottom <= height + _ROUNDING
    ):
        raise ValueError(f"box {box} does not lie on the mask, which is {width}x{height}")
    rows = _overlaps(top, bottom, grid[0], height)
    cols = _overlaps(left, right, grid[1], width)
    object_area = rows @ mask.object.double() @ cols.T  # (height, width) -> (rows, cols)
    known_area = rows @ mask.known.double() @ cols.T  # (height, width) -> (rows, cols)
    area = (right - left) * (bottom - top) / (grid[0] * grid[1])
    # Sums of areas are exact to 1e-12; float32 makes a cell that is half object 0.5 and not less.
    is_known = known_area > _ROUNDING * area
    share = torch.where(is_known, object_area / known_area, 0.0)
    return Cells(share.clamp(0, 1).float(), (known_area / area).clamp(0, 1).float())


def _overlaps(first: float, last: float, count: int, size: int) -> Tensor:
    """(count, size): the length of pixel j that lies in part i of first..last, cut in `count`."""
    edges = torch.linspace(first, last, count + 1, dtype=torch.float64)
    pixels = torch.arange(size, dtype=torch.float64)
    begin = torch.maximum(edges[:-1, None], pixels)  # (count, size)
    end = torch.minimum(edges[1:, None], pixels + 1)  # (count, size)
    return (end - begin).clamp(min=0)
