"""Planted attention shows up in the cell where it was planted, on grids that are not square."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import AttentionRows, Attentions, VisionTransformer, ViTConfig
from minivit.explain import class_attention, patch_map, query_attention, rollout

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


def test_old_names_of_arguments_may_still_be_used() -> None:
    model = make_model()
    attention = torch.rand(2, 2, 25, 25).softmax(-1)
    expected = query_attention(attention, model, row=9)
    with pytest.warns(DeprecationWarning, match="query is called row now"):
        assert torch.equal(query_attention(attention, model, query=9), expected)
    with pytest.warns(DeprecationWarning, match="attention is called attentions now"):
        assert torch.equal(query_attention(attention=attention, model=model, row=9), expected)


# ---- the grid ------------------------------------------------------------------------------------


@torch.no_grad()
def inspect(
    model: VisionTransformer, height: int, width: int, return_attention: Any = True
) -> Attentions:
    _, attentions = model(torch.randn(2, 3, height, width), return_attention=return_attention)
    assert isinstance(attentions, Attentions)
    return attentions


def test_plain_tensors_of_another_size_need_their_grid() -> None:
    model = make_model()
    attentions = list(inspect(model, 48, 72, [-1]))
    with pytest.raises(ValueError, match="54 patches are not a grid of 4 rows x 6 cols"):
        class_attention(attentions, model)
    grid = model.patch_embed.grid_for(48, 72)
    assert class_attention(attentions, model, grid_size=grid).shape == (2, 6, 9)
    with pytest.raises(ValueError, match="54 patches are not a grid of 9 rows x 9 cols"):
        class_attention(attentions, model, grid_size=(9, 9))


def test_plain_tensors_need_a_model() -> None:
    attention = torch.rand(2, 2, 25, 25)
    for call in (
        lambda: class_attention([attention]),
        lambda: query_attention(attention),
        lambda: patch_map(attention[:, 0, 0], [attention]),
    ):
        with pytest.raises(ValueError, match=r"plain tensors do not know the grid .* or the model"):
            call()


@pytest.mark.parametrize(("height", "width"), [(48, 32), (64, 24), (16, 96), (24, 40), (64, 80)])
def test_what_a_call_returns_lies_on_the_pictures_of_that_call(height: int, width: int) -> None:
    """Also where the count of patches is the config's, 24, and the grid another."""
    model = make_model(num_register_tokens=2)
    attentions = inspect(model, height, width)
    rows, cols = height // 8, width // 8
    expected = attentions[-1][:, :, 0, 3:].mean(1).reshape(2, rows, cols)
    for given in ((attentions,), (attentions, model)):
        torch.testing.assert_close(class_attention(*given), expected)
        assert query_attention(*given, block=0).shape == (2, 2, rows, cols)
    assert torch.equal(class_attention(attentions, grid_size=(rows, cols)), expected)


def test_a_grid_that_contradicts_the_call_is_refused() -> None:
    attentions = inspect(make_model(), 48, 32)
    with pytest.raises(ValueError, match=r"grid_size is \(4, 6\), .* had \(6, 4\) .* leave it out"):
        class_attention(attentions, grid_size=(4, 6))


def test_a_row_of_rollout_becomes_a_map() -> None:
    attentions = inspect(make_model(num_register_tokens=2), 48, 24)
    flow = rollout(attentions)  # (2, 21, 21)
    maps = patch_map(flow[:, 0], attentions)
    assert torch.equal(maps, flow[:, 0, 3:].reshape(2, 6, 3))
    assert patch_map(flow, attentions).shape == (2, 21, 6, 3)
    with pytest.raises(ValueError, match="15 patches are not a grid of 6 rows x 3 cols"):
        patch_map(flow[:, 0, 3:], attentions)  # the prefix tokens are gone already


# ---- tokens and patches by name ------------------------------------------------------------------


@pytest.mark.parametrize("queries", [None, [13, 0, -1], [-1, 13]])
@pytest.mark.parametrize(("patch", "token"), [((3, 1), 13), ((5, 2), 20)])
def test_a_patch_and_a_token_find_their_row(
    queries: list[int] | None, patch: tuple[int, int], token: int
) -> None:
    model = make_model(num_register_tokens=2)  # three tokens, then 6 x 3 patches
    torch.manual_seed(1)
    whole = inspect(model, 48, 24, [-1])
    torch.manual_seed(1)
    request = [-1] if queries is None else AttentionRows([-1], queries)
    attentions = inspect(model, 48, 24, request)
    expected = whole[0][:, :, token, 3:].reshape(2, 2, 6, 3)
    for name in ({"patch": patch}, {"token": token}, {"token": token - 21}):
        torch.testing.assert_close(query_attention(attentions, **name), expected)


def test_the_class_token_is_found_among_the_rows() -> None:
    model = make_model()
    torch.manual_seed(1)
    expected = class_attention(inspect(model, 48, 24))
    torch.manual_seed(1)
    attentions = inspect(model, 48, 24, AttentionRows([-1], [5, 0]))
    torch.testing.assert_close(class_attention(attentions), expected)
    torch.testing.assert_close(query_attention(attentions, token=0).mean(1), expected)


def test_a_row_that_was_not_asked_for_is_refused() -> None:
    """The first row would be a map too, of another token."""
    attentions = inspect(make_model(), 48, 24, AttentionRows([-1], range(1, 12)))
    with pytest.raises(ValueError, match=r"row of token 0 .* of tokens 1, 2, .* 8, …: add it"):
        class_attention(attentions)
    with pytest.raises(ValueError, match="row of token 13 was not asked for"):
        query_attention(attentions, patch=(4, 0))
    assert query_attention(attentions, row=10).shape == (2, 2, 6, 3)


def test_plain_tensors_have_rows_by_name_only_where_all_are_given() -> None:
    model = make_model()
    whole = torch.rand(2, 2, 25, 25)
    patch = query_attention(whole, model, patch=(1, 2))
    assert torch.equal(patch, query_attention(whole, model, row=9))
    with pytest.raises(ValueError, match="2 rows of 25 tokens, and whose they are is not known"):
        query_attention(whole[:, :, :2], model, patch=(1, 2))


def test_a_name_that_names_nothing_or_two_things_is_refused() -> None:
    attentions = inspect(make_model(), 48, 24)
    for patch in ((6, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match=r"6 rows x 3 cols; choose from \(0, 0\) to \(5, 2\)"):
            query_attention(attentions, patch=patch)
    for token in (19, -20):
        with pytest.raises(ValueError, match=f"token {token}: choose from -19 to 18"):
            query_attention(attentions, token=token)
    with pytest.raises(ValueError, match="three names of one row: give one"):
        query_attention(attentions, row=0, token=0)


@pytest.mark.parametrize("attentions", [[3, -1], AttentionRows([3, -1], [0])])
def test_block_counts_the_entries(attentions: Any) -> None:
    """Block 3 is entry 0 of what was asked for."""
    made = inspect(make_model(depth=5), 48, 24, attentions)
    assert made.blocks == (3, 4)
    first = made[0][:, :, 0, 1:].mean(1).reshape(2, 6, 3)
    torch.testing.assert_close(class_attention(made, block=0), first)
    with pytest.raises(IndexError):
        class_attention(made, block=3)


# ---- the class token -----------------------------------------------------------------------------


def test_without_a_class_token_there_is_no_class_attention() -> None:
    model = make_model(class_token=False, pooling="mean")
    with pytest.raises(ValueError, match="no class token: use query_attention"):
        class_attention([torch.rand(1, 2, 24, 24)], model)
    with pytest.raises(ValueError, match="no class token: use query_attention"):
        class_attention(inspect(model, 24, 48))


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
