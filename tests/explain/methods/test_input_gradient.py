"""Input gradient: against finite differences, a loop over patches, and captum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.explain import METHODS
from minivit.explain.methods.input_gradient import class_gradient, over_patches
from tests.explain.sharpened import PATCH, SIZE, VARIANTS, WIDE, make_images, make_model, untouched

input_gradient = METHODS["input_gradient"]


def patch_by_patch(values: np.ndarray, *, signed: bool) -> np.ndarray:
    """(C, height, width) to (rows, cols)."""
    high, wide = PATCH
    rows, cols = values.shape[1] // high, values.shape[2] // wide
    result = np.zeros((rows, cols))
    for row in range(rows):
        for col in range(cols):
            patch = values[:, row * high : (row + 1) * high, col * wide : (col + 1) * wide]
            result[row, col] = patch.sum() if signed else np.abs(patch).mean()
    return result


@pytest.mark.parametrize("size", [SIZE, WIDE])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_what_a_small_step_changes(variant: str, size: tuple[int, int]) -> None:
    model, images = make_model(variant), make_images(size=size)
    classes = [3, 1]
    gradient = class_gradient(model, images, classes)
    step = 1e-5
    for place in ((0, 0, 0), (1, 7, 5), (2, size[0] - 1, size[1] - 1), (0, 11, 18)):
        moved = torch.zeros_like(images)
        moved[(slice(None), *place)] = step
        with torch.no_grad():
            change = (model(images + moved) - model(images - moved)) / (2 * step)
        for picture, number in enumerate(classes):
            expected = change[picture, number].item()
            assert gradient[(picture, *place)].item() == pytest.approx(expected, rel=1e-5, abs=1e-8)
    assert not gradient.requires_grad


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("times_input", [False, True])
def test_a_patch_gets_the_mean_of_sizes_or_the_sum(times_input: bool, signed: bool) -> None:
    model, images = make_model("registers"), make_images()
    maps = input_gradient(model, images, 2, times_input=times_input, signed=signed)
    assert maps.shape == (2, 4, 9)
    gradient = class_gradient(model, images, 2)
    values = (gradient * images if times_input else gradient).numpy()
    for picture in range(2):
        expected = patch_by_patch(values[picture], signed=signed)
        np.testing.assert_allclose(maps[picture].numpy(), expected, rtol=1e-12, atol=1e-14)


def test_signed_and_times_input_is_the_slope_when_a_patch_fades_to_zero() -> None:
    model, images = make_model("mean"), make_images()
    maps = input_gradient(model, images, 0, times_input=True, signed=True)
    faded, step = images.clone(), 1e-5
    faded[..., 6:12, 8:12] *= 1 - step  # row 1, col 2
    with torch.no_grad():
        loss = (model(images) - model(faded))[:, 0] / step
    torch.testing.assert_close(maps[:, 1, 2], loss, rtol=1e-3, atol=1e-6)


def test_the_class_is_the_one_asked_for_or_the_predicted_one() -> None:
    model, images = make_model(), make_images(3)
    predicted = model(images).argmax(1)
    torch.testing.assert_close(
        input_gradient(model, images), input_gradient(model, images, predicted)
    )
    one = torch.stack([input_gradient(model, images, number) for number in range(5)])
    mixed = input_gradient(model, images, [4, 0, 2])
    torch.testing.assert_close(mixed, one[[4, 0, 2], [0, 1, 2]])
    assert float((one[0] - one[1]).abs().min()) > 0


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    model, images = make_model("distilled"), make_images(3)
    alone = [input_gradient(model, images[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(input_gradient(model, images), torch.cat(alone))


def test_pixels_that_are_not_seen_have_no_gradient() -> None:
    """A patch embedding that reads the first channel alone."""
    model, images = make_model(), make_images()
    with torch.no_grad():
        model.patch_embed.proj.weight[:, 1:] = 0
    gradient = class_gradient(model, images, 0)
    assert bool((gradient[:, 1:] == 0).all()) and bool((gradient[:, 0] != 0).all())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_is_left_behind(mode: str) -> None:
    model, images = make_model(dropout=0.3).train(mode == "train"), make_images()
    with untouched(model, images), torch.no_grad():
        first = input_gradient(model, images, 1)
    assert not first.requires_grad
    with pytest.raises(ValueError, match="class 9: choose from 0 to 4"), untouched(model, images):
        input_gradient(model, images, 9)


def test_pictures_of_inference_mode_are_taken_but_not_inside_it() -> None:
    model, images = make_model(), make_images()
    with torch.inference_mode():
        made_there = images.clone()
        with pytest.raises(ValueError, match="inference_mode"):
            input_gradient(model, images)
    assert torch.equal(input_gradient(model, made_there), input_gradient(model, images))


def test_a_model_without_a_head_has_no_class() -> None:
    with pytest.raises(ValueError, match="no head"):
        input_gradient(make_model(num_classes=0), make_images())


def test_grey_pictures_are_pictures() -> None:
    maps = input_gradient(make_model(in_channels=1), make_images(channels=1))
    assert maps.shape == (2, 4, 9)


def test_the_two_rules() -> None:
    values = torch.zeros(1, 2, 12, 8)
    values[0, 0, 0, 0], values[0, 1, 5, 3], values[0, 1, 6, 4] = 3.0, -1.0, 2.0
    signed = [[[2.0, 0.0], [0.0, 2.0]]]
    assert over_patches(values, PATCH, signed=True).tolist() == signed
    expected = torch.tensor([[[4.0, 0.0], [0.0, 2.0]]]) / 48  # 2 channels of 6 x 4 pixels
    torch.testing.assert_close(over_patches(values, PATCH, signed=False), expected)


def test_half_precision_is_added_up_in_single() -> None:
    model, images = make_model("registers"), make_images()
    exact = input_gradient(model, images, 1)
    maps = input_gradient(model.bfloat16(), images.bfloat16(), 1)
    assert maps.dtype == torch.float32
    distance = float((maps - exact).norm() / exact.norm())
    assert distance < 0.1


@pytest.mark.parity
@pytest.mark.parametrize("variant", VARIANTS)
def test_captum_computes_the_same(variant: str) -> None:
    from captum import attr

    model, images, classes = make_model(variant), make_images(), torch.tensor([3, 1])
    sizes = attr.Saliency(model).attribute(images.clone().requires_grad_(), classes)
    products = attr.InputXGradient(model).attribute(images.clone().requires_grad_(), classes)
    for values, options in (
        (sizes, {}),
        (products, {"times_input": True}),
        (products, {"times_input": True, "signed": True}),
    ):
        assert_same_maps(input_gradient(model, images, classes, **options), values, options)


def assert_same_maps(maps: Tensor, values: Tensor, options: dict[str, Any]) -> None:
    """Maps against pixels of somebody else."""
    expected = np.stack(
        [
            patch_by_patch(each, signed=bool(options.get("signed")))
            for each in values.detach().numpy()
        ]
    )
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-9, atol=1e-12)
