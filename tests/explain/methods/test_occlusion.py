"""Occlusion: window by window, by tokens left out and by pictures that are painted over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import METHODS, logits_of_kept
from tests.explain.sharpened import PATCH, SIZE, VARIANTS, WIDE, make_images, make_model, untouched

occlusion = METHODS["occlusion"]
CLASSES = [3, 1]


def blurred(image: np.ndarray, deviation: tuple[float, float]) -> np.ndarray:
    """(C, height, width) by the definition; a pixel beyond the edge is the nearest on it."""
    _, height, width = image.shape
    result = np.zeros_like(image)
    reach = [int(np.ceil(3 * each)) for each in deviation]
    weight = {
        (dy, dx): np.exp(-((dy / deviation[0]) ** 2 + (dx / deviation[1]) ** 2) / 2)
        for dy in range(-reach[0], reach[0] + 1)
        for dx in range(-reach[1], reach[1] + 1)
    }
    for (dy, dx), share in weight.items():
        y = np.clip(np.arange(height) + dy, 0, height - 1)
        x = np.clip(np.arange(width) + dx, 0, width - 1)
        result += share * image[:, y][:, :, x]
    return result / sum(weight.values())


def log_probability(logits: Tensor) -> Tensor:
    return (logits - logits.exp().sum(1, keepdim=True).log())[[0, 1], CLASSES]


@torch.no_grad()
def by_hand(model: VisionTransformer, images: Tensor, filling: str, window: int) -> Tensor:
    (high, wide), (height, width) = PATCH, images.shape[-2:]
    rows, cols = height // high, width // wide
    whole = log_probability(model(images))
    sums, counts = torch.zeros(2, rows, cols).double(), torch.zeros(rows, cols)
    for top in range(rows - window + 1):
        for left in range(cols - window + 1):
            place = slice(top, top + window), slice(left, left + window)
            if filling == "removed":
                kept = torch.ones(rows, cols)
                kept[place] = 0
                logits = logits_of_kept(model, images, kept.flatten().nonzero()[:, 0])
            else:
                other = np.zeros(images.shape)
                if filling == "blurred":
                    other = np.stack(
                        [blurred(each, (0.5 * high, 0.5 * wide)) for each in images.numpy()]
                    )
                pixels = (
                    ...,
                    slice(top * high, (top + window) * high),
                    slice(left * wide, (left + window) * wide),
                )
                painted = images.clone()
                painted[pixels] = torch.from_numpy(other)[pixels]
                logits = model(painted)
            sums[(slice(None), *place)] += (whole - log_probability(logits))[:, None, None]
            counts[place] += 1
    return sums / counts


@pytest.mark.parametrize(
    ("variant", "filling"),
    [(variant, filling) for variant in VARIANTS for filling in ("removed", "grey")]
    + [("clip", "blurred"), ("distilled", "blurred")],
)
def test_a_patch_gets_what_its_absence_costs(variant: str, filling: str) -> None:
    model, images = make_model(variant), make_images()
    options = {"filling": filling, "blur": 0.5}
    maps = occlusion(model, images, CLASSES, batch_size=16, **options)
    assert maps.shape == (2, 4, 9) and not maps.requires_grad
    torch.testing.assert_close(maps, by_hand(model, images, filling, 1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("filling", ["removed", "grey", "blurred"])
@pytest.mark.parametrize("window", [2, 3])
def test_a_patch_gets_the_mean_of_the_windows_over_it(window: int, filling: str) -> None:
    model, images = make_model("registers"), make_images(size=WIDE)
    maps = occlusion(model, images, CLASSES, filling=filling, window=window, blur=0.5)
    assert maps.shape == (2, 3, 8)
    expected = by_hand(model, images, filling, window)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("filling", ["removed", "grey"])
def test_batches_and_neighbours_do_not_matter(filling: str) -> None:
    model, images = make_model("distilled"), make_images(3)
    maps = occlusion(model, images, filling=filling)
    for size in (5, 1000):
        torch.testing.assert_close(maps, occlusion(model, images, filling=filling, batch_size=size))
    alone = [occlusion(model, images[i : i + 1], filling=filling) for i in range(3)]
    torch.testing.assert_close(maps, torch.cat(alone))


def test_the_predicted_class_is_that_of_the_whole_picture() -> None:
    model, images = make_model(), make_images(3)
    predicted = model(images).argmax(1)
    torch.testing.assert_close(occlusion(model, images), occlusion(model, images, predicted))


def test_grey_on_grey_and_blur_on_one_colour_change_nothing() -> None:
    model, images = make_model(), torch.zeros(1, 3, *SIZE).double()
    images += torch.tensor([0.3, -0.2, 0.5])[:, None, None]
    assert float(occlusion(model, images, filling="blurred").abs().max()) < 1e-12
    assert float(occlusion(model, images, filling="removed").abs().min()) > 0
    images[..., 6:12, 8:12] = 0  # row 1, col 2
    maps = occlusion(model, images, filling="grey")[0].abs()
    assert float(maps[1, 2]) < 1e-12
    maps[1, 2] = 1
    assert float(maps.min()) > 1e-9


def test_a_window_may_hide_all_from_a_class_token_but_not_from_a_mean() -> None:
    images = make_images(size=(12, 8))  # 2 x 2 patches
    model = make_model("registers")
    maps = occlusion(model, images, CLASSES, window=2)
    nothing = logits_of_kept(model, images, torch.zeros(0, dtype=torch.long))
    drop = log_probability(model(images).detach()) - log_probability(nothing)
    torch.testing.assert_close(maps, drop[:, None, None].expand(2, 2, 2))
    with pytest.raises(ValueError, match="none of the 2 x 2 patches"):
        occlusion(make_model("mean"), images, window=2)
    assert occlusion(make_model("mean"), images, window=2, filling="grey").shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filling": "black"}, "filling is 'black': choose from removed, grey, blurred"),
        ({"window": 0}, "window is 0"),
        ({"window": 5}, "4 rows x 9 cols of patches: use at most 4"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"blur": 0}, "blur is 0"),
        ({"target": 8}, "class 8"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_left_behind(
    options: dict[str, object], message: str
) -> None:
    model, images = make_model(), make_images()
    with pytest.raises(ValueError, match=message), untouched(model, images):
        occlusion(model, images, **options)


@pytest.mark.parametrize("filling", ["removed", "grey", "blurred"])
def test_nothing_is_left_behind(filling: str) -> None:
    model, images = make_model(dropout=0.3).train(), make_images()
    with untouched(model, images), torch.inference_mode():
        assert torch.equal(*(occlusion(model, images, filling=filling) for _ in range(2)))


@pytest.mark.parity
@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_captums_occlusion_paints_the_same_grey(variant: str, window: int) -> None:
    """It gives each pixel the mean over the windows that cover it: all pixels of a patch alike."""
    from captum import attr

    model, images, classes = make_model(variant), make_images(), torch.tensor(CLASSES)
    high, wide = PATCH
    theirs = attr.Occlusion(lambda pixels: model(pixels).log_softmax(1)).attribute(
        images,
        sliding_window_shapes=(3, window * high, window * wide),
        strides=(3, high, wide),
        target=classes,
        baselines=0,
    )
    maps = occlusion(model, images, classes, filling="grey", window=window)
    expected = theirs[:, 0, ::high, ::wide].double()  # captum adds up in float32
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)
