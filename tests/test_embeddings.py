"""Patches against a strided convolution; positions against other people's code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from minivit.embeddings import (
    PatchEmbedding,
    resize_position_embedding,
    sine_position_embedding,
)
from tests.references.seeded import seeded

REFERENCES = Path(__file__).parent / "references"

# As in references/make_positions.py: old grid, new grid, prefix rows; rows, cols, D, temperature.
RESIZES = {
    "larger": ((7, 7), (10, 15), 1),
    "smaller": ((14, 14), (6, 9), 2),
    "wide_to_tall": ((4, 6), (9, 5), 0),
    "same_number": ((6, 6), (4, 9), 1),
}
SINES = {"wide": (4, 6, 16, 10000), "tall": (5, 2, 8, 10000), "warm": (3, 3, 24, 100)}
RECIPES = {
    "timm": {},
    "dino": {"antialias": False, "offset": 0.1},
    "dinov2": {"antialias": True, "offset": 0.0},
}


@pytest.fixture(scope="module")
def references() -> dict[str, Tensor]:
    return load_file(REFERENCES / "positions.safetensors")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_token_is_a_patch_times_a_matrix() -> None:
    """Patch (1, 2) of 4 rows x 6 cols, cut out by hand, flattened, times E, plus the bias."""
    embed = PatchEmbedding((8, 8), 3, 16)
    images = torch.randn(2, 3, 32, 48)
    tokens = embed(images)
    assert embed.grid_for(32, 48) == (4, 6) and tokens.shape == (2, 24, 16)
    patch = images[:, :, 8:16, 16:24].flatten(1)  # (2, 3, 8, 8) -> (2, 192)
    matrix = embed.proj.weight.flatten(1).T  # (16, 3, 8, 8) -> (192, 16)
    torch.testing.assert_close(tokens[:, 1 * 6 + 2], patch @ matrix + embed.proj.bias)


# ---- patches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [(8, 8), (8, 4), (3, 6)])
def test_patch_embedding_is_a_strided_convolution(
    patch: tuple[int, int], channels: int, bias: bool
) -> None:
    embed = PatchEmbedding(patch, channels, 10, bias=bias)
    assert (embed.proj.bias is not None) == bias
    images = torch.randn(2, channels, 4 * patch[0], 6 * patch[1])
    expected = F.conv2d(images, embed.proj.weight, embed.proj.bias, stride=patch)
    tokens = embed(images)
    assert tokens.shape == (2, 24, 10)
    torch.testing.assert_close(tokens, expected.flatten(2).mT, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.mT.unflatten(2, (4, 6)), embed.proj(images))


def test_patches_come_row_by_row_from_the_top_left() -> None:
    embed = PatchEmbedding((8, 4), 3, 1, bias=False)
    with torch.no_grad():
        embed.proj.weight.fill_(1.0)
    for row, col in ((0, 0), (0, 5), (1, 0), (2, 3), (3, 5)):  # of 4 rows x 6 cols
        images = torch.zeros(1, 3, 32, 24)
        images[:, :, 8 * row : 8 * row + 8, 4 * col : 4 * col + 4] = 1.0
        bright = embed(images)[0, :, 0].nonzero().flatten().tolist()
        assert bright == [row * 6 + col]


def test_gradients_reach_pixels_and_kernel_as_through_a_convolution() -> None:
    embed = PatchEmbedding((4, 4), 3, 5)
    images = torch.randn(1, 3, 8, 12, requires_grad=True)
    inputs = [images, embed.proj.weight, embed.proj.bias]
    ours = torch.autograd.grad(embed(images).sin().sum(), inputs)
    theirs = torch.autograd.grad(embed.proj(images).sin().sum(), inputs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("height", "width", "nearest"),
    [(30, 48, "32x48"), (32, 45, "32x44"), (3, 48, "8x48"), (0, 48, "8x48")],
)
def test_pictures_that_do_not_divide_are_refused(height: int, width: int, nearest: str) -> None:
    embed = PatchEmbedding((8, 4), 3, 5)
    with pytest.raises(ValueError, match=rf"{height}x{width} .* 8x4.* {nearest}"):
        embed(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match=f"{height}x{width}"):
        embed.grid_for(height, width)
    assert embed.grid_for(32, 48) == (4, 12)


def test_the_grid_may_still_be_asked_for_by_its_old_name() -> None:
    embed = PatchEmbedding((8, 4), 3, 5)
    with pytest.warns(
        DeprecationWarning, match=r"PatchEmbedding\.grid_size is called grid_for now"
    ):
        assert embed.grid_size(32, 48) == (4, 12)


# ---- learned positions on another grid ---------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", RESIZES)
def test_resizing_is_that_of_the_stored_outputs(
    references: dict[str, Tensor], case: str, recipe: str
) -> None:
    (rows, cols), new_grid, num_prefix = RESIZES[case]
    old = seeded(case, (1, num_prefix + rows * cols, 8), 2021)
    new = resize_position_embedding(old, (rows, cols), new_grid, **RECIPES[recipe])
    assert new.shape == (1, num_prefix + new_grid[0] * new_grid[1], 8)
    torch.testing.assert_close(new, references[f"{recipe}.{case}"], atol=1e-5, rtol=0)
    assert torch.equal(new[:, :num_prefix], old[:, :num_prefix])


def test_the_recipes_differ(references: dict[str, Tensor]) -> None:
    """Or the comparison above could not tell them apart."""
    for case in RESIZES:
        assert (references[f"dino.{case}"] - references[f"timm.{case}"]).abs().max() > 1e-2


@pytest.mark.parametrize("antialias", [False, True])
def test_up_and_back_down_is_where_it_began(antialias: bool) -> None:
    rows, cols = torch.meshgrid(torch.linspace(0, 1, 8), torch.linspace(0, 1, 12), indexing="ij")
    smooth = torch.stack([rows, cols, (3 * rows).sin(), (2 * cols + rows).cos()], dim=-1)
    old = smooth.reshape(1, 96, 4)
    there = resize_position_embedding(old, (8, 12), (16, 24), antialias=antialias)
    back = resize_position_embedding(there, (16, 24), (8, 12), antialias=antialias)
    assert (back - old).abs().max() < 0.03
    middle = (back - old).reshape(8, 12, 4)[2:-2, 2:-2]
    assert middle.abs().max() < 0.01


def test_the_same_grid_changes_nothing() -> None:
    old = torch.randn(1, 25, 4)
    for offset in (0.0, 0.1):
        assert torch.equal(resize_position_embedding(old, (4, 6), (4, 6), offset=offset), old)


def test_the_same_number_of_cells_is_not_the_same_grid() -> None:
    """A map of 4 x 9 that is read as 6 x 6 has the right length and is wrong."""
    old = torch.randn(1, 36, 4)
    assert not torch.allclose(resize_position_embedding(old, (6, 6), (4, 9)), old)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_resizing_keeps_precision_and_gradients(dtype: torch.dtype) -> None:
    old = torch.randn(1, 26, 4, dtype=dtype, requires_grad=True)
    new = resize_position_embedding(old, (4, 6), (6, 9))
    assert new.dtype == dtype
    new.sum().backward()
    assert old.grad is not None and (old.grad != 0).all()


def test_too_few_embeddings_for_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"23 position embeddings .* 4 rows x 6 cols"):
        resize_position_embedding(torch.zeros(1, 23, 4), (4, 6), (6, 9))


# ---- sine positions ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", SINES)
def test_sine_positions_are_those_of_the_stored_outputs(
    references: dict[str, Tensor], case: str
) -> None:
    rows, cols, dim, temperature = SINES[case]
    position = sine_position_embedding(rows, cols, dim, temperature=temperature)
    assert position.dtype == torch.float32
    torch.testing.assert_close(position, references[f"sine.{case}"], atol=1e-6, rtol=0)


def test_sine_positions_say_where_they_are() -> None:
    position = sine_position_embedding(4, 6, 16).reshape(4, 6, 16)
    sin_x, cos_x, sin_y, cos_y = position.chunk(4, dim=-1)
    assert torch.equal(sin_x, sin_x[:1].expand_as(sin_x))  # the same in every row
    assert torch.equal(sin_y, sin_y[:, :1].expand_as(sin_y))  # the same in every column
    torch.testing.assert_close(sin_x[0, :, 0], torch.arange(6.0).sin())  # shortest wave: 2π cells
    torch.testing.assert_close(cos_y[:, 0, -1], (torch.arange(4.0) / 10000).cos())
    torch.testing.assert_close(sin_x.square() + cos_x.square(), torch.ones(4, 6, 4))


@pytest.mark.parametrize("dim", [0, 4, 10, 18])
def test_sine_positions_need_four_equal_parts(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"multiple of 4, from 8 on: {dim}"):
        sine_position_embedding(2, 3, dim)


# ---- live --------------------------------------------------------------------------------------


@pytest.mark.parity
def test_stored_positions_are_what_their_script_makes(references: dict[str, Tensor]) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("vit_pytorch")
    from tests.references import make_positions

    assert {name: tuple(case) for name, case in make_positions.RESIZES.items()} == RESIZES
    assert make_positions.SINES == SINES
    made = make_positions.make()
    assert made.keys() == references.keys()
    for name, tensor in made.items():
        torch.testing.assert_close(references[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize(("rows", "cols", "dim"), [(14, 14, 192), (16, 24, 64), (1, 5, 8)])
def test_sine_positions_are_vit_pytorchs(rows: int, cols: int, dim: int) -> None:
    simple_vit = pytest.importorskip("vit_pytorch.simple_vit")
    expected = simple_vit.posemb_sincos_2d(rows, cols, dim)
    torch.testing.assert_close(
        sine_position_embedding(rows, cols, dim), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parity
@pytest.mark.parametrize("new_grid", [(24, 24), (10, 15), (14, 21), (37, 37)])
def test_resizing_is_timms(new_grid: tuple[int, int]) -> None:
    layers = pytest.importorskip("timm.layers")
    old = torch.randn(1, 197, 32)
    expected = layers.resample_abs_pos_embed(old, list(new_grid), [14, 14], num_prefix_tokens=1)
    new = resize_position_embedding(old, (14, 14), new_grid)
    torch.testing.assert_close(new, expected, atol=1e-6, rtol=0)
