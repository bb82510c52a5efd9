"""Every key of preprocessor_config.json is obeyed, or refused by its name.

What comes out is compared with transformers' own processors in `test_situations_hf.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minivit import Preprocess, ViTConfig
from weights_convert import ConvertError
from weights_convert.architecture import Hints
from weights_convert.transformers_classes import FAMILIES
from weights_convert.transformers_photos import read_photos

SQUARE = {"size": {"height": 32, "width": 32}}


def read(
    stated: dict[str, Any], kind: str = "vit", hints: Hints | None = None, **options: Any
) -> Preprocess:
    config = ViTConfig.from_name("vit_debug_patch8_32", **options)
    return read_photos(stated, FAMILIES[kind], config, hints or Hints(), "model.safetensors")


def pixels() -> Image.Image:
    """All levels of grey, in all three colours."""
    levels = np.arange(1024, dtype=np.int64).reshape(32, 32) % 256
    return Image.fromarray(np.stack([levels] * 3, axis=-1).astype(np.uint8))


def test_a_number_as_size_is_a_square_or_the_shorter_side_by_the_processor() -> None:
    """The published openai/clip-vit-base-patch32 says 224, and does not squash photos."""
    assert read({"size": 32}).mode == "squash"
    stated = {"size": 32, "crop_size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}
    assert read(stated, "clip").mode == "crop"
    assert read(stated, "vit").mode == "crop"  # the processor's class goes before the model's
    assert read({"size": 40, "crop_size": 32}, "deit").mode == "squash"


@pytest.mark.parametrize(
    ("stated", "factor", "mean", "std"),
    [
        ({}, 1 / 255, 0.5, 0.5),
        ({"do_normalize": False}, 1 / 255, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5, "do_normalize": False}, 1 / 127.5, 0.0, 1.0),
        ({"rescale_factor": 0.01}, 0.01, 0.5, 0.5),
        ({"do_rescale": False}, 1.0, 0.5, 0.5),
        ({"do_rescale": False, "do_normalize": False}, 1.0, 0.0, 1.0),
        ({"image_mean": 0.4, "image_std": 0.2}, 1 / 255, 0.4, 0.2),
        ({"do_normalize": None, "rescale_factor": None}, 1 / 255, 0.5, 0.5),  # null: the default
    ],
)
def test_switches_of_the_numbers(
    stated: dict[str, Any], factor: float, mean: float, std: float
) -> None:
    x = read(SQUARE | stated)(pixels())
    levels = torch.arange(1024, dtype=torch.float64).view(32, 32) % 256
    expected = (levels * factor - mean) / std
    scale = float(expected.abs().max())
    torch.testing.assert_close(x[1].double(), expected, atol=3e-7 * scale, rtol=0)


def test_a_resize_that_is_off_leaves_photos_of_the_size_alone_and_is_noted() -> None:
    hints = Hints()
    x = read(SQUARE | {"do_resize": False, "do_normalize": False}, hints=hints)(pixels())
    assert torch.equal((x[0] * 255).round().long().flatten(), torch.arange(1024) % 256)
    assert any("do_resize false" in note and "32x32" in note for note in hints.notes)


def test_crop_of_the_processors() -> None:
    preprocess = read({"size": {"shortest_edge": 40}, "crop_size": 32}, "clip")
    assert (preprocess.mode, preprocess.image_size) == ("crop", (32, 32))
    assert preprocess.crop_box(80, 40) == (24, 4, 56, 36)
    preprocess = read({"size": 40, "crop_size": 32}, "deit")
    assert preprocess.crop_box(40, 40) == (4, 4, 36, 36)
    preprocess = read({"size": 32, "do_center_crop": False}, "deit")
    assert preprocess.crop_box(60, 40) == (0, 0, 60, 40)
    stated = {"size": {"shortest_edge": 32}, "crop_pct": 0.8}
    convnext = {"image_processor_type": "ConvNextImageProcessor"}
    assert read(stated | convnext).crop_box(80, 40) == (24, 4, 56, 36)
    assert read({"size": {"shortest_edge": 384}} | convnext).mode == "squash"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"size": {"shortest_edge": 32}}, "shortest_edge and do_center_crop is off"),
        ({"size": {"longest_edge": 32}}, "size is {'longest_edge': 32}"),
        ({"size": 32, "do_center_crop": True, "crop_size": 48}, "crop_size is above size"),
        ({"size": [40, 32], "do_center_crop": True, "crop_size": 32}, "has another shape"),
        (
            SQUARE | {"do_resize": False, "do_center_crop": True, "crop_size": 32},
            "do_resize is off but do_center_crop is on",
        ),
        (SQUARE | {"do_pad": True}, "do_pad is on"),
        (SQUARE | {"do_flip_channel_order": True}, "do_flip_channel_order is on"),
        (SQUARE | {"image_mean": [0.5]}, "have 1 and 3 numbers"),
        (SQUARE | {"resample": 9}, "9 is not a valid"),
        ({"size": {"height": 36, "width": 36}}, "no whole number of patches of 8x8"),
    ],
)
def test_what_cannot_be_obeyed_is_named(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvertError, match=f"model.safetensors: preprocessor_config.*{message}"):
        read(stated)


def test_what_is_assumed_is_said() -> None:
    hints = Hints()
    preprocess = read({}, "dinov2", hints)
    assert any("no preprocessor_config.json beside" in note for note in hints.notes)
    assert preprocess.image_size == (224, 224) and preprocess.filter == "bicubic"
    hints = Hints()
    read(SQUARE | {"image_processor_type": "MyImageProcessor"}, hints=hints)
    assert any("MyImageProcessor" in note for note in hints.notes)
    hints = Hints()
    read(SQUARE | {"image_processor_type": "ViTImageProcessorFast"}, hints=hints)
    assert not hints.notes
