"""Maps without a model: against a few lines of numpy, and what a fair baseline needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minivit.explain import METHODS
from tests.explain.sharpened import PATCH, SIZE, WIDE, make_images, make_model, untouched

NAMES = ("random", "centre", "edges")


@pytest.mark.parametrize("size", [SIZE, WIDE])
@pytest.mark.parametrize("variant", ["registers", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_the_grid_is_the_pictures(name: str, variant: str, size: tuple[int, int]) -> None:
    model, images = make_model(variant), make_images(3, size)
    with untouched(model, images):
        maps = METHODS[name](model, images)
    assert maps.shape == (3, size[0] // PATCH[0], size[1] // PATCH[1])
    assert maps.dtype == torch.float64 and maps.is_contiguous()
    assert float(maps.min()) >= 0 and float(maps.std()) > 0
    assert METHODS[name](model, images.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_neither_model_nor_class_nor_neighbours_matter(name: str) -> None:
    images = make_images(3)
    maps = METHODS[name](make_model(), images)
    assert torch.equal(maps, METHODS[name](make_model("registers", seed=1), images, 3))
    torch.testing.assert_close(maps[1:2], METHODS[name](make_model(), images[1:2]))


def test_random_maps_are_uniform_and_differ_between_pictures_and_seeds() -> None:
    model, images = make_model(), make_images(200)
    maps = METHODS["random"](model, images)
    counts = torch.histc(maps, 10, min=0, max=1)  # 7200 values
    assert float((counts - 720).abs().max()) < 5 * 720**0.5
    strongest = maps.flatten(1).argmax(1).bincount(minlength=36)
    assert int(strongest.max()) < 20 and int((strongest > 0).sum()) > 30
    assert not bool((maps == METHODS["random"](model, images, seed=1)).any())
    with pytest.raises(ValueError, match="seed is -1"):
        METHODS["random"](model, images, seed=-1)


@pytest.mark.parametrize("width", [0.25, 0.1])
def test_the_blob_is_a_gaussian_in_the_middle(width: float) -> None:
    (height, length), images = WIDE, make_images(1, WIDE)
    blob = METHODS["centre"](make_model(), images, width=width)[0]
    for row in range(3):
        for col in range(8):
            y, x = (row + 0.5) * PATCH[0] / height, (col + 0.5) * PATCH[1] / length
            expected = np.exp(-((y - 0.5) ** 2 + (x - 0.5) ** 2) / (2 * width**2))
            assert float(blob[row, col]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(blob, blob.flip(0))
    torch.testing.assert_close(blob, blob.flip(1))


def test_a_blob_needs_a_width() -> None:
    for width in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="width is"):
            METHODS["centre"](make_model(), make_images(), width=width)


def test_edges_are_sobels() -> None:
    images = make_images(2)
    maps = METHODS["edges"](make_model(), images)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    for picture, image in enumerate(images.numpy()):
        grey = np.pad(image.mean(0), 1, mode="edge")
        strength = np.zeros(SIZE)
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                part = grey[y : y + 3, x : x + 3]
                strength[y, x] = np.hypot((part * kernel).sum(), (part * kernel.T).sum())
        expected = strength.reshape(4, PATCH[0], 9, PATCH[1]).mean((1, 3))
        np.testing.assert_allclose(maps[picture].numpy(), expected, rtol=1e-10)


def test_one_colour_has_no_edges_and_a_step_has_them_where_it_is() -> None:
    images = torch.full((1, 3, *SIZE), 0.7)
    assert float(METHODS["edges"](make_model(), images).max()) < 1e-5
    images[..., 18:] = -0.5  # within the fifth column of patches: 16 to 19
    maps = METHODS["edges"](make_model(), images)[0]
    assert float(maps[:, 4].min()) > 1
    maps[:, 4] = 0
    assert float(maps.max()) < 1e-5
    grey = METHODS["edges"](make_model(in_channels=1), make_images(channels=1))
    assert grey.shape == (2, 4, 9)
