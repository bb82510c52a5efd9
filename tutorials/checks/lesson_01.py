"""Checks of lesson 1: pixels to tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_gradient,
    expect_shape,
)

__all__ = [
    "check_components",
    "check_patches",
    "check_picture",
    "check_side",
    "check_tokens_by_matrix",
]

_CUT = "b c (rows h) (cols w) -> b (rows cols) (c h w)"
_CUT_MISTAKES = {
    "the patches run down the columns: the second one should lie to the right of the first, not "
    "below it; in N rows come before cols": "b c (rows h) (cols w) -> b (cols rows) (c h w)",
    "the three colours of a pixel stand side by side: within a patch all values of channel 0 come "
    "first, (c h w); kernels are stored so": "b c (rows h) (cols w) -> b (rows cols) (h w c)",
    "each patch is turned over: within it a row of pixels comes after the other, h before w": (
        "b c (rows h) (cols w) -> b (rows cols) (c w h)"
    ),
    "a patch takes every so-many-th pixel of the whole picture: in `(rows h)` the outer part comes "
    "first, as 10 = 1·10 + 0": "b c (h rows) (w cols) -> b (rows cols) (c h w)",
    "a patch holds one channel only: channels belong to the numbers of a patch, not to N": (
        "b c (rows h) (cols w) -> b (c rows cols) (h w)"
    ),
}


@exercise("1.1", "cut a picture into patches")
def check_patches(answer: Callable[[Tensor, int], Tensor]) -> None:
    """`answer(images, side)`: (B, C, height, width) -> (B, N, C·P·P)."""
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6).requires_grad_()
    patches = ask(answer, images, 2)
    if isinstance(patches, Tensor):
        if tuple(patches.shape) == (2, 12, 6):
            raise NotSolved(
                "the shape is (2, 12, 6), (B, C·P·P, N): tokens are rows, so the last two axes "
                "change places; F.unfold returns columns"
            )
        if tuple(patches.shape) == (2, 2, 3, 12):
            raise NotSolved("rows and cols are two axes still: join them to one list of N patches")
        if tuple(patches.shape) == (2, 18, 4):
            raise NotSolved(
                "there are C times too many patches: channels belong to the numbers of a patch"
            )
    expect_shape(patches, (2, 6, 12), "(B, rows·cols, C·P·P)")
    given = images.detach()
    mistakes = {
        "`reshape` alone moves nothing: your first patch is the first 12 numbers in memory, a "
        "strip through the top of channel 0. Split height and width, move the parts, then join": (
            given.reshape(2, 6, 12)
        )
    }
    mistakes[
        "channels still come first: unfolding both axes gives (B, C, rows, cols, P, P); move C "
        "behind cols before you join, `permute(0, 2, 3, 1, 4, 5)`"
    ] = given.unfold(2, 2, 2).unfold(3, 2, 2).reshape(2, 6, 12)
    for words, pattern in _CUT_MISTAKES.items():
        wrong = rearrange(given, pattern, h=2, w=2)
        if wrong.shape == (2, 6, 12):
            mistakes[words] = wrong
    expect_close(
        patches,
        rearrange(given, _CUT, h=2, w=2),
        mistakes,
        "the shape is right, and the numbers stand in another order than those of patches_v1: "
        "compare patches[0, 0] with images[0, :, :2, :2]",
    )
    expect_gradient(patches, images, "the images")


@exercise("1.2", "put the picture together again")
def check_picture(answer: Callable[[Tensor, tuple[int, int], int], Tensor]) -> None:
    """`answer(patches, (rows, cols), side)`: (B, N, C·P·P) -> (B, C, height, width)."""
    for channels, rows, cols in ((3, 2, 3), (2, 3, 2)):
        images = torch.arange(2.0 * channels * rows * cols * 4)
        images = images.view(2, channels, rows * 2, cols * 2)
        patches = rearrange(images, _CUT, h=2, w=2).requires_grad_()
        try:
            again = ask(answer, patches, (rows, cols), 2)
        except NotSolved as wrong:
            if channels == 2 and "your lines end in" in str(wrong):
                raise NotSolved(
                    f"it works for 3 channels, and for 2 {wrong}; C is the length of a patch "
                    "divided by P·P"
                ) from None
            raise
        if isinstance(again, Tensor) and again.shape == (2, channels, cols * 2, rows * 2):
            raise NotSolved(
                "height and width have changed places: the grid is (rows, cols), and rows lie "
                "along the height"
            )
        expect_shape(again, images.shape, "(B, C, rows·P, cols·P)")
        given = patches.detach()
        sizes = {"rows": rows, "cols": cols, "h": 2, "w": 2}
        mistakes = {
            "`reshape` alone moves nothing: the first row of the picture is the first patch, "
            "stretched": given.reshape(images.shape),
            "the colours are scrambled: the numbers of a patch were stored channel by channel, "
            "(c h w)": rearrange(given, "b (rows cols) (h w c) -> b c (rows h) (cols w)", **sizes),
            "the patches are in the wrong places: the list runs along the rows, (rows cols)": (
                rearrange(given, "b (cols rows) (c h w) -> b c (rows h) (cols w)", **sizes)
            ),
            "each patch is turned over: its rows became columns; it was stored h before w": (
                rearrange(given, "b (rows cols) (c w h) -> b c (rows h) (cols w)", **sizes)
            ),
            "neighbours in a patch are far apart in your picture: in `(rows h)` rows is the outer "
            "part": rearrange(given, "b (rows cols) (c h w) -> b c (h rows) (w cols)", **sizes),
        }
        expect_close(
            again,
            images,
            mistakes,
            "the shape is right, and cutting your picture does not give the patches back",
        )
        expect_gradient(again, patches, "the patches")


class _Convolutions(TorchFunctionMode):
    """Notes whether a convolution was called."""

    called = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, torch.conv2d, torch.convolution):
            self.called = True
        return func(*args, **(kwargs or {}))


@exercise("1.3", "tokens by a matrix instead of a convolution")
def check_tokens_by_matrix(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """`answer(images, kernel, bias)`: tokens (B, N, D) of a convolution of that kernel."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 6, 8, generator=random)  # patches of 2 x 4: 3 rows, 2 cols
    kernel = torch.randn(5, 3, 2, 4, generator=random).requires_grad_()
    bias = torch.randn(5, generator=random).requires_grad_()
    try:
        with _Convolutions() as watch:
            tokens = ask(answer, images, kernel, bias)
    except NotSolved as wrong:
        if "cannot be multiplied" in str(wrong) or "divide" in str(wrong):
            raise NotSolved(
                f"{wrong}. Are your patches square? Here they are of 2 x 4 pixels: the height of a "
                "patch is kernel.shape[2], its width kernel.shape[3]"
            ) from None
        raise
    if isinstance(tokens, Tensor) and tuple(tokens.shape) == (2, 5, 6):
        raise NotSolved("the shape is (2, 5, 6), (B, D, N): a token is a row, so N comes before D")
    expect_shape(tokens, (2, 6, 5), "(B, N, D)")
    weight, added = kernel.detach(), bias.detach()

    def tokens_of(
        pattern: str = _CUT, matrix: Tensor | None = None, shift: Tensor | float = added
    ) -> Tensor:
        patches = rearrange(images, pattern, h=2, w=4)
        return patches @ (weight.flatten(1) if matrix is None else matrix).T + shift

    expected = tokens_of()
    channels_last = "b c (rows h) (cols w) -> b (rows cols) (h w c)"
    mistakes = {
        "the bias is missing": tokens_of(shift=0.0),
        "the bias is subtracted": tokens_of(shift=-added),
        "patches and kernel are flattened in two orders: the kernel is (c h w), the patches are "
        "(h w c)": tokens_of(channels_last),
        "patches and kernel are flattened in two orders: the patches are (c h w), the kernel is "
        "(h w c)": tokens_of(matrix=rearrange(weight, "d c h w -> d (h w c)")),
        "the kernel was reshaped to (C·h·w, D) instead of transposed: `reshape` moves nothing; "
        "flatten it to (D, C·h·w) and take the transpose": (
            tokens_of(matrix=weight.reshape(24, 5).T)
        ),
        "each patch is turned over: the kernel is (c h w), the patches are (c w h)": tokens_of(
            "b c (rows h) (cols w) -> b (rows cols) (c w h)"
        ),
        "the patches run down the columns: in N rows come before cols": tokens_of(
            "b c (rows h) (cols w) -> b (cols rows) (c h w)"
        ),
        "the images were only reshaped to (B, N, C·h·w): split height and width, move, then join": (
            images.reshape(2, 6, 24) @ weight.flatten(1).T + added
        ),
    }
    expect_close(
        tokens,
        expected,
        mistakes,
        "the shape is right and the numbers are not those of the convolution: compare tokens[0, 0] "
        "with (kernel * images[0, :, :h, :w]).sum(dim=(1, 2, 3)) + bias",
        tolerance=1e-4,
    )
    if watch.called:
        raise NotSolved(
            "the numbers are right, because a convolution made them: write the product yourself"
        )
    expect_gradient(tokens, kernel, "the kernel")
    expect_gradient(tokens, bias, "the bias")


@exercise("1.4", "principal components of filters")
def check_components(answer: Callable[[Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """`answer(kernel, count)`: components (K, C, h, w), and their shares (K,)."""
    random = torch.Generator().manual_seed(0)
    strengths = torch.tensor([6.0, 4.5, 3.0, 2.0, 1.0, 0.5, 0.25] + [0.1] * 17)
    kernel = torch.randn(11, 24, generator=random) * strengths  # 11 filters, 24 numbers each
    kernel = (kernel + 4 * torch.randn(24, generator=random)).view(11, 3, 2, 4)
    value = ask(answer, kernel, 4)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise NotSolved("two tensors are expected: components (K, C, h, w) and shares (K,)")
    patterns, shares = value
    expect_shape(patterns, (4, 3, 2, 4), "components (K, C, h, w)")
    expect_shape(shares, (4,), "shares (K,)")

    filters = kernel.flatten(1)  # (11, 3, 2, 4) -> (11, 24)
    centred = filters - filters.mean(dim=0)
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    _, _, raw = torch.linalg.svd(filters, full_matrices=False)
    row_mean = filters - filters.mean(dim=1, keepdim=True)
    _, _, by_row = torch.linalg.svd(row_mean, full_matrices=False)
    scaled = centred / centred.std(dim=0)
    _, _, standard = torch.linalg.svd(scaled, full_matrices=False)
    ours = patterns.detach().flatten(1)  # (4, 3, 2, 4) -> (4, 24)

    def along(expected: Tensor) -> Tensor:
        return F.cosine_similarity(ours, expected[:4], dim=1).abs()

    one = torch.ones(4)
    if not torch.allclose(along(directions), one, atol=1e-3):
        for other, words in (
            (raw, "the mean of the filters was not subtracted: your first component is that mean"),
            (
                by_row,
                "the mean of each filter was subtracted: it is the mean *over* filters, dim=0",
            ),
            (
                standard,
                "each pixel was divided by its deviation: the variance of pixels is what is asked",
            ),
            (
                directions[:11].flip(0)[1:],
                "the weakest come first: eigh gives eigenvalues in rising order",
            ),
            (
                directions[:10].flip(0),
                "the weakest come first: eigh gives eigenvalues in rising order",
            ),
        ):
            if torch.allclose(along(other), one, atol=1e-3):
                raise NotSolved(words)
        if (centred @ ours.T).norm() < 1e-3 * lengths[0]:
            raise NotSolved(
                "the weakest come first, along which the filters do not vary at all: eigh gives "
                "eigenvalues in rising order; turn both of its results over"
            )
        squared = (ours @ ours.T - torch.eye(4)).abs().max()
        if squared > 1e-2:
            raise NotSolved(
                "the components are not at right angles, or not of length 1: are they rows of Vᵀ "
                "(svd's third value, already transposed)? `.T` on it, or U, gives other numbers"
            )
        raise NotSolved(
            "the components have length 1 and right angles, and are not the principal ones: "
            "compare with the eigenvectors of the covariance of the filters"
        )
    if not torch.allclose(ours.norm(dim=1), one, atol=1e-3):
        raise NotSolved("the directions are right, and their length is not 1")
    variances = lengths.square()
    expect_close(
        shares.detach(),
        variances[:4] / variances.sum(),
        {
            "the shares are of lengths, not of variances: square S": (lengths[:4] / lengths.sum()),
            "the shares sum to 1 over the first K: divide by the variance along all components": (
                variances[:4] / variances[:4].sum()
            ),
            "these are variances, not shares: divide by their sum": variances[:4],
            "these are variances a filter, not shares: divide by their sum": variances[:4] / 10,
            "this is S itself: square it, then divide by the sum": lengths[:4],
        },
        "the components are right, and the shares are not s² / Σ s²",
        tolerance=1e-3,
    )


@exercise("1.5", "the side from which on pairs of tokens cost more than matrices")
def check_side(answer: int) -> None:
    """`answer`: side in pixels."""
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise NotSolved(f"a number of pixels is expected, and this is {type(answer).__name__}")
    expect_close(
        float(answer),
        768.0,
        {
            "that is the number of patches in a row: the side is asked for in pixels": 48.0,
            "that is the number of tokens: the side is asked for in pixels": 2305.0,
            "that is the number of patches: the side is asked for in pixels": 2304.0,
            "one patch too many a side: with 48 x 48 patches the class token makes 2,305 tokens, "
            "and that is more than 2,304": 784.0,
            "the MLP is missing: its two matrices are two thirds of the block's": 448.0,
            "only one of the two products of pairs was counted: Q times K, and weights times V": (
                1088.0
            ),
            "the MLP's matrices were counted once: there are two of them, D x F and F x D": 640.0,
        },
        "that is no multiple of 16: the picture consists of whole patches"
        if float(answer) % 16
        else "that is not the smallest side: solve 2·n²·D > n·(4·D² + 2·D·F) for n, take the first "
        "square number plus 1 that is larger, and count 16 pixels a patch",
        tolerance=1e-6,
    )
