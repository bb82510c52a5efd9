"""Integrated gradients: completeness, a sum of gradients by hand, and captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit.explain import METHODS
from minivit.explain.methods.input_gradient import class_gradient, over_patches
from minivit.explain.methods.integrated_gradients import integrate
from tests.explain.sharpened import PATCH, VARIANTS, WIDE, make_images, make_model, untouched

integrated_gradients = METHODS["integrated_gradients"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_parts_sum_to_the_difference_of_logits(variant: str) -> None:
    model, images = make_model(variant), make_images(size=WIDE)
    result = integrate(model, images, [1, 3], steps=64, signed=True)
    with torch.no_grad():
        logits = model(images) - model(torch.zeros_like(images))
    expected = logits[[0, 1], [1, 3]]
    torch.testing.assert_close(result.difference, expected)
    torch.testing.assert_close(result.error, result.attributions.sum((1, 2, 3)) - expected)
    assert float((result.error / expected).abs().max()) < 1e-3
    torch.testing.assert_close(result.maps.sum((1, 2)), expected + result.error)


def test_the_error_is_returned_where_the_steps_are_too_few() -> None:
    model, images = make_model(), make_images()
    errors = [integrate(model, images, 2, steps=steps).error.abs().max() for steps in (1, 8, 64)]
    assert errors[0] > errors[1] > 1000 * errors[2]
    assert errors[0] > 0.1  # half of the difference and more


def test_a_patch_gets_its_share_of_the_path_integral() -> None:
    """A plain sum of 400 gradients, each from the middle of its part of the way."""
    model, images = make_model("registers"), make_images(1)
    start = 0.3 * make_images(1, seed=5)
    result = integrate(model, images, 0, steps=64, baseline=start)
    total = torch.zeros_like(images)
    count = 400
    for alphas in torch.linspace(0.5 / count, 1 - 0.5 / count, count).double().split(200):
        points = start + alphas[:, None, None, None] * (images - start)
        total += class_gradient(model, points, 0).sum(0, keepdim=True) / count
    expected = (images - start) * total
    torch.testing.assert_close(result.attributions, expected, rtol=1e-3, atol=1e-5)
    for signed in (False, True):
        maps = integrated_gradients(model, images, 0, steps=64, baseline=start, signed=signed)
        torch.testing.assert_close(
            maps, over_patches(expected, PATCH, signed=signed), rtol=1e-3, atol=1e-5
        )


def test_what_equals_the_baseline_gets_nothing() -> None:
    model, images = make_model(), make_images()
    images[..., 6:12, 8:12] = 0.7  # row 1, col 2
    maps = integrated_gradients(model, images, 0, baseline=0.7)
    assert bool((maps[:, 1, 2] == 0).all()) and int((maps == 0).sum()) == 2
    same = integrate(model, images, 0, baseline=images)
    assert not same.maps.any() and not same.difference.any() and not same.error.any()


def test_baselines_of_every_shape() -> None:
    model, images = make_model(), make_images()
    colour = torch.tensor([0.1, -0.4, 0.9])[:, None, None]
    whole = colour.double().expand_as(images)
    expected = integrated_gradients(model, images, 0, steps=4, baseline=whole)
    maps = integrated_gradients(model, images, 0, steps=4, baseline=colour)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-8)  # colour is float32
    with pytest.raises(ValueError, match=r"the baseline is \(3,\), expected a number"):
        integrated_gradients(model, images, 0, baseline=torch.zeros(3))


def test_the_class_is_the_one_of_the_picture_and_neighbours_do_not_matter() -> None:
    model, images = make_model("both"), make_images(3)
    maps = integrated_gradients(model, images, steps=3)
    predicted = model(images).argmax(1)
    torch.testing.assert_close(maps, integrated_gradients(model, images, predicted, steps=3))
    alone = [integrated_gradients(model, images[i : i + 1], steps=3) for i in range(3)]
    torch.testing.assert_close(maps, torch.cat(alone))


def test_one_step_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make_model(), make_images()
    seen: list[Tensor] = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda pixels: seen.append(pixels) or embed(pixels))
    integrated_gradients(model, images, steps=5)
    assert len(seen) == 2 + 5 and {len(pixels) for pixels in seen} == {2}


def test_nothing_is_left_behind() -> None:
    model, images = make_model(dropout=0.3).train(), make_images()
    with untouched(model, images):
        result = integrate(model, images, steps=2)
    assert not any(each.requires_grad for each in result)
    with pytest.raises(ValueError, match="steps is 0"), untouched(model, images):
        integrate(model, images, steps=0)
    with pytest.raises(ValueError, match="class 5"), untouched(model, images):
        integrate(model, images, 5)


def test_half_precision_is_added_up_in_single() -> None:
    model, images = make_model("registers"), make_images()
    exact = integrated_gradients(model, images, 1, steps=2)
    maps = integrated_gradients(model.bfloat16(), images.bfloat16(), 1, steps=2)
    assert maps.dtype == torch.float32
    distance = float((maps - exact).norm() / exact.norm())
    assert distance < 0.1


@pytest.mark.parity
@pytest.mark.parametrize("variant", VARIANTS)
def test_captum_computes_the_same(variant: str) -> None:
    from captum import attr

    model, images, classes = make_model(variant), make_images(), torch.tensor([3, 1])
    start = 0.2 * make_images(seed=9)
    values, delta = attr.IntegratedGradients(model).attribute(
        images,
        baselines=start,
        target=classes,
        n_steps=11,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    result = integrate(model, images, classes, steps=11, baseline=start)
    # captum keeps the places of its steps in float32, also where pictures and model are float64.
    for ours, theirs in ((result.attributions, values), (result.error, delta)):
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=0, atol=1e-6)
