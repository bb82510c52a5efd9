"""preprocessor_config.json of transformers as a `Preprocess`: every switch is obeyed, or refused.

The image processors resize, crop (from the centre, rounded down), multiply by `rescale_factor` and
normalise, each step under a switch `do_…`. A missing or null key is the processor class's own
default. What is compared in `make parity` are the Pillow processors, bit by bit; with another
factor than 1/255, to the last digit of float32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image

from minivit.config import ViTConfig
from minivit.preprocess import Mode, Preprocess
from weights_convert.architecture import CLIP_MEAN, CLIP_STD, HALF, Hints, preprocessing
from weights_convert.reading import ConvertError
from weights_convert.transformers_classes import Family

_FILE = "preprocessor_config.json"
_SHORTEST_224 = {
    "size": {"shortest_edge": 224}, "default_to_square": False,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
    "resample": 3, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
}  # fmt: skip
# The classes' own values, transformers 5.24. An int as `size` is a square or the shorter side.
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {
        "size": {"height": 224, "width": 224}, "default_to_square": True,
        "resample": 2, "image_mean": HALF, "image_std": HALF,
    },
    "DeiT": {
        "size": {"height": 256, "width": 256}, "default_to_square": True,
        "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
        "resample": 3, "image_mean": HALF, "image_std": HALF,
    },
    "Siglip": {
        "size": {"height": 224, "width": 224}, "default_to_square": False,
        "resample": 3, "image_mean": HALF, "image_std": HALF,
    },
    "CLIP": _SHORTEST_224,
    "ChineseCLIP": _SHORTEST_224,
    "Bit": _SHORTEST_224,
    "ConvNext": {
        "size": {"shortest_edge": 384}, "default_to_square": False, "crop_pct": 224 / 256,
        "resample": 3, "image_mean": HALF, "image_std": HALF,
    },
}  # fmt: skip
_SWITCHES = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}


def read_photos(
    stated: Mapping[str, Any], family: Family, config: ViTConfig, hints: Hints, where: str
) -> Preprocess:
    """How photos are prepared for a model.

    Args:
        stated: What preprocessor_config.json holds; empty: as the published models are used, which
            a note says.
        family: The model's.
        config: The model's.
        hints: For the notes.
        where: The file's name, for messages.

    Raises:
        ConvertError: A step that `Preprocess` cannot do, by its key in the file.
    """
    values: dict[str, Any] = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
    }
    if stated:
        name = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or "")
        processor = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
        if name and processor not in PROCESSORS:
            hints.assume(
                f"photos as {family.processor}ImageProcessor takes them: {_FILE} names {name}, "
                "which minivit does not know"
            )
        values |= PROCESSORS.get(processor, PROCESSORS[family.processor])
        values |= {key: value for key, value in stated.items() if value is not None}
    else:
        hints.assume(
            f"photos as the published models of this kind take them: there is no {_FILE} beside"
        )
        values |= PROCESSORS[family.processor] | _with_models_size(family.photos, config)
    for key, value in values.items():
        if key.startswith("do_") and value and key not in _SWITCHES:
            raise _refusal(where, f"{key} is on, a step that minivit does not have", values)
    try:
        plan = _plan(values, config, hints, where)
        mean, std = _statistics(values, config.in_channels)
        if stated and {len(mean), len(std)} != {config.in_channels}:
            raise ValueError(
                f"image_mean and image_std have {len(mean)} and {len(std)} numbers, the model "
                f"takes pictures of {config.in_channels} channels"
            )
        image_filter = Image.Resampling(values["resample"]).name.lower()
        preprocess = preprocessing(
            plan.seen,
            mean,
            std,
            filter=image_filter,
            mode=plan.mode,
            crop_fraction=plan.fraction,
            crop_rounding="down",
        )
    except ConvertError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ConvertError(f"{where}: {_FILE}: {error}") from None
    for pixels, patch in zip(plan.seen, config.patch_size, strict=True):
        if pixels % patch:
            raise ConvertError(
                f"{where}: {_FILE} makes pictures of {_text(plan.seen)} pixels, no whole number of "
                f"patches of {_text(config.patch_size)}"
            )
    return preprocess


class _Plan(NamedTuple):
    """Resize and crop in `Preprocess`'s terms."""

    mode: Mode
    seen: tuple[int, int]
    fraction: float


def _plan(values: Mapping[str, Any], config: ViTConfig, hints: Hints, where: str) -> _Plan:
    crop = _crop_size(values)
    if not values["do_resize"]:
        if crop is not None:
            raise _refusal(where, "do_resize is off but do_center_crop is on", values)
        hints.notes.append(
            f"{_FILE} says do_resize false: photos of {_text(config.image_size)} pixels stay as "
            "they are, others are resized to that here, which transformers does not do"
        )
        return _Plan("squash", config.image_size, 1.0)
    size = _size(values)
    if "crop_pct" in values and "shortest_edge" in size:  # ConvNextImageProcessor
        side = int(size["shortest_edge"])
        if side >= 384:
            size = {"height": side, "width": side}
        elif crop is None:
            crop, size = (side, side), {"shortest_edge": int(side / values["crop_pct"])}
    if set(size) == {"height", "width"}:
        resized = (int(size["height"]), int(size["width"]))
        if crop is None or crop == resized:
            return _Plan("squash", resized, 1.0)
        mode: Mode = "squash"
    elif set(size) == {"shortest_edge"}:
        if crop is None:
            raise _refusal(where, "size is a shortest_edge and do_center_crop is off", values)
        if crop[0] != crop[1]:
            raise _refusal(where, "size is a shortest_edge and crop_size is not square", values)
        resized = (int(size["shortest_edge"]),) * 2
        mode = "crop"
    else:
        raise _refusal(where, f"size is {size}, which gives pictures of many shapes", values)
    if crop[0] > resized[0] or crop[1] > resized[1]:
        raise _refusal(where, "crop_size is above size, which pads with black", values)
    # half a pixel more, so that rounding down gives the whole number again
    fraction = 1.0 if crop == resized else crop[0] / (resized[0] + 0.5)
    if tuple(math.floor(side / fraction) for side in crop) != resized:
        raise _refusal(where, f"crop_size {_text(crop)} has another shape than size", values)
    return _Plan(mode, crop, fraction)


def _size(values: Mapping[str, Any]) -> dict[str, Any]:
    """`size` in the form of a dictionary, without what is null."""
    size = values["size"]
    if isinstance(size, Mapping):
        return {key: value for key, value in size.items() if value is not None}
    if isinstance(size, (list, tuple)):
        return {"height": size[0], "width": size[1]}
    if values["default_to_square"]:
        return {"height": size, "width": size}
    return {"shortest_edge": size}


def _crop_size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the centre that is cut out; None: all is kept."""
    if not values.get("do_center_crop"):
        return None
    size = values["crop_size"]
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return (int(size[0]), int(size[1])) if isinstance(size, (list, tuple)) else (size, size)


def _statistics(
    values: Mapping[str, Any], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std for pixels / 255, where the processor has pixels times its own factor f.

    (pixels f - mean) / std = (pixels / 255 - mean / (255 f)) / (std / (255 f))
    """
    mean, std = (
        (float(value),) * channels if isinstance(value, (int, float)) else tuple(map(float, value))
        for value in (values["image_mean"], values["image_std"])
    )
    if not values["do_normalize"]:
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    factor = 255 * float(values["rescale_factor"]) if values["do_rescale"] else 255.0
    if not math.isclose(factor, 1):
        mean, std = tuple(m / factor for m in mean), tuple(s / factor for s in std)
    return mean, std


def _with_models_size(photos: Mapping[str, Any], config: ViTConfig) -> dict[str, Any]:
    """The settings with the model's own size for None."""
    height, width = config.image_size
    sides = {"height": height, "width": width, "shortest_edge": min(config.image_size)}

    def fill(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: sides[key] if side is None else side for key, side in value.items()}

    return {key: fill(value) for key, value in photos.items()}


def _refusal(where: str, what: str, values: Mapping[str, Any]) -> ConvertError:
    sizes = ", ".join(
        f"{key} {values[key]}" for key in ("size", "crop_size") if values.get(key) is not None
    )
    return ConvertError(
        f"{where}: {_FILE}: {what} ({sizes}): minivit cannot prepare photos so; change it there, "
        "or remove the file to take photos as the published models do"
    )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
