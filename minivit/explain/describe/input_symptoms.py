"""Causes of bad maps that lie in what a model is given: pixels, their grid, and their precision.

`doctor.py` says what each number is, and what cannot be told from pixels.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from minivit.attention import AttentionRows
from minivit.explain.describe.symptom import Symptom
from minivit.precision import widen
from minivit.vit import VisionTransformer


def input_range(model: VisionTransformer, images: Tensor) -> list[Symptom]:
    """How far the ends of the pixels lie from 0 and 1, once the normalisation is undone.

    Args:
        model: Model whose `preprocess` should have made the pixels.
        images: (1, C, height, width).

    Returns:
        One symptom; none where `preprocess` is for another number of channels.
    """
    preprocess = model.preprocess
    if preprocess.channels != images.shape[1]:
        return []
    pixels = widen(images[0]).flatten(1)  # (1, C, height, width) -> (C, height·width)
    std, mean = (torch.tensor(x).to(pixels)[:, None] for x in (preprocess.std, preprocess.mean))
    pixels = pixels * std + mean
    low, high = float(pixels.min()), float(pixels.max())
    threshold = 0.35  # a scene may end 0.25 from 0 or 1; pixels not normalised, 0.4 or more
    if low < -threshold or high > 1 + threshold:
        advice = "these pixels were not divided by 255, or were normalised twice or by others' mean"
    else:
        advice = "pixels from 0 to 1 that were never normalised look so, and so does a photo "
        advice += "without dark or bright places"
    return [
        Symptom(
            name="input range",
            number=max(abs(low), abs(high - 1)),
            threshold=threshold,
            text=f"the pixels reach from {low:.2f} to {high:.2f} with the normalisation of the "
            f"weights undone (mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}), "
            "those of photos from about 0 to 1",
            advice=f"{advice}: make inputs with model.preprocess(photo)",
        )
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def resolution(model: VisionTransformer, images: Tensor) -> Symptom:
    """How many times as many patches a side has as positions were learned for, or as few.

    Args:
        model: Model with the positions.
        images: (1, C, height, width).
    """
    grid, trained = model.patch_embed.grid_for(*images.shape[-2:]), model.grid_size
    factor = max(max(a / b, b / a) for a, b in zip(grid, trained, strict=True))
    height, width = model.config.image_size
    return Symptom(
        name="resolution",
        number=factor,
        threshold=1.5,
        text=f"the picture has {grid[0]} × {grid[1]} patches, and positions are made for "
        f"{trained[0]} × {trained[1]}: a factor of {factor:.2f} in a side",
        advice=f"positions are interpolated, farther than most weights were trained for: give "
        f"pictures of {height} × {width} pixels; weights trained at several sizes, as DINOv2's, "
        "bear it",
    )


def squash(model: VisionTransformer, photo_size: tuple[int, int]) -> Symptom:
    """How much more the model's transform shrinks one side of a photo than the other.

    Args:
        model: Model with the transform.
        photo_size: (width, height) of the photo.
    """
    preprocess = model.preprocess
    left, top, right, bottom = preprocess.crop_box(*photo_size)
    width, height = preprocess.view_size(*photo_size)
    across, down = width / (right - left), height / (bottom - top)
    factor = max(across / down, down / across)
    return Symptom(
        name="squashed photo",
        number=factor,
        threshold=1.25,
        text=f"the photo of {photo_size[0]} × {photo_size[1]} pixels became {width} × {height} "
        f"(width × height) by mode {preprocess.mode}: one side shrunk {factor:.2f} times as much",
        advice="things have other shapes than those that the model knows: cut the photo to the "
        "shape of the input, or use preprocess mode crop or fit_shortest",
    )


def half_precision(model: VisionTransformer, images: Tensor, half: torch.dtype) -> Symptom:
    """How much the rows of token 0 in half precision differ from those in float32, in all blocks.

    Args:
        model: Model in any precision; copies of it compute.
        images: (1, C, height, width).
        half: Half precision to compare.
    """
    rows = AttentionRows(blocks=range(len(model.blocks)), queries=[0])

    def weights(dtype: torch.dtype) -> Tensor:
        rounded = copy.deepcopy(model).to(dtype).eval()
        with torch.no_grad():
            return torch.stack(rounded(images.to(dtype), return_attention=rows)[1])

    # Weights in half precision are numbers of float32 too: to widen them changes none.
    difference = (weights(half) - weights(torch.float32)).abs()  # (L, 1, H, 1, N)
    number, block = float(difference.max()), int(difference.flatten(1).amax(1).argmax())
    name = str(half).removeprefix("torch.")
    return Symptom(
        name="half precision",
        number=number,
        threshold=0.01,
        text=f"in {name} a weight in the row of token 0 differs by {number:.4f} from that in "
        f"float32, in block {block}",
        advice="make maps in float32, outside autocast: minivit.load_model does so whatever the "
        "file holds",
    )
