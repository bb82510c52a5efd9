"""Checks of lesson 4: the block and the model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
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


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- 4.1 -----------------------------------------------------------------------------------------


@exercise("4.1", "Normalise a token")
def check_layer_norm(answer: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """(B, N, D), (D,), (D,), eps -> (B, N, D)."""
    sizes = torch.tensor([2.0, 2.0, 0.2, 2.0, 2.0])[:, None]  # one token's variance is below eps
    x = (_random(2, 5, 7, seed=1) * sizes + 1.5).requires_grad_()
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

    with _Norms() as watch:
        value = ask(answer, x, weight, bias, eps)
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
            "eps is added to the standard deviation, and that is of D - 1: eps stands below the "
            "root, beside the variance, which is divided by D (correction=0)": placed(
                normalised(correction=1, scale=lambda variance: variance.sqrt() + eps)
            ),
            "eps is a lower bound of the variance in your lines: it is added to it": placed(
                normalised(scale=lambda variance: variance.clamp_min(eps).sqrt())
            ),
            "eps is a lower bound of the standard deviation in your lines: it is added to the "
            "variance": placed(normalised(scale=lambda variance: variance.sqrt().clamp_min(eps))),
            "eps is not used: a token of equal channels would be divided by zero": placed(
                normalised(scale=lambda variance: variance.sqrt())
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
    if watch.called:
        raise NotSolved(
            "the numbers are right, because torch's layer norm made them: write it with `mean` and "
            "`var`"
        )
    expect_gradient(value, x, "x")


class _Norms(TorchFunctionMode):
    """Notes whether a layer norm of torch was called."""

    called = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.layer_norm, torch.layer_norm, torch.native_layer_norm):
            self.called = True
        return func(*args, **(kwargs or {}))


# ---- 4.2 -----------------------------------------------------------------------------------------


@exercise("4.2", "Fold LayerScale into the layer before it")
def check_fold_layer_scale(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """(D, F), (D,), (D,) -> (D, F), (D,)."""
    for rows, cols in ((5, 5), (5, 7)):
        weight, bias = _random(rows, cols, seed=1), _random(rows, seed=2)
        gamma = (_random(rows, seed=3) + 1.5).requires_grad_()
        value = ask(answer, weight, bias, gamma)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise NotSolved("a pair is expected: the new weight and the new bias")
        new_weight, new_bias = value
        if [getattr(part, "shape", None) for part in value] == [(rows,), (rows, cols)]:
            raise NotSolved("the two have changed places: the weight comes first, then the bias")
        expect_shape(new_weight, (rows, cols), "(D, F)")
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
    bare, late = norm1(attention(t)), norm1(t + mlp(t))
    first_picture = norm1(t + attention(t)[0])
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
            "the first residual connection is missing: attention(x) is added to x before norm1": (
                norm2(bare + mlp(bare))
            ),
            "the second residual connection is missing: mlp(h) is added to h before norm2": (
                norm2(mlp(h))
            ),
            "the MLP comes before attention: attention is first, with norm1": norm2(
                late + attention(late)
            ),
            "`attention(x)[0]` is the first picture of the batch, which is then added to all: here "
            "attention gives a tensor, no pair": norm2(first_picture + mlp(first_picture)),
            "the second sum starts from x again: it adds the MLP to the tokens after the first "
            "norm": norm2(t + mlp(h)),
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
    block = 4 * dim**2 + 4 * dim + 2 * dim * hidden + hidden + dim + 4 * dim
    parts: list[str] = []
    handle = register_module_parameter_registration_hook(
        lambda module, name, parameter: parts.append(name)
    )
    try:
        value = ask(answer, dim, depth, hidden, patch, side, classes)
    finally:
        handle.remove()
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
        2 * dim * depth: "half of the norms are missing: a block has two, and each has a weight "
        "and a bias",
        classes * dim + classes: "the head is missing: a matrix of K x D and a bias",
        classes * dim: "the head's matrix is missing",
        (depth - 1) * block: "the blocks are counted once: there are L of them",
        -2
        * dim
        * (depth - 1): "the last norm is counted in each block: it stands once, behind all",
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
    if parts:
        raise NotSolved(
            "the number is right, because a model was made and counted: compute it from the six "
            "numbers"
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

_CHOICES = ("gelu", "gelu_tanh", "quick_gelu"), (1, 2, 4, 8), ("cls", "mean")
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
    values, given = [], []
    for activation, num_heads, pooling in _HIDDEN:
        right = VisionTransformer(
            replace(config, activation=activation, num_heads=num_heads, pooling=pooling)  # type: ignore[arg-type]
        ).eval()
        right.load_state_dict(tensors)
        with torch.no_grad():
            outputs = right(images)
        with _Loading() as loading:
            value = ask(answer, tensors, config, images, outputs)
        if not isinstance(value, (tuple, list)) or len(value) != 3:
            raise NotSolved("three values are expected: activation, number of heads, pooling")
        if value[0] not in _CHOICES[0] or value[2] not in _CHOICES[2]:
            raise NotSolved(f"the order is activation, number of heads, pooling, and not {value}")
        values.append(tuple(value))
        given.append(outputs)
    if tuple(values) == _HIDDEN:
        return
    if loading.made and not loading.called:
        raise NotSolved(
            "no tensors were loaded: a new model has random weights, so its outputs say nothing; "
            "call `load_state_dict(tensors)` before you compare"
        )
    if all(
        value in _farthest(tensors, config, images, outputs)
        for value, outputs in zip(values, given, strict=True)
    ):
        raise NotSolved("the triple with the largest difference was kept: the smallest is right")
    if len(set(values)) == 1:
        raise NotSolved(
            f"three models with three sets of settings, and {values[0]} each time: do the outputs "
            "go into your choice, and is every number of heads tried with both poolings?"
        )
    # A setting that was not tried makes others wrong too, those with less effect: so it goes first.
    names = ("activation", "number of heads", "pooling")
    order = sorted((2, 1, 0), key=lambda index: len({value[index] for value in values}) > 1)
    for index in order:
        name = names[index]
        for value, right_value in zip(values, _HIDDEN, strict=True):
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


class _Loading(AbstractContextManager["_Loading"]):
    """Notes whether modules were made, and whether tensors were loaded into one."""

    made = called = False

    def __enter__(self) -> _Loading:
        def note(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
            self.made = True

        self._handle = register_module_parameter_registration_hook(note)
        self._original = nn.Module.load_state_dict

        def noted(module: nn.Module, *given: Any, **options: Any) -> Any:
            self.called = True
            return self._original(module, *given, **options)

        nn.Module.load_state_dict = noted  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()
        nn.Module.load_state_dict = self._original  # type: ignore[method-assign]


@torch.no_grad()
def _farthest(
    tensors: dict[str, Tensor], config: ViTConfig, images: Tensor, outputs: Tensor
) -> set[tuple[Any, ...]]:
    """The triples whose outputs differ most, by the largest number, by length and by the mean."""
    differences = {}
    for triple in product(*_CHOICES):
        activation, num_heads, pooling = triple
        model = VisionTransformer(
            replace(config, activation=activation, num_heads=num_heads, pooling=pooling)  # type: ignore[arg-type]
        ).eval()
        model.load_state_dict(tensors)
        differences[triple] = (model(images) - outputs).abs()
    measures: tuple[Callable[[Tensor], Tensor], ...] = (Tensor.max, Tensor.norm, Tensor.mean)
    return {
        max(differences, key=lambda triple: float(measure(differences[triple])))
        for measure in measures
    }
