"""Planted attention shows up in the cell where it was planted, on grids that are not square."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minivit import AttentionRows, VisionTransformer, ViTConfig
from minivit.explain import class_attention, query_attention

ROWS, COLS = 4, 6  # pictures of 3:2


def make_model(**options: object) -> VisionTransformer:
    return VisionTransformer(
        ViTConfig.from_name("debug_patch8_32", **({"image_size": (32, 48)} | options))
    ).eval()


def plant(model: VisionTransformer, token: int, row: int, col: int, weight: float) -> Tensor:
    """(2, 2, N, N) weights: even, but one token of picture 1 gives `weight` to one cell."""
    prefix = model.num_prefix_tokens
    length = prefix + ROWS * COLS
    attention = torch.full((2, 2, length, length), 1 / length)
    rest = (1 - weight) / (length - 1)
    attention[1, :, token] = rest
    attention[1, :, token, prefix + row * COLS + col] = weight
    return attention


PREFIXES = [
    {},
    {"num_register_tokens": 4},
    {"distillation_token": True},
    {"distillation_token": True, "num_register_tokens": 3},
]


@pytest.mark.parametrize("options", PREFIXES)
@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 5), (3, 0), (2, 4), (3, 5)])
def test_a_planted_peak_is_in_its_cell(options: dict[str, object], row: int, col: int) -> None:
    model = make_model(**options)
    attention = plant(model, 0, row, col, 0.9)
    maps = class_attention([torch.rand_like(attention), attention], model)
    assert maps.shape == (2, ROWS, COLS)
    assert maps[1, row, col].item() == pytest.approx(0.9)
    assert (maps[1] > 0.5).sum() == 1
    torch.testing.assert_close(maps[0], torch.full((ROWS, COLS), 1 / attention.shape[-1]))


@pytest.mark.parametrize("options", [*PREFIXES, {"class_token": False, "pooling": "mean"}])
def test_any_query_has_a_map(options: dict[str, object]) -> None:
    model = make_model(**options)
    for token in (model.num_prefix_tokens + 7, -1):
        maps = query_attention(plant(model, token, 2, 3, 0.7), model, row=token)
        assert maps.shape == (2, 2, ROWS, COLS)
        assert (maps[1, :, 2, 3] > 0.6).all() and (maps > 0.5).sum() == 2


def test_class_attention_is_the_mean_over_heads_of_the_first_row() -> None:
    model = make_model(num_register_tokens=2)
    attentions = [torch.rand(2, 2, 27, 27).softmax(-1) for _ in range(3)]
    for block in (-1, 0, 1):
        maps = class_attention(attentions, model, block=block)
        for picture in range(2):
            for row in range(ROWS):
                for col in range(COLS):
                    weights = attentions[block][picture, :, 0, 3 + row * COLS + col]
                    expected = (weights[0] + weights[1]) / 2
                    assert maps[picture, row, col].item() == pytest.approx(expected.item())


def test_a_map_sums_to_one_minus_what_prefix_tokens_got() -> None:
    model = make_model(num_register_tokens=2)
    attention = torch.rand(2, 2, 27, 27).softmax(-1)
    maps = class_attention([attention], model)
    expected = 1 - attention[:, :, 0, :3].sum(-1).mean(1)
    torch.testing.assert_close(maps.sum((1, 2)), expected)


@torch.no_grad()
def test_rows_give_the_maps_of_the_whole() -> None:
    model = make_model(num_register_tokens=2)
    images = torch.randn(2, 3, 32, 48)
    _, whole = model(images, return_attention=[-1])
    _, rows = model(images, return_attention=AttentionRows(blocks=[-1], queries=[0, 9]))
    torch.testing.assert_close(class_attention(rows, model), class_attention(whole, model))
    torch.testing.assert_close(
        query_attention(rows[0], model, row=1), query_attention(whole[0], model, row=9)
    )


def test_the_row_may_still_be_called_query() -> None:
    model = make_model()
    attention = torch.rand(2, 2, 25, 25).softmax(-1)
    with pytest.warns(DeprecationWarning, match="query is called row now"):
        maps = query_attention(attention, model, query=9)
    assert torch.equal(maps, query_attention(attention, model, row=9))


def test_pictures_of_another_size_need_their_grid() -> None:
    model = make_model()
    images = torch.randn(1, 3, 48, 72)
    with torch.no_grad():
        _, attentions = model(images, return_attention=[-1])
    with pytest.raises(ValueError, match="54 patches are not a grid of 4 rows x 6 cols"):
        class_attention(attentions, model)
    grid = model.patch_embed.grid_for(48, 72)
    assert class_attention(attentions, model, grid_size=grid).shape == (1, 6, 9)
    with pytest.raises(ValueError, match="54 patches are not a grid of 9 rows x 9 cols"):
        class_attention(attentions, model, grid_size=(9, 9))


def test_without_a_class_token_there_is_no_class_attention() -> None:
    model = make_model(class_token=False, pooling="mean")
    with pytest.raises(ValueError, match="no class token: use query_attention"):
        class_attention([torch.rand(1, 2, 24, 24)], model)


def test_maps_carry_gradients() -> None:
    model = make_model()
    _, attentions = model(torch.randn(1, 3, 32, 48), return_attention=True)
    class_attention(attentions, model)[0, 2, 3].backward()
    gradient = model.patch_embed.proj.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


@pytest.mark.parametrize("options", PREFIXES)
@pytest.mark.parametrize(("row", "col"), [(0, 5), (3, 0), (2, 4)])
@torch.no_grad()
def test_a_model_that_looks_for_brightness_finds_the_bright_patch(
    options: dict[str, object], row: int, col: int
) -> None:
    """From pixels to map: every query asks for channel 0, and channel 0 is brightness."""
    model = make_model(depth=1, num_heads=2, **options)
    for parameter in model.parameters():
        parameter.zero_()
    model.patch_embed.proj.weight[0] = 1.0
    block = model.blocks[0]
    block.norm1.weight.fill_(1.0)
    for head in (0, 16):
        block.attn.qkv.bias[head] = 3.0  # the first channel of q, head by head
        block.attn.qkv.weight[32 + head, 0] = 3.0  # the first channel of k: brightness
    images = torch.zeros(1, 3, 32, 48)
    images[:, :, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] = 1.0
    _, attentions = model(images, return_attention=True)
    maps = class_attention(attentions, model)
    assert maps[0].argmax().item() == row * COLS + col
    assert maps[0, row, col] > 0.9
