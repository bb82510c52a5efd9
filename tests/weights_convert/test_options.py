"""Options that a source has no use for, and names that nobody published, are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.weights_convert.test_conversion import saved, weights
from tests.weights_convert.test_formats import stored, write
from weights_convert import ConvertError, convert
from weights_convert.options import check_name, check_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_giant_banana"}, "--name vit_giant_banana: no published model of timm"),
        ({"name": "vit_smal_patch16_224"}, "the nearest are vit_small_patch16_224"),
        ({"name": "B_16_imagenet1k"}, "--name B_16_imagenet1k: no published model of timm"),
        ({"vocabulary": "missing.txt"}, "--vocab does not apply to"),
        ({"head": "head.pth"}, "--head does not apply to"),
        ({"activation": "swish"}, "activation is 'swish': choose from gelu"),
        ({"num_heads": 5}, "num_heads is 5, which does not divide dim 32"),
        ({"pooling": "max"}, "unknown pooling 'max': choose cls or mean"),
        ({"which": "ema"}, "--which ema: no such set of weights"),
        ({"prefix": "net."}, "--prefix net.: no model has this prefix"),
    ],
)
def test_an_option_that_does_not_apply(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "mine.pth", weights())
    with pytest.raises(ConvertError) as caught:
        convert(path, **({"num_heads": 2} | options))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_heads_that_the_shapes_contradict(tmp_path: Path) -> None:
    path = write("jax", stored("jax"), tmp_path)
    with pytest.raises(ConvertError, match="--num-heads 8 contradicts what the file states: 2"):
        convert(path, num_heads=8, image_size=(32, 48))
    with pytest.raises(ConvertError, match=r"--which does not apply to a \.npz"):
        convert(path, which="model")


def test_an_activation_that_the_shapes_contradict(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights(activation="swiglu"))
    with pytest.raises(ConvertError, match="--activation relu contradicts the shapes of the MLPs"):
        convert(path, num_heads=2, activation="relu")


def test_an_activation_against_the_table_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", weights())
    converted = convert(path, num_heads=2, activation="relu")
    assert "relu, as --activation says, instead of gelu" in converted.notes


def test_what_applies_to_whom() -> None:
    check_options("catr", "f", vocabulary="v", num_heads=8, labels=None)
    check_options("timm", "f", num_heads=8, labels="l", pooling="cls")
    check_options("dinov2", "f", head="h")
    for format, option in (("catr", "labels"), ("resnet", "num_heads"), ("timm", "vocabulary")):
        with pytest.raises(ConvertError, match="does not apply to f"):
            check_options(format, "f", **{option: "x"})


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("vit_tiny_patch16_224", "timm"),
        ("vit_tiny_patch16_224.augreg_in21k", "timm"),
        ("vit_small_patch32_224-8f5de3a1", "timm"),
        ("vit_b_16", "torchvision"),
        ("vit_b_16_swag", "torchvision"),
        ("B_16_imagenet1k", "lukemelas"),
        ("ViT-B-32-laion2b", "open_clip"),
    ],
)
def test_published_names_are_known(name: str, format: str) -> None:
    check_name(name, format)


def test_a_class_token_that_is_not_there(tmp_path: Path) -> None:
    """Without it PyTorch-Pretrained-ViT classifies by the first patch."""
    reference = stored("lukemelas").weights
    del reference["class_token"]
    path = saved(tmp_path / "B_16.pth", reference)
    with pytest.raises(ConvertError, match=r"no class token; .* by the first patch"):
        convert(path, num_heads=2)
