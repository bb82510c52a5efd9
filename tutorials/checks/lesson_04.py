"""Checks of lesson 4: the block and the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minivit import VisionTransformer, ViTConfig
from tutorials.checks.exercise import (
    NotSolved,
    ask,
    exercise,
    expect_close,
    expect_gradient,
    expect_shape,
)

__all__ = [
    "check_count_parameters",
    "check_fold_layer_scale",
    "check_layer_norm",
    "check_post_norm_block",
    "check_settings_of",
]


class _Calls(TorchFunctionMode):
    """Notices whether one of some functions of torch is called."""

    def __init__(self, *functions: Any) -> None:
        super().__init__()
        self.functions, self.happened = functions, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.happened |= any(func is one for one in self.functions)
        return func(*args, **(kwargs or {}))


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- 4.1 -----------------------------------------------------------------------------------------


@exercise("4.1", "Normalise a token")
def check_layer_norm(answer: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """(B, N, D), (D,), (D,), eps -> (B, N, D)."""
    x = (_random(2, 5, 7, seed=1) * 2 + 1.5).requires_grad_()
    weight, bias, eps = _random(7, seed=2) + 2, _random(7, seed=3), 0.5

    def normalised(
        dim: int | tuple[int, int] = -1,
        *,
        correction: int = 0,
        centred: bool = True,
        scale: Callable[[Tensor], Tensor] = lambda variance: (variance + eps).sqrt(),
    ) -> Tensor:
        mean = x.mean(dim, keepdim=True)
        variance = x.var(dim, correction=correction, keepdim=True)
        if not centred:
            mean, variance = torch.zeros_like(mean), x.square().mean(dim, keepdim=True)
        return (x - mean) / scale(variance)

    def placed(values: Tensor) -> Tensor:
        return (values * weight + bias).detach()

    calls = _Calls(F.layer_norm, torch.layer_norm, torch.native_layer_norm)
    with calls:
        value = ask(answer, x, weight, bias, eps)
    if calls.happened:
        raise NotSolved("torch's own layer norm was called: write what it does inside")
    expect_shape(value, x.shape, "(B, N, D)")
    own = normalised()
    expect_close(
        value,
        F.layer_norm(x, (7,), weight, bias, eps).detach(),
        {
            "mean and variance run over the tokens of a picture: each token is normalised by "
            "itself, over its D channels, dim=-1": placed(normalised(1)),
            "mean and variance run over tokens and channels at once: each token has its own, "
            "dim=-1 alone": placed(normalised((1, 2))),
            "mean and variance run over the batch, as in a batch norm: dim=-1": placed(
                normalised(0)
            ),
            "the variance is divided by D - 1, as `var` and `std` do unless they are told: "
            "correction=0": placed(normalised(correction=1)),
            "eps is added to the standard deviation: it stands below the root, beside the "
            "variance": placed(normalised(scale=lambda variance: variance.sqrt() + eps)),
            "eps is not used: a token of equal channels would be divided by zero": placed(
                normalised(scale=lambda variance: variance.sqrt())
            ),
            "two faults at once: `std` divides by D - 1 unless it is told, and eps stands below "
            "the root, beside the variance": placed(
                normalised(correction=1, scale=lambda variance: variance.sqrt() + eps)
            ),
            "the square root is missing: divide by the standard deviation": placed(
                normalised(scale=lambda variance: variance + eps)
            ),
            "the mean is not subtracted (that is RMSNorm)": placed(normalised(centred=False)),
            "the bias is missing: it is added last": (own * weight).detach(),
            "weight and bias are missing: the result of the division is multiplied by weight, "
            "then bias is added": own.detach(),
            "the weight is missing: it multiplies each channel before the bias is added": (
                own + bias
            ).detach(),
        },
        "the numbers differ: (x - mean) / sqrt(variance + eps) * weight + bias, mean and variance "
        "over the D channels of a token",
    )
    expect_gradient(value, x, "x")


# ---- 4.2 -----------------------------------------------------------------------------------------


@exercise("4.2", "Fold LayerScale into the layer before it")
def check_fold_layer_scale(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """(D, K), (D,), (D,) -> (D, K), (D,)."""
    for rows, cols in ((5, 5), (5, 7)):
        weight, bias = _random(rows, cols, seed=1), _random(rows, seed=2)
        gamma = (_random(rows, seed=3) + 1.5).requires_grad_()
        value = ask(answer, weight, bias, gamma)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise NotSolved("a pair is expected: the new weight and the new bias")
        new_weight, new_bias = value
        if isinstance(new_weight, Tensor) and new_weight.dim() == 1:
            raise NotSolved("the new weight comes first, then the new bias")
        expect_shape(new_weight, (rows, cols), "(D, K)")
        expect_shape(new_bias, (rows,), "(D,)")
        factors = gamma.detach()
        columns = {}
        if rows == cols:  # elsewhere torch refuses it
            columns = {
                "gamma multiplies the columns of the weight, the inputs of the layer: its outputs "
                "are the rows, so gamma needs a second dimension, gamma[:, None]": weight * factors
            }
        expect_close(
            new_weight,
            weight * factors[:, None],
            columns
            | {
                "the weight is as it was: gamma scales it too, row by row": weight,
                "the weight is divided by gamma: it is multiplied": weight / factors[:, None],
            },
            "the weight differs: row i of it is multiplied by gamma[i]",
        )
        expect_close(
            new_bias,
            bias * factors,
            {
                "the bias is as it was, and gamma scales all that the layer gives, its bias "
                "too": bias,
            },
            "the bias differs: gamma (W x + b) = (gamma W) x + gamma b",
        )
        expect_gradient(new_weight, gamma, "gamma")


# ---- 4.3 -----------------------------------------------------------------------------------------


@exercise("4.3", "The block of 2017: norm after the sum")
def check_post_norm_block(answer: Callable[..., Tensor]) -> None:
    """(B, N, D) and four functions of it -> (B, N, D)."""
    x = (_random(2, 5, 7, seed=1) + 0.3).requires_grad_()
    kernel, first, second = _random(7, 7, seed=2), _random(7, seed=3) + 2, _random(7, seed=4) - 2

    def attention(tokens: Tensor) -> Tensor:
        return tokens.roll(1, dims=1) * 1.5 + tokens.mean(1, keepdim=True)

    def mlp(tokens: Tensor) -> Tensor:
        return (tokens @ kernel).tanh()

    def norm1(tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, (7,), first)

    def norm2(tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, (7,), second)

    value = ask(answer, x, attention, mlp, norm1, norm2)
    expect_shape(value, x.shape, "(B, N, D)")
    t = x.detach()
    h, pre, raw = norm1(t + attention(t)), t + attention(norm1(t)), t + attention(t)
    branch = t + norm1(attention(t))
    same = norm1(h + mlp(h))
    swapped = norm2(t + attention(t))
    expect_close(
        value,
        norm2(h + mlp(h)),
        {
            "the norms stand before the branches: that is pre-norm, and here they come after the "
            "sums": pre + mlp(norm2(pre)),
            "the norms see the branch alone: they come after the sum of tokens and branch, "
            "norm1(x + attention(x))": branch + norm2(mlp(branch)),
            "the residual connections are missing: each branch is added to its input before the "
            "norm": norm2(mlp(norm1(attention(t)))),
            "the second sum starts from x again: it adds the MLP to the tokens after the first "
            "norm": norm2(t + mlp(h)),
            "attention(x)[0] is the first picture's result, and it is added to every picture: the "
            "functions here give tokens alone, no pair": (
                norm2(norm1(t + attention(t)[0]) + mlp(norm1(t + attention(t)[0])))
            ),
            "the first residual connection is missing: h = norm1(x + attention(x))": (
                norm2(norm1(attention(t)) + mlp(norm1(attention(t))))
            ),
            "the second residual connection is missing: norm2(h + mlp(h))": norm2(mlp(h)),
            "the MLP comes first: attention is the first branch": (
                norm2(norm1(t + mlp(t)) + attention(norm1(t + mlp(t))))
            ),
            "the MLP sees x: its input is the tokens after the first norm": norm2(h + mlp(t)),
            "norm1 is used twice: the second sum has norm2": same,
            "the two norms are swapped: norm1 follows attention, norm2 the MLP": norm1(
                swapped + mlp(swapped)
            ),
            "the first sum is not normalised: the MLP and the second sum see norm1(x + "
            "attention(x))": norm2(raw + mlp(raw)),
            "the second sum is not normalised: norm2 comes last": h + mlp(h),
            "the MLP is missing: this is the first half of the block": h,
        },
        "the numbers differ: h = norm1(x + attention(x)), then norm2(h + mlp(h))",
    )
    expect_gradient(value, x, "x")


# ---- 4.4 -----------------------------------------------------------------------------------------

PUBLISHED = {  # at 224 pixels, with 1,000 classes
    "tiny_patch16_224": 5_717_416,
    "small_patch16_224": 22_050_664,
    "base_patch16_224": 86_567_656,
    "base_patch32_224": 88_224_232,
    "large_patch16_224": 304_326_632,
}


@exercise("4.4", "Count the parameters of a ViT")
def check_count_parameters(answer: Callable[[int, int, int, int, int, int], int]) -> None:
    """(dim, depth, hidden_dim, patch_size, image_size, num_classes) -> number of parameters."""
    dim, depth, hidden, patch, side, classes = 48, 5, 100, 8, 96, 7
    places = (side // patch) ** 2
    expected = count(
        ViTConfig(
            image_size=(side, side),
            patch_size=(patch, patch),
            dim=dim,
            depth=depth,
            num_heads=3,
            hidden_dim=hidden,
            num_classes=classes,
            activation="gelu",
            layer_norm_eps=1e-6,
        )
    )
    value = ask(answer, dim, depth, hidden, patch, side, classes)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotSolved(f"a whole number is expected, and this is {type(value).__name__}")
    if value != int(value):
        raise NotSolved(
            f"{value} is no whole number: a count of patches along a side is `//`, not `/`"
        )
    reasons = {
        dim: "the class token or its position (or the bias of the patches) is missing",
        2 * dim: "the class token and its position are missing, or the norm after the last block",
        3 * dim: "class token, its position and the bias of the patches are missing",
        classes: "the head's bias is missing",
        4 * dim * depth: "the two norms of a block are missing: each has a weight and a bias",
        2
        * dim
        * depth: "half of the norms are missing: a block has two, and each has a weight and a bias",
        2 * dim * dim * depth: "Q, K and V are three matrices of D x D",
        3 * dim * depth: "the bias of Q, K and V is missing",
        dim * depth: "a bias of a block is missing: of the projection after the heads, or of the "
        "MLP's second layer",
        (hidden + dim) * depth: "the biases of the MLP are missing",
        hidden * depth: "the bias of the MLP's first layer is missing",
        dim * dim * depth: "the projection after the heads is missing, a matrix of D x D",
        2 * patch * patch * dim: "a patch has three colours: P·P·3 numbers",
        places * dim: "the positions are missing: one vector a patch",
        (places + 1) * dim: "the positions are missing: one vector a token",
        dim * hidden * depth: "one of the MLP's two matrices is missing",
        2 * dim * (hidden - 4 * dim) * depth
        + (hidden - 4 * dim) * depth: "hidden_dim is not 4·dim here: it is given",
        2 * dim * hidden * depth: "the two matrices of the MLP are missing",
        classes * dim + classes: "the head is missing: a matrix of K x D and K biases",
        (4 * dim * dim + 2 * dim * hidden + 9 * dim + hidden) * (depth - 1): "the blocks are "
        "counted once: there are L of them",
        -2 * dim * (depth - 1): "the last norm is counted once a block: it stands once, behind all",
    }
    missing = expected - int(value)
    if missing:
        reason = reasons.get(missing) or (
            "look at the table of tensors again, one row after the other"
        )
        raise NotSolved(
            f"{int(value):,} for D = {dim}, L = {depth}, F = {hidden}, P = {patch}, {side} pixels, "
            f"{classes} classes, which is {abs(missing):,} too {'few' if missing > 0 else 'many'} "
            f"of {expected:,}: {reason}"
        )
    for name, number in PUBLISHED.items():
        config = ViTConfig.from_name(name)
        value = ask(
            answer,
            config.dim,
            config.depth,
            config.hidden_dim,
            config.patch_size[0],
            config.image_size[0],
            config.num_classes,
        )
        if value != number:
            raise NotSolved(
                f"right for a small model, and {value:,} for {name} instead of {number:,}: is a "
                "size of the small one left in your lines?"
            )


def count(config: ViTConfig) -> int:
    """Number of parameters of a model that is not filled with numbers."""
    with torch.device("meta"):
        model = VisionTransformer(config)
    return sum(parameter.numel() for parameter in model.parameters())


# ---- 4.5 -----------------------------------------------------------------------------------------

_HIDDEN = (("quick_gelu", 4, "mean"), ("gelu_tanh", 8, "cls"), ("gelu", 1, "mean"))


@exercise("4.5", "Which settings gave these outputs?")
def check_settings_of(answer: Callable[..., Any]) -> None:
    """(tensors, config, images, outputs) -> (activation, num_heads, pooling)."""
    images = _random(2, 3, 16, 24, seed=1)
    config = ViTConfig.from_name("debug_patch8_16", num_classes=0, image_size=(16, 24))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = VisionTransformer(config)
    tensors = {
        name: tensor * 2 if "mlp" in name or "qkv" in name else tensor
        for name, tensor in model.state_dict().items()
    }
    values = []
    for activation, num_heads, pooling in _HIDDEN:
        right = VisionTransformer(
            replace(config, activation=activation, num_heads=num_heads, pooling=pooling)  # type: ignore[arg-type]
        ).eval()
        right.load_state_dict(tensors)
        with torch.no_grad():
            outputs = right(images)
        value = ask(answer, tensors, config, images, outputs)
        if not isinstance(value, (tuple, list)) or len(value) != 3:
            raise NotSolved("three values are expected: activation, number of heads, pooling")
        if not (isinstance(value[1], int) and value[2] in ("cls", "mean")):
            raise NotSolved("the order is activation, number of heads, pooling")
        values.append(tuple(value))
    if len(set(values)) == 1:
        raise NotSolved(
            f"three models with three sets of settings, and {values[0]} each time: do the outputs "
            "go into your choice?"
        )
    for value, right_value in zip(values, _HIDDEN, strict=True):
        for index, name in enumerate(("activation", "number of heads", "pooling")):
            if value[index] == right_value[index]:
                continue
            shown = f"{name} {value[index]!r} was found where another one made the outputs: "
            if {value[index], right_value[index]} == {"gelu", "gelu_tanh"}:
                reason = (
                    "the two flavours differ by less than a thousandth, so that the first "
                    "difference below a threshold is not the smallest: compare all combinations"
                )
            elif name == "number of heads":
                reason = "it stands in no shape, so every divisor of the width has to be tried"
            elif name == "pooling":
                reason = "class token and mean have the same tensors, so both have to be tried"
            else:
                reason = "try every flavour together with every number of heads and both poolings"
            raise NotSolved(shown + reason)
