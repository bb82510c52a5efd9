"""From a photo to the tensor that a model was trained on: open, resize, crop, normalise.

    x = (pixels / 255 - mean) / std,   pixels: uint8, (height, width, C)  ->  x: float32, (C, H, W)

Sizes are rounded as the code behind the public weights rounds them: torchvision's Resize and
CenterCrop, timm's ResizeKeepRatio, CATR's under_max; the tensor equals theirs bit for bit. One
difference, on purpose: where the enlarged copy of a long strip would fill the memory, only the
part that is seen is made (equal up to two grey levels).

Next: `minivit/embeddings.py`, how the tensor becomes tokens.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from minivit.fields import (
    from_dict,
    is_number,
    is_tuple,
    is_whole,
    require,
    require_choice,
    to_dict,
)
from minivit.files import not_a_file
from minivit.plain_text import visible

Mode = Literal["crop", "squash", "fit_longest", "fit_shortest"]
CropRounding = Literal["even", "down"]
Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]

# Photo formats only: Pillow would hand an EPS file to Ghostscript, which runs it as a program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "ICO")
_MOST_PIXELS = 2**25  # of an enlarged copy made only to be cropped: 128 MB in Pillow's memory


class BadImageError(ValueError):
    """A picture that cannot be used; the message is one line: what was found, and what to do."""


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Opens a photo as an upright 8-bit RGB picture; of an animation, the first frame.

    The EXIF orientation is applied, other metadata (colour profile too) is dropped, the colours go
    through `to_rgb`. The file is closed on return. A JPEG of more than `PIL.Image.MAX_IMAGE_PIXELS`
    is decoded at half its width and height.

    Raises:
        BadImageError: the file is missing, a folder, empty, unreadable, damaged, not a picture, or
            larger than that limit (a JPEG: twice the limit, where Pillow itself refuses).
    """
    return _read(os.fspath(path))


def check_image(path: str | os.PathLike[str]) -> None:
    """Raises what `open_image` would raise, and returns nothing.

    All of the file is read, so that a missing end shows; of a JPEG only an eighth of the width and
    height is computed: 1.4 times as fast for photos of 500 pixels, 3 times for 4,000.
    """
    _read(os.fspath(path), shrink=8)


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a picture that `open_image` knows; the rest may still be damaged.

    Only the head of the file is read.
    """
    Image.init()
    if _other_kind(os.fspath(path)):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=_formats()).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # as in `_read`
        return False
    return True


def _formats() -> list[str]:
    """Those of our formats that this Pillow has."""
    return [known for known in _FORMATS if known in Image.OPEN]


def _read(name: str, shrink: int = 1) -> Image.Image:
    """The picture in a file; of a JPEG one of 1 / shrink of the size: 1, 2, 4 or 8."""
    Image.init()
    if kind := _other_kind(name):
        raise BadImageError(f"{visible(name)}: {kind}; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used; for size see below
            with Image.open(name, formats=_formats()) as image:
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                _limit(image, shrink)
                return to_rgb(_upright(image))
    except Exception as error:  # on damaged files Pillow's decoders raise anything, even KeyError
        raise BadImageError(f"{visible(name) or repr(name)}: {_explain(name, error)}") from error


def _other_kind(name: str) -> str:
    """What stands there instead of a file, so that it must not be opened; a folder is said later.

    A pipe would make its reader wait until somebody writes.
    """
    try:
        return "" if os.path.isdir(name) else not_a_file(name)
    except (OSError, ValueError):  # ValueError: a zero byte in the name; Pillow says the same
        return ""


def _limit(image: Image.Image, shrink: int) -> None:
    """Has a JPEG decoded smaller, also one above Pillow's limit; refuses what stays above it."""
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    width, height = image.size
    if shrink > 1 or width * height > limit:
        step = max(shrink, 2)
        image.draft(None, (max(1, width // step), max(1, height // step)))  # only JPEG knows how
    if math.prod(image.size) > limit:
        raise Image.DecompressionBombWarning(f"{width * height} pixels")


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any Pillow mode to 8-bit RGB; a picture that is plain RGB is returned as it is.

    Transparency is laid on white. Grey of more than 8 bits keeps its contrast: integers (I;16, I)
    are scaled from 0..65535, floats (F) from 0..1, or from 0..255 if they go above 1; what lies
    outside of these is stretched from its minimum to its maximum. EXIF is not looked at.

    Raises:
        TypeError: not a Pillow image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"expected a PIL image, found {type(image).__name__}; see open_image")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_eight_bit(image)).convert("RGB")
    if image.has_transparency_data:
        # The only way that Pillow knows out of premultiplied grey, La, leads through LA.
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """A copy turned as EXIF says; damaged EXIF data is no reason to refuse a photo."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        orientation = None
    bare = image.copy()
    bare.info = {key: value for key, value in image.info.items() if key == "transparency"}
    if orientation not in range(2, 9):
        return bare
    # exif_transpose writes the remaining tags back, and fails where one of them is broken: the copy
    # carries this single tag.
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    bare.info["exif"] = exif.tobytes()
    return ImageOps.exif_transpose(bare)


def _eight_bit(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Grey of any depth -> (height, width) uint8; the ranges are those that `to_rgb` states."""
    grey = np.asarray(image).astype(np.float64)
    finite = grey[np.isfinite(grey)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    largest = 65535.0 if image.mode != "F" else 1.0 if high <= 1 else 255.0
    if (low >= 0 and high <= largest) or low == high:
        low, high = min(low, 0.0), max(high, largest)
    grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low)
    scaled = np.rint((grey - low) * 255 / (high - low)).astype(np.uint8)
    if isinstance(key := image.info.get("transparency"), int):  # this level means "see-through"
        scaled[grey == key] = 255
    return scaled


def _explain(name: str, error: Exception) -> str:
    """What is wrong with a file that did not open, and what to do about it, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path"
    if os.path.isdir(name):
        return "this is a folder; give the path of a picture in it"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable (chmod +r)"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        match, limit = re.search(r"\d+ pixels", reason), Image.MAX_IMAGE_PIXELS
        size = match.group() if match else "too many pixels"
        return f"the picture has {size}, Pillow's limit is {limit}; make the picture smaller"
    if isinstance(error, UnidentifiedImageError):
        if os.path.getsize(name) == 0:
            return "the file is empty (0 bytes); copy or download it again"
        return "not a picture that Pillow can read here; save it as JPEG or PNG"
    return f"the picture cannot be read or is damaged ({reason}); copy or download it again"


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The transform that belongs to a set of weights; ValueError for impossible fields.

    Attributes:
        image_size: (height, width) in pixels; in the two fit modes the model gets another size.
        mode: crop: shorter side to floor(size / crop_fraction), then the centre, as is usual.
            squash: straight to floor(image_size / crop_fraction), the aspect is lost; then the
            centre.
            fit_longest: longer side to max(image_size), both sides cut by int(); CATR's way.
            fit_shortest: the whole photo, shorter side to min(image_size), both sides rounded to
            the nearest multiple of multiple_of; for a ViT on a grid that is not square.
        crop_fraction: Part of the resized picture that is kept, in (0, 1]; below 1 in modes crop
            and squash only.
        crop_rounding: Direction in which a centre between two pixels is rounded: even as
            torchvision and timm (Python's round), down as transformers; matters where the crop is
            not the whole.
        filter: Pillow's resampling filter. From version 13 on Pillow resizes some pictures, tall
            ones that are squashed say, in another order: their bytes are a level off those of
            version 12 (findings/pillow_13_order_of_passes.sh).
        mean: Mean of red, green and blue on the scale 0..1, which is subtracted; or one number: the
            model sees grey pictures, and colours are made grey before they are resized (Pillow's
            mode L, which torchvision's Grayscale and timm take too: 0.299 R + 0.587 G + 0.114 B).
        std: Standard deviation of the three, or of grey, by which the rest is divided.
        multiple_of: Patch size, or 1; each side of the result is a multiple of it.
    """

    image_size: tuple[int, int]
    mode: Mode
    crop_fraction: float = 1.0
    filter: Filter
    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple_of: int = 1
    crop_rounding: CropRounding = "even"

    def __post_init__(self) -> None:
        check = partial(require, self, what="preprocess")
        for name, choices in (("mode", Mode), ("filter", Filter), ("crop_rounding", CropRounding)):
            require_choice(self, name, choices, what="preprocess")
        sides, step = self.image_size, self.multiple_of
        good = is_tuple(sides, 2, lambda side: is_whole(side, 1, 2**31 - 1))
        check("image_size", good, "(height, width), above 0")
        count = 1 if is_tuple(self.mean, 1, is_number) else 3
        check("mean", is_tuple(self.mean, count, is_number), "3 finite numbers, or 1 for grey")
        good = is_tuple(self.std, count, is_number) and min(self.std) > 0
        check("std", good, f"{count} finite numbers above 0, as many as mean has")
        check("multiple_of", is_whole(step, 1), "a whole number above 0")
        good = is_number(self.crop_fraction, 0, 1) and self.crop_fraction > 0
        check("crop_fraction", good, "a number in (0, 1]")
        good = self.mode in ("crop", "squash") or self.crop_fraction == 1
        check("crop_fraction", good, f"1.0 in mode {self.mode}")
        check("multiple_of", self.mode != "fit_longest" or step == 1, "1 in mode fit_longest")
        good = self.mode == "fit_shortest" or all(side % step == 0 for side in sides)
        check("image_size", good, f"multiples of multiple_of={step}")

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""
        return len(self.mean)

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The region that the model sees, (left, top, right, bottom) in the photo's own pixels.

        Pixel (x, y) of the photo, as `open_image` gives it, covers x..x+1 and y..y+1. Raises
        BadImageError for a side below 1.
        """
        (x, y), (left, top, right, bottom) = self._plan(width, height)
        return left * width / x, top * height / y, right * width / x, bottom * height / y

    def view_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of what `view` gives for a photo of this size; raises as crop_box."""
        _, (left, top, right, bottom) = self._plan(width, height)
        return right - left, bottom - top

    def view(self, image: Image.Image) -> Image.Image:
        """The picture that the model sees, resized and cropped, before normalisation.

        Its mode is RGB, or L where the model sees grey.

        Raises BadImageError for no pixels, or where mode fit_shortest makes a strip of too many.
        """
        picture = to_rgb(image)
        if self.channels == 1:  # before the resize: a grey file keeps the levels that it has
            picture = picture.convert("L")
        size, cut = self._plan(*picture.size)
        seen = (cut[2] - cut[0], cut[3] - cut[1])
        resample = Image.Resampling[self.filter.upper()]
        if seen == size and math.prod(size) > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise BadImageError(
                f"the picture is {picture.size} pixels, in mode {self.mode} it becomes {size}: too "
                "many; crop it, or use mode crop or squash"
            )
        if seen == size or math.prod(size) <= max(_MOST_PIXELS, math.prod(picture.size)):
            return picture.resize(size, resample).crop(cut)
        # A long strip: resize only what is seen, with 4 pixels beside it (Lanczos reaches 3).
        box = self.crop_box(*picture.size)
        left, top = (max(0, math.floor(edge) - 4) for edge in box[:2])
        right, bottom = (
            min(s, math.ceil(e) + 4) for s, e in zip(picture.size, box[2:], strict=True)
        )
        inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        return picture.crop((left, top, right, bottom)).resize(seen, resample, box=inner)

    def __call__(self, image: Image.Image) -> Tensor:
        """A photo in any Pillow mode -> (C, H, W) float32, normalised; raises as `view` does.

        C is 3, or 1 for grey.
        """
        pixels = torch.from_numpy(np.array(self.view(image)))
        if self.channels == 1:
            return self.normalize(pixels[None])  # (H, W) -> (1, H, W)
        return self.normalize(pixels.permute(2, 0, 1).contiguous())  # (H, W, 3) -> (3, H, W)

    def normalize(self, pixels: Tensor) -> Tensor:
        """The last step alone: uint8 (..., C, H, W), already of the size, to float32."""
        statistics = torch.tensor([self.mean, self.std], dtype=torch.float32, device=pixels.device)
        mean, std = statistics[:, :, None, None]  # (2, C) -> twice (C, 1, 1)
        # in place, in memory of its own: three tensors less for the same bits
        return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON knows them (lists for tuples)."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of `to_dict`; raises ValueError for an unknown, missing or bad field.

        `crop_rounding` may be missing: the first checkpoints did not have it.
        """
        return from_dict(cls, values, "preprocess", required=("crop_fraction", "multiple_of"))

    def _plan(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """(width, height) of the resized picture, and the box that is cut out of it."""
        if width < 1 or height < 1:
            raise BadImageError(f"the picture is {width}x{height}; each side must be at least 1")
        short, long = min(width, height), max(width, height)
        out_height, out_width = self.image_size
        if self.mode == "fit_longest":
            scale = max(self.image_size) / long  # CATR's order: 550 * (299 / 550) is below 299
            size = (max(1, int(width * scale)), max(1, int(height * scale)))
        elif self.mode == "fit_shortest":
            # the nearest multiple, half up, in whole numbers: (2 a + b) // (2 b) rounds a / b
            twice, per_step = 2 * min(self.image_size), short * self.multiple_of
            columns, rows = ((twice * s + per_step) // (2 * per_step) for s in (width, height))
            size = (max(1, columns) * self.multiple_of, max(1, rows) * self.multiple_of)
        else:
            wide = math.floor(out_width / self.crop_fraction)
            high = math.floor(out_height / self.crop_fraction)
            if self.mode == "squash":
                size = (wide, high)
            elif wide == high:  # torchvision's Resize(int)
                longer = int(wide * long / short)
                size = (wide, longer) if width <= height else (longer, wide)
            else:  # timm's ResizeKeepRatio
                ratio = min(height / high, width / wide)
                size = (round(width / ratio), round(height / ratio))
            centre = round if self.crop_rounding == "even" else math.floor
            left, top = centre((size[0] - out_width) / 2), centre((size[1] - out_height) / 2)
            return size, (left, top, left + out_width, top + out_height)
        return size, (0, 0, *size)
