"""SmoothGrad: a mean of gradients by hand, and what noise must do."""

from __future__ import annotations

import pytest
import torch

from minivit.explain import METHODS
from minivit.explain.chance import generators
from minivit.explain.methods.input_gradient import class_gradient, over_patches
from tests.explain.sharpened import PATCH, SIZE, VARIANTS, WIDE, make_images, make_model, untouched

smooth_gradient = METHODS["smooth_gradient"]


@pytest.mark.parametrize("size", [SIZE, WIDE])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_mean_gradient_of_noisy_copies(variant: str, size: tuple[int, int]) -> None:
    model, images = make_model(variant), make_images(size=size)
    maps = smooth_gradient(model, images, [0, 4], noise=0.2, samples=3, seed=7, signed=True)
    for picture, number in enumerate([0, 4]):
        image = images[picture]
        chance = generators(images, 7)[picture]
        expected = 0
        for _ in range(3):
            noise = torch.randn(image.shape, generator=chance).double()
            copy = image + 0.2 * (image.max() - image.min()) * noise
            expected = expected + class_gradient(model, copy[None], number) / 3
        expected = over_patches(expected, PATCH, signed=True)[0]
        torch.testing.assert_close(maps[picture], expected)


def test_without_noise_it_is_the_input_gradient() -> None:
    model, images = make_model("registers"), make_images()
    for signed in (False, True):
        torch.testing.assert_close(
            smooth_gradient(model, images, noise=0, samples=2, signed=signed),
            METHODS["input_gradient"](model, images, signed=signed),
        )


def test_signs_are_kept_until_the_mean() -> None:
    """The size of a mean is at most the mean of sizes, and below it where signs change."""
    model, images = make_model(), make_images()
    smooth = smooth_gradient(model, images, 0, noise=0.5, samples=8)
    singles = [
        smooth_gradient(model, images, 0, noise=0.5, samples=count) * count for count in (1, 8)
    ]
    chance = generators(images, 0)
    sizes = 0
    for _ in range(8):
        noise = torch.stack([torch.randn(images.shape[1:], generator=each) for each in chance])
        spread = images.amax((1, 2, 3)) - images.amin((1, 2, 3))
        copies = images + 0.5 * spread[:, None, None, None] * noise.double()
        sizes = sizes + over_patches(class_gradient(model, copies, 0), PATCH, signed=False) / 8
    assert bool((smooth < sizes).all())
    assert float(smooth.mean() / sizes.mean()) < 0.8
    assert not torch.equal(singles[0], singles[1])


def test_the_class_is_the_one_of_the_picture_without_noise() -> None:
    model, images = make_model(), make_images(4)
    predicted = model(images).argmax(1)
    options = {"noise": 1.0, "samples": 4}
    torch.testing.assert_close(
        smooth_gradient(model, images, **options),
        smooth_gradient(model, images, predicted, **options),
    )


def test_same_seed_same_map_alone_or_in_a_batch() -> None:
    model, images = make_model(), make_images(3)
    maps = smooth_gradient(model, images, samples=2)
    assert torch.equal(maps, smooth_gradient(model, images, samples=2))
    torch.testing.assert_close(maps[1:2], smooth_gradient(model, images[1:2], samples=2))
    assert not torch.allclose(maps, smooth_gradient(model, images, samples=2, seed=1))


def test_nothing_is_left_behind() -> None:
    model, images = make_model(dropout=0.3).train(), make_images()
    with untouched(model, images):
        maps = smooth_gradient(model, images, samples=2)
    assert not maps.requires_grad
    with pytest.raises(ValueError, match="class -1"), untouched(model, images):
        smooth_gradient(model, images, -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, "noise is -0.1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"samples": 0}, "samples is 0"),
        ({"samples": 2.5}, "samples is 2.5"),
        ({"seed": -3}, "seed is -3"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smooth_gradient(make_model(), make_images(), **options)


def test_half_precision_is_added_up_in_single() -> None:
    model, images = make_model("registers"), make_images().bfloat16().double()  # the same noise
    exact = smooth_gradient(model, images, 1, samples=2)
    maps = smooth_gradient(model.bfloat16(), images.bfloat16(), 1, samples=2)
    assert maps.dtype == torch.float32
    distance = float((maps - exact).norm() / exact.norm())
    assert distance < 0.1


@pytest.mark.parity
def test_captums_noise_tunnel_comes_to_the_same_map() -> None:
    """Its noise is other noise, so two means of many copies are compared."""
    from captum import attr

    model, images, classes = make_model("registers"), make_images(1), torch.tensor([2])
    samples, noise = 400, 0.05
    torch.manual_seed(0)
    tunnel = attr.NoiseTunnel(attr.Saliency(model))
    theirs = tunnel.attribute(
        images.clone().requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=samples,
        nt_samples_batch_size=50,
        stdevs=noise * float(images.max() - images.min()),
        target=classes,
        abs=False,
    )
    expected = over_patches(theirs.detach(), PATCH, signed=True)
    maps = smooth_gradient(model, images, classes, noise=noise, samples=samples, signed=True)
    plain = METHODS["input_gradient"](model, images, classes, signed=True)
    distance = float((maps - expected).norm())
    assert distance < 0.15 * float(expected.norm())
    assert distance < 0.5 * float((plain - expected).norm())
