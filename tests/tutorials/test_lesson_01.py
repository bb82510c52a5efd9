"""Checks of lesson 1 tell right answers from wrong ones, and wrong ones from each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minivit import VisionTransformer, ViTConfig
from minivit.explain import filter_components
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_components,
    check_patches,
    check_picture,
    check_side,
    check_tokens_by_matrix,
)

_CUT = "b c (rows h) (cols w) -> b (rows cols) (c h w)"


def _cut(pattern: str) -> Callable[[Tensor, int], Tensor]:
    return lambda images, side: rearrange(images, pattern, h=side, w=side)


def test_1_1() -> None:
    cut = solution("01", "1.1")["cut"]
    assert_told_apart(
        check_patches,
        right=[cut, lambda images, side: F.unfold(images, side, stride=side).mT],
        wrong={
            "`reshape` alone moves nothing": lambda images, side: images.reshape(
                len(images), -1, images.shape[1] * side**2
            ),
            "run down the columns": _cut("b c (rows h) (cols w) -> b (cols rows) (c h w)"),
            "stand side by side": _cut("b c (rows h) (cols w) -> b (rows cols) (h w c)"),
            "turned over": _cut("b c (rows h) (cols w) -> b (rows cols) (c w h)"),
            "every so-many-th pixel": _cut("b c (h rows) (w cols) -> b (rows cols) (c h w)"),
            "C times too many": _cut("b c (rows h) (cols w) -> b (c rows cols) (h w)"),
            "channels still come first": lambda images, side: (
                images.unfold(2, side, side)
                .unfold(3, side, side)
                .reshape(len(images), -1, images.shape[1] * side**2)
            ),
            "F.unfold returns columns": lambda images, side: F.unfold(images, side, stride=side),
            "two axes still": _cut("b c (rows h) (cols w) -> b rows cols (c h w)"),
            "is `return` missing": lambda images, side: None,
            "other numbers afterwards": changed_in_place(cut),
            "no gradient": lambda images, side: cut(images.detach(), side),
            "numbers stand in another order": lambda images, side: cut(images, side).flip(1),
            "your lines end in": lambda images, side: images.reshape(5, 7),
        },
    )


def _join(pattern: str) -> Callable[[Tensor, tuple[int, int], int], Tensor]:
    return lambda patches, grid, side: rearrange(
        patches, pattern, rows=grid[0], cols=grid[1], h=side, w=side
    )


def test_1_2() -> None:
    put_together = solution("01", "1.2")["put_together"]
    assert_told_apart(
        check_picture,
        right=[
            put_together,
            lambda patches, grid, side: F.fold(
                patches.mT, (grid[0] * side, grid[1] * side), side, stride=side
            ),
        ],
        wrong={
            "height and width have changed places": lambda patches, grid, side: put_together(
                patches, grid[::-1], side
            ),
            "`reshape` alone moves nothing": lambda patches, grid, side: patches.reshape(
                len(patches), -1, grid[0] * side, grid[1] * side
            ),
            "the colours are scrambled": _join("b (rows cols) (h w c) -> b c (rows h) (cols w)"),
            "in the wrong places": _join("b (cols rows) (c h w) -> b c (rows h) (cols w)"),
            "turned over": _join("b (rows cols) (c w h) -> b c (rows h) (cols w)"),
            "far apart": _join("b (rows cols) (c h w) -> b c (h rows) (w cols)"),
            "C is the length of a patch": lambda patches, grid, side: (
                patches.reshape(len(patches), *grid, 3, side, side)
                .permute(0, 3, 1, 4, 2, 5)
                .reshape(len(patches), 3, grid[0] * side, grid[1] * side)
            ),
            "is `return` missing": lambda patches, grid, side: None,
            "other numbers afterwards": changed_in_place(put_together),
            "no gradient": lambda patches, grid, side: put_together(patches.detach(), grid, side),
        },
    )


def test_1_3() -> None:
    tokens_by_matrix = solution("01", "1.3")["tokens_by_matrix"]

    def by_einsum(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        height, width = kernel.shape[-2:]
        patches = images.unfold(2, height, height).unfold(3, width, width)
        return torch.einsum("bcrqij,dcij->brqd", patches, kernel).flatten(1, 2) + bias

    def by_conv(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(images, kernel, bias, stride=tuple(kernel.shape[-2:])).flatten(2).mT

    def with_patches(pattern: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda images, kernel, bias: (
            rearrange(images, pattern, h=kernel.shape[2], w=kernel.shape[3]) @ kernel.flatten(1).T
            + bias
        )

    def with_kernel(
        matrix: Callable[[Tensor], Tensor],
    ) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda images, kernel, bias: (
            rearrange(images, _CUT, h=kernel.shape[2], w=kernel.shape[3]) @ matrix(kernel) + bias
        )

    assert_told_apart(
        check_tokens_by_matrix,
        right=[tokens_by_matrix, by_einsum],
        wrong={
            "bias is missing": lambda images, kernel, bias: tokens_by_matrix(
                images, kernel, 0 * bias
            ),
            "the patches are (h w c)": with_patches(
                "b c (rows h) (cols w) -> b (rows cols) (h w c)"
            ),
            "the patches are (c w h)": with_patches(
                "b c (rows h) (cols w) -> b (rows cols) (c w h)"
            ),
            "Are your patches square": lambda images, kernel, bias: (
                rearrange(images, _CUT, h=kernel.shape[2], w=kernel.shape[2]) @ kernel.flatten(1).T
                + bias
            ),
            "chunks of 4. Are your patches square": lambda images, kernel, bias: (
                rearrange(images, _CUT, h=kernel.shape[3], w=kernel.shape[3]) @ kernel.flatten(1).T
                + bias
            ),
            "the kernel is (h w c)": with_kernel(
                lambda kernel: rearrange(kernel, "d c h w -> (h w c) d")
            ),
            "instead of transposed": with_kernel(
                lambda kernel: kernel.reshape(-1, kernel.shape[0])
            ),
            "run down the columns": with_patches("b c (rows h) (cols w) -> b (cols rows) (c h w)"),
            "N comes before D": lambda *inputs: tokens_by_matrix(*inputs).mT,
            "because a convolution made them": by_conv,
            "no gradient reaches the kernel": lambda images, kernel, bias: tokens_by_matrix(
                images, kernel.detach(), bias
            ),
            "no gradient reaches the bias": lambda images, kernel, bias: tokens_by_matrix(
                images, kernel, bias.detach()
            ),
            "other numbers afterwards": changed_in_place(tokens_by_matrix),
            "is `return` missing": lambda *inputs: None,
        },
    )


def _principal(
    kernel: Tensor, count: int, *, centre: bool = True, power: int = 2
) -> tuple[Tensor, Tensor]:
    filters = kernel.flatten(1)
    filters = filters - filters.mean(dim=0) if centre else filters
    _, lengths, directions = torch.linalg.svd(filters, full_matrices=False)
    shares = lengths**power
    return directions[:count].view(count, *kernel.shape[1:]), shares[:count] / shares.sum()


def test_1_4() -> None:
    components = solution("01", "1.4")["components"]

    def by_covariance(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(kernel.flatten(1).T.cov())
        values, vectors = values.flip(0), vectors.flip(1)
        return vectors.T[:count].view(count, *kernel.shape[1:]), values[:count] / values.sum()

    def rising(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        patterns, shares = _principal(kernel, 10)
        return patterns.flip(0)[:count], shares.flip(0)[:count]

    def rising_eigenvalues(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(kernel.flatten(1).T.cov())
        patterns = vectors.T[:count].reshape(count, *kernel.shape[1:])
        return patterns, values[:count] / values.sum()

    def of_columns(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        filters = kernel.flatten(1)
        _, lengths, directions = torch.linalg.svd(filters - filters.mean(0), full_matrices=True)
        patterns = directions.T[:count].reshape(count, *kernel.shape[1:])
        return patterns, lengths[:count] ** 2 / lengths.square().sum()

    def doubled(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        patterns, shares = components(kernel, count)
        return 2 * patterns, shares

    def of_first(kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
        patterns, shares = components(kernel, count)
        return patterns, shares / shares.sum()

    assert_told_apart(
        check_components,
        right=[components, by_covariance],
        wrong={
            "mean of the filters was not subtracted": lambda kernel, count: _principal(
                kernel, count, centre=False
            ),
            "weakest come first: eigh": rising,
            "do not vary at all": rising_eigenvalues,
            "not the principal ones": of_columns,
            "length is not 1": doubled,
            "square S": lambda kernel, count: _principal(kernel, count, power=1),
            "sum to 1 over the first K": of_first,
            "two tensors are expected": lambda kernel, count: components(kernel, count)[0],
            "(K, C, h, w)": lambda kernel, count: (
                components(kernel, count)[0].flatten(1),
                components(kernel, count)[1],
            ),
            "other numbers afterwards": changed_in_place(components),
        },
    )


def test_1_5() -> None:
    assert_told_apart(
        check_side,
        right=[solution("01", "1.5")["smallest_side"], 768.0],
        wrong={
            "number of patches in a row": 48,
            "number of tokens": 2305,
            "one patch too many": 784,
            "the MLP is missing": 448,
            "only one of the two products": 1088,
            "counted once": 640,
            "not the smallest side": 224,
            "no multiple of 16": 744,
            "a number of pixels is expected": "768",
        },
    )


def test_the_solution_gives_the_components_of_the_library() -> None:
    model = VisionTransformer(ViTConfig.from_name("debug_patch4_16"))
    patterns, shares = solution("01", "1.4")["components"](model.patch_embed.proj.weight, 5)
    expected = filter_components(model, count=5)
    cosines = F.cosine_similarity(patterns.flatten(1), expected.components.flatten(1)).abs()
    torch.testing.assert_close(cosines, torch.ones(5))
    torch.testing.assert_close(shares, expected.shares)


def test_the_cost_of_a_model_is_that_of_the_formula() -> None:
    """Patch embedding N·C·P²·D; in a block n·(4D² + 2DM) for matrices and 2n²D for pairs."""
    config = ViTConfig.from_name("debug_patch4_16", image_size=(16, 24), num_classes=0)
    model = VisionTransformer(config).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 3, 16, 24), return_attention=True)
    num_patches, dim, hidden_dim = 4 * 6, config.dim, config.hidden_dim
    n = num_patches + 1
    block = n * (4 * dim**2 + 2 * dim * hidden_dim) + 2 * n**2 * dim
    assert counter.get_total_flops() == 2 * (num_patches * 48 * dim + config.depth * block)
