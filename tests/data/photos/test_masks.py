"""Masks are paired by stem, read by their values, and lie on a grid pixel by pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minivit.data.errors import BadDataError
from minivit.data.photos.masks import Mask, cell_shares, masked_photos, read_mask
from minivit.preprocess import Preprocess


def write(path: Path, values: list[list[int]], mode: str = "L") -> Path:
    """A PNG file with these values; of a palette, with these numbers of colours."""
    image = Image.fromarray(np.array(values, np.uint8))
    if mode == "P":
        image = image.copy()
        image.putpalette([0, 0, 0, 255, 0, 0] * 128)
    elif mode == "1":
        image = image.point(lambda value: 255 * (value > 0)).convert("1")
    image.save(path)
    return path


def full(object_mask: torch.Tensor) -> Mask:
    return Mask(object_mask, torch.ones_like(object_mask))


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "objects", "known"),
    [
        ([[1, 2, 3], [2, 2, 1]], [[1, 0, 0], [0, 0, 1]], [[1, 1, 0], [1, 1, 1]]),  # a trimap
        ([[2, 2, 3], [2, 2, 2]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 0], [1, 1, 1]]),
        ([[0, 255, 0], [0, 0, 255]], [[0, 1, 0], [0, 0, 1]], [[1, 1, 1], [1, 1, 1]]),  # white
        ([[0, 12, 255], [0, 3, 0]], [[0, 1, 0], [0, 1, 0]], [[1, 1, 0], [1, 1, 1]]),  # PASCAL VOC
        ([[0, 1, 2], [0, 3, 0]], [[0, 1, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]),  # 0: no trimap
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_values_say_what_is_object_and_what_is_known(
    tmp_path: Path, values: list[list[int]], objects: list[list[int]], known: list[list[int]]
) -> None:
    mask = read_mask(write(tmp_path / "mask.png", values), size=(3, 2))
    assert mask.object.dtype == mask.known.dtype == torch.bool
    assert mask.object.int().tolist() == objects
    assert mask.known.int().tolist() == known


def test_a_palette_is_read_by_its_numbers_and_two_colours_by_which_is_white(tmp_path: Path) -> None:
    """The colours of a palette's numbers mean nothing: here 2 is black, as 0 is."""
    palette = read_mask(write(tmp_path / "palette.png", [[0, 1, 2, 255]], "P"))
    assert palette.object.tolist() == [[False, True, True, False]]
    assert palette.known.tolist() == [[True, True, True, False]]
    bits = read_mask(write(tmp_path / "bits.png", [[0, 1, 0]], "1"))
    assert bits.object.tolist() == [[False, True, False]] and bits.known.all()


def test_what_is_no_mask_is_refused_in_one_line(tmp_path: Path) -> None:
    good = write(tmp_path / "good.png", [[0, 1, 1], [0, 0, 1]])
    colours = tmp_path / "colours.png"
    Image.new("RGB", (3, 2)).save(colours)
    jpeg = tmp_path / "jpeg.png"
    Image.new("L", (30, 20)).save(jpeg, "JPEG")
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:50])
    cases = [
        (good, (2, 3), "the mask is 3x2 and its photo 2x3; expected one pixel of mask"),
        (colours, None, "the mask has the mode RGB; expected one channel of 8 bits"),
        (jpeg, None, "the mask cannot be read .*; expected a PNG file of one channel"),
        (broken, None, "the mask cannot be read .*; expected a PNG file of one channel"),
        (tmp_path / "none.png", None, "the mask cannot be read .*No such file"),
    ]
    for path, size, message in cases:
        with pytest.raises(BadDataError, match=message) as caught:
            read_mask(path, size=size)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


# ---- pairs ---------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Photos 9 and 10, and masks of both, of a third and of no photo."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for folder in (photos, masks):
        folder.mkdir()
    for stem in ("10", "9"):
        Image.new("RGB", (3, 2)).save(photos / f"{stem}.jpg")
    for stem in ("9", "10", "11"):
        write(masks / f"{stem}.png", [[0, 1, 0], [0, 0, 0]])
    (photos / "notes.txt").write_text("no photo")
    (masks / "._9.png").write_bytes(b"of another system")
    return photos, masks


def test_photos_and_masks_are_paired_by_stem_in_natural_order(folders: tuple[Path, Path]) -> None:
    pairs = masked_photos(*folders)
    assert [(pair.photo.name, pair.mask.name) for pair in pairs] == [
        ("9.jpg", "9.png"),
        ("10.jpg", "10.png"),
    ]


def test_pairs_that_are_not_are_refused_in_one_line(folders: tuple[Path, Path]) -> None:
    photos, masks = folders
    (masks / "10.png").unlink()
    missing = r"masks: 1 photo of 2 without a mask: '10.jpg'; expected .* such as 10.png"
    with pytest.raises(BadDataError, match=missing):
        masked_photos(photos, masks)
    (masks / "9.png").rename(masks / "9.jpg")  # a lossy format keeps no values
    with pytest.raises(BadDataError, match=r"2 photos of 2 without a mask: '9.jpg', '10.jpg'"):
        masked_photos(photos, masks)
    Image.new("RGB", (3, 2)).save(photos / "9.png")
    with pytest.raises(BadDataError, match="photos: several photos are named '9'"):
        masked_photos(photos, masks)
    with pytest.raises(BadDataError, match="no photos in this folder; give the folder"):
        masked_photos(photos.parent, masks)
    with pytest.raises(BadDataError, match="nowhere: the folder cannot be read"):
        masked_photos(photos, masks / "nowhere")


# ---- cells ---------------------------------------------------------------------------------------


def test_cells_of_a_mask_whose_sides_are_no_multiples() -> None:
    """5 pixels in 2 rows, 3 columns in 2: a cell is 2.5 x 1.5 pixels, the middle ones are shared.

    The object is the pixel in the middle, a quarter of it in each cell, and the one at the top
    left; the pixel at the bottom right is not known.
    """
    objects, known = torch.zeros(5, 3, dtype=torch.bool), torch.ones(5, 3, dtype=torch.bool)
    objects[2, 1] = objects[0, 0] = True
    known[4, 2] = False
    cells = cell_shares(Mask(objects, known), (2, 2))
    area = 2.5 * 1.5
    torch.testing.assert_close(
        cells.share, torch.tensor([[1.25 / area, 0.25 / area], [0.25 / area, 0.25 / (area - 1)]])
    )
    torch.testing.assert_close(cells.known, torch.tensor([[1, 1], [1, (area - 1) / area]]))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
)
def test_no_pixel_is_lost_or_counted_twice(
    seed: int, height: int, width: int, rows: int, cols: int
) -> None:
    """Each pixel cut into rows x cols small ones: then a cell is height x width of them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 3, (height, width), generator=generator)
    mask = Mask(values == 1, values != 2)
    cells = cell_shares(mask, (rows, cols))

    def fraction(pixels: torch.Tensor) -> torch.Tensor:
        small = pixels.double().repeat_interleave(rows, 0).repeat_interleave(cols, 1)
        return small.reshape(rows, height, cols, width).mean((1, 3))

    known = fraction(mask.known)
    torch.testing.assert_close(cells.known, known.float())
    share = torch.where(known > 0, fraction(mask.object) / known, 0.0)
    torch.testing.assert_close(cells.share, share.float())
    assert torch.equal(
        cells.share >= 0.5, (2 * fraction(mask.object) >= known - 1e-12) & (known > 0)
    )


def test_a_cell_that_is_half_object_is_half_whatever_the_rounding() -> None:
    """Columns of 7/3 pixels: sums of thirds are off by 1e-16, and 0.5 must not become less."""
    objects = torch.zeros(6, 7, dtype=torch.bool)
    objects[::2] = True
    assert bool((cell_shares(full(objects), (3, 3)).share >= 0.5).all())
    assert bool((cell_shares(full(~objects), (3, 3)).share >= 0.5).all())


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (333, 257), (257, 257), (224, 224)])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_the_grid_lies_on_what_the_model_sees(size: tuple[int, int], fraction: float) -> None:
    """A photo that is white where its mask is: brightness of the view is the share of the cells."""
    width, height = size
    objects = torch.zeros(height, width, dtype=torch.bool)
    objects[height // 3 : height // 2 + 7, width // 5 : width // 2 + 11] = True
    preprocess = Preprocess(
        image_size=(96, 144),
        mode="crop",
        crop_fraction=fraction,
        filter="box",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    cells = cell_shares(full(objects), (8, 12), box=preprocess.crop_box(width, height))
    photo = Image.fromarray(objects.numpy().astype(np.uint8) * 255)
    seen = preprocess(photo)[0].reshape(8, 12, 12, 12).mean((1, 3))  # (96, 144) -> (8, 12)
    assert float(cells.share.max()) == 1.0 and float(cells.share.min()) == 0.0
    torch.testing.assert_close(cells.share, seen, atol=0.06, rtol=0)
    mirrored = replace(preprocess, crop_fraction=1.0).crop_box(width, height)
    if fraction < 1:  # another box is another map
        assert not torch.allclose(
            cells.share, cell_shares(full(objects), (8, 12), box=mirrored).share, atol=0.06
        )


def test_a_cell_of_which_nothing_is_known_is_none_of_the_object() -> None:
    objects, known = torch.zeros(2, 6, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    objects[:, :3] = True
    known[:, 2:4] = False
    cells = cell_shares(Mask(objects & known, known), (1, 3))
    assert cells.share.tolist() == [[1.0, 0.0, 0.0]]
    assert cells.known.tolist() == [[1.0, 0.0, 1.0]]


@pytest.mark.parametrize("box", [(0, 0, 4, 2), (-1, 0, 3, 2), (0, 0, 3, 3), (2, 0, 2, 2)])
def test_a_box_beyond_the_mask_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="does not lie on the mask, which is 3x2"):
        cell_shares(full(torch.ones(2, 3, dtype=torch.bool)), (1, 1), box=box)
