"""Lesson 4: right answers pass, wrong ones are told apart, and what it claims holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit import VisionTransformer, ViTConfig
from minivit.blocks import EncoderBlock
from minivit.config import BlockConfig
from tests.tutorials.lessons import assert_told_apart, changed_in_place, solution
from tutorials.checks import (
    check_count_parameters,
    check_fold_layer_scale,
    check_layer_norm,
    check_post_norm_block,
    check_settings_of,
)
from tutorials.checks.lesson_04 import PUBLISHED, count


def test_layer_norm() -> None:
    right = solution("04", "4.1")["layer_norm"]

    def by_parts(
        dim: int | tuple[int, int] = -1,
        *,
        unbiased: bool = False,
        placed: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda n, w, b: n * w + b,
        divisor: Callable[[Tensor, float], Tensor] = lambda v, eps: (v + eps) ** 0.5,
        centred: bool = True,
    ) -> Callable[..., Tensor]:
        def answer(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
            mean = x.mean(dim, keepdim=True)
            variance = x.var(dim, unbiased=unbiased, keepdim=True)
            if not centred:
                mean, variance = 0 * mean, (x**2).mean(dim, keepdim=True)
            return placed((x - mean) / divisor(variance, eps), weight, bias)

        return answer

    assert_told_apart(
        check_layer_norm,
        right=[right, by_parts(), _by_moments],
        wrong={
            "over the tokens of a picture": by_parts(1),
            "over tokens and channels at once": by_parts((1, 2)),
            "over the batch": by_parts(0),
            "divided by D - 1": by_parts(unbiased=True),
            "stands below the root": by_parts(divisor=lambda v, eps: v**0.5 + eps),
            "eps is not used": by_parts(divisor=lambda v, eps: v**0.5),
            "deviation, and that is of D - 1": by_parts(
                unbiased=True, divisor=lambda v, eps: v**0.5 + eps
            ),
            "lower bound of the variance": by_parts(divisor=lambda v, eps: v.clamp_min(eps) ** 0.5),
            "lower bound of the standard": by_parts(divisor=lambda v, eps: (v**0.5).clamp_min(eps)),
            "because torch's layer norm made them": lambda x, w, b, eps: F.layer_norm(
                x, x.shape[-1:], w, b, eps
            ),
            "square root is missing": by_parts(divisor=lambda v, eps: v + eps),
            "RMSNorm": by_parts(centred=False),
            "the bias is missing": by_parts(placed=lambda n, w, b: n * w),
            "the weight is missing": by_parts(placed=lambda n, w, b: n + b),
            "weight and bias are missing": by_parts(placed=lambda n, w, b: n),
            "numbers differ": by_parts(placed=lambda n, w, b: n * b + w),
            "nothing comes back": lambda x, w, b, eps: None,
            "the shape is": lambda x, w, b, eps: right(x, w, b, eps).mean(1),
            "has other numbers afterwards": changed_in_place(right),
            "no gradient reaches x": lambda x, w, b, eps: right(x.detach(), w, b, eps),
        },
    )


def _by_moments(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The variance as the mean of squares minus the square of the mean."""
    mean = x.mean(-1, keepdim=True)
    variance = x.square().mean(-1, keepdim=True) - mean.square()
    return torch.addcmul(bias, (x - mean) * (variance + eps).rsqrt(), weight)


def test_a_module_of_torch_is_no_answer_to_the_norm() -> None:
    def by_module(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        module = nn.LayerNorm(x.shape[-1], eps=eps)
        module.weight.data, module.bias.data = weight, bias
        return module(x)

    message = check_layer_norm.message(by_module)
    assert message is not None and "because torch's layer norm made them" in message


def test_fold_layer_scale() -> None:
    right = solution("04", "4.2")["fold_layer_scale"]
    assert_told_apart(
        check_fold_layer_scale,
        right=[right, lambda w, b, g: (torch.diag(g) @ w, b * g)],
        wrong={
            "gamma multiplies the columns": lambda w, b, g: (w * g, b * g),
            "the bias is as it was": lambda w, b, g: (w * g[:, None], b),
            "the weight is as it was": lambda w, b, g: (w, b * g),
            "divided by gamma": lambda w, b, g: (w / g[:, None], b * g),
            "the bias differs": lambda w, b, g: (w * g[:, None], b + g),
            "the weight comes first": lambda w, b, g: right(w, b, g)[::-1],
            "a pair is expected": lambda w, b, g: w * g[:, None],
            "nothing comes back": lambda w, b, g: None,
            "no gradient reaches gamma": lambda w, b, g: right(w, b, g.detach()),
            "has other numbers afterwards": lambda w, b, g: (w.mul_(g.detach()[:, None]), b * g),
        },
    )


def test_a_wrong_axis_of_gamma_raises_no_error_in_a_square_layer() -> None:
    weight, bias, gamma = torch.randn(4, 4), torch.randn(4), torch.rand(4) + 0.5
    x = torch.randn(3, 4)
    scaled = gamma * F.linear(x, weight, bias)
    folded = F.linear(x, *solution("04", "4.2")["fold_layer_scale"](weight, bias, gamma))
    torch.testing.assert_close(folded, scaled)
    assert not torch.allclose(F.linear(x, weight * gamma, bias * gamma), scaled)


def test_post_norm_block() -> None:
    right = solution("04", "4.3")["post_norm_block"]

    def in_one_line(x: Tensor, a: Any, m: Any, one: Any, two: Any) -> Tensor:
        return two(one(a(x) + x) + m(one(a(x) + x)))

    def library(x: Tensor, a: Any, m: Any, one: Any, two: Any) -> Tensor:
        """The block of the library itself, with the four functions as its parts."""
        config = BlockConfig(
            dim=7,
            num_heads=1,
            hidden_dim=7,
            activation="gelu",
            layer_norm_eps=1e-6,
            norm_first=False,
        )
        block = EncoderBlock(config)
        for name, function in (("norm1", one), ("norm2", two), ("mlp", m)):
            setattr(block, name, _Function(function))
        block.attn = _Function(lambda tokens: (a(tokens), None))  # type: ignore[assignment]
        return block(x)[0]

    def with_pre_norm(x: Tensor, a: Any, m: Any, one: Any, two: Any) -> Tensor:
        h = x + a(one(x))
        return h + m(two(h))

    def of_branches(x: Tensor, a: Any, m: Any, one: Any, two: Any) -> Tensor:
        h = x + one(a(x))
        return h + two(m(h))

    assert_told_apart(
        check_post_norm_block,
        right=[right, in_one_line, library],
        wrong={
            "that is pre-norm": with_pre_norm,
            "the norms see the branch alone": of_branches,
            "residual connections are missing": lambda x, a, m, n, o: o(m(n(a(x)))),
            "first residual connection is missing": lambda x, a, m, n, o: o(n(a(x)) + m(n(a(x)))),
            "second residual connection is missing": lambda x, a, m, n, o: o(m(n(x + a(x)))),
            "MLP comes before attention": lambda x, a, m, n, o: right(x, m, a, n, o),
            "first picture of the batch": lambda x, a, m, n, o: right(
                x, lambda tokens: a(tokens)[0], m, n, o
            ),
            "second sum starts from x": lambda x, a, m, n, o: o(x + m(n(x + a(x)))),
            "the MLP sees x": lambda x, a, m, n, o: o(n(x + a(x)) + m(x)),
            "norm1 is used twice": lambda x, a, m, n, o: right(x, a, m, n, n),
            "two norms are swapped": lambda x, a, m, n, o: right(x, a, m, o, n),
            "first sum is not normalised": lambda x, a, m, n, o: o(x + a(x) + m(x + a(x))),
            "second sum is not normalised": lambda x, a, m, n, o: n(x + a(x)) + m(n(x + a(x))),
            "the MLP is missing": lambda x, a, m, n, o: n(x + a(x)),
            "the numbers differ": lambda x, a, m, n, o: x,
            "nothing comes back": lambda x, a, m, n, o: None,
            "no gradient reaches x": lambda x, *parts: right(x.detach(), *parts),
        },
    )


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, tokens: Tensor, **ignored: Any) -> Any:
        return self.function(tokens)


def test_count_parameters() -> None:
    right = solution("04", "4.4")["count_parameters"]

    def by_library(dim: int, depth: int, hidden: int, patch: int, side: int, classes: int) -> int:
        return count(
            ViTConfig.from_name(
                f"debug_patch{patch}_{side}",
                dim=dim,
                depth=depth,
                num_heads=1,
                hidden_dim=hidden,
                num_classes=classes,
            )
        )

    def by_tensors(dim: int, depth: int, hidden: int, patch: int, side: int, classes: int) -> int:
        block = [(3 * dim, dim), (3 * dim,), (dim, dim), (hidden, dim), (hidden,), (dim, hidden)]
        shapes = depth * (block + 6 * [(dim,)])
        shapes += [(dim, 3, patch, patch), (2 + (side // patch) ** 2, dim), *3 * [(dim,)]]
        return sum(math.prod(shape) for shape in [*shapes, (classes, dim), (classes,)])

    def less(missing: Callable[..., int]) -> Callable[..., int]:
        return lambda *sizes: right(*sizes) - missing(*sizes)

    assert_told_apart(
        check_count_parameters,
        right=[right, by_tensors],
        wrong={
            "because a model was made": by_library,
            "the head is missing": less(lambda d, n, h, p, s, k: k * d + k),
            "the head's matrix": less(lambda d, n, h, p, s, k: k * d),
            "counted once": less(
                lambda d, n, h, *_: (n - 1) * (4 * d * d + 4 * d + 2 * d * h + h + d + 4 * d)
            ),
            "last norm is counted in each block": less(lambda d, n, *_: -2 * d * (n - 1)),
            "the class token or its position": less(lambda d, *_: d),
            "or the norm after the last block": less(lambda d, *_: 2 * d),
            "the head's bias is missing": less(lambda d, n, h, p, s, k: k),
            "two norms of a block are missing": less(lambda d, n, *_: 4 * d * n),
            "half of the norms": less(lambda d, n, *_: 2 * d * n),
            "Q, K and V are three matrices": less(lambda d, n, *_: 2 * d * d * n),
            "the bias of Q, K and V": less(lambda d, n, *_: 3 * d * n),
            "biases of the MLP are missing": less(lambda d, n, h, *_: (h + d) * n),
            "projection after the heads is missing": less(lambda d, n, *_: d * d * n),
            "a patch has three colours": less(lambda d, n, h, p, *_: 2 * p * p * d),
            "one vector a token": less(lambda d, n, h, p, s, k: (1 + (s // p) ** 2) * d),
            "hidden_dim is not 4": lambda d, n, h, *rest: right(d, n, 4 * d, *rest),
            "too many": less(lambda d, *_: -3 * d),
            "a whole number is expected": lambda *_: torch.zeros(3),
            "is no whole number": lambda *sizes: right(*sizes) + 0.5,
            "right for a small model": lambda d, n, h, p, s, k: right(d, n, h, p, s, 7),
            "nothing comes back": lambda *_: None,
        },
    )


def test_the_published_counts_are_those_of_the_library() -> None:
    assert {name: count(ViTConfig.from_name(name)) for name in PUBLISHED} == PUBLISHED


def test_settings_of() -> None:
    right = solution("04", "4.5")["settings_of"]
    names = ("gelu", "gelu_tanh", "quick_gelu"), (1, 2, 4, 8), ("cls", "mean")

    @torch.no_grad()
    def search(
        tensors: dict[str, Tensor],
        config: ViTConfig,
        images: Tensor,
        outputs: Tensor,
        *,
        threshold: float | None = None,
        choices: tuple[tuple[Any, ...], ...] = names,
        load: bool = True,
        sign: float = 1.0,
    ) -> tuple[Any, ...]:
        best, least = None, float("inf")
        for activation, num_heads, pooling in product(*choices):
            model = VisionTransformer(
                replace(config, activation=activation, num_heads=num_heads, pooling=pooling)
            )
            if load:
                model.load_state_dict(tensors)
            error = sign * float((model.eval()(images) - outputs).norm())
            if threshold is not None and error < threshold:
                return activation, num_heads, pooling
            if error < least:
                best, least = (activation, num_heads, pooling), error
        assert best is not None
        return best

    flavours, _, poolings = names
    assert_told_apart(
        check_settings_of,
        right=[right, search],
        wrong={
            "the first difference below a threshold": lambda *given: search(*given, threshold=0.02),
            "do the outputs go into your choice": lambda *given: ("gelu", 2, "cls"),
            "every divisor of the width": lambda *given: search(
                *given, choices=(flavours, (2, 8), poolings)
            ),
            "the order is activation": lambda *given: right(*given)[::-1],
            "largest difference was kept": lambda *given: search(*given, sign=-1.0),
            "no tensors were loaded": lambda *given: search(*given, load=False),
            "both have to be tried": lambda *given: (*right(*given)[:2], "cls"),
            "try every flavour": lambda *given: ("gelu_tanh", *right(*given)[1:]),
            "three values are expected": lambda *given: right(*given)[0],
            "nothing comes back": lambda *given: None,
        },
    )
    for missing, choices in {
        "pooling": (flavours, (1, 2, 4, 8), ("cls",)),
        "number of heads": (flavours, (2,), poolings),
        "activation": (("gelu",), (1, 2, 4, 8), poolings),
    }.items():
        message = check_settings_of.message(partial(search, choices=choices))
        assert message is not None and missing in message, message


def _last_gradient(depth: int, norm_first: bool) -> float:
    """Length of the gradient of the last MLP's second matrix, mean of three random stacks."""
    lengths = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = BlockConfig(
            dim=32,
            num_heads=2,
            hidden_dim=128,
            activation="gelu",
            layer_norm_eps=1e-6,
            norm_first=norm_first,
        )
        blocks = nn.ModuleList(EncoderBlock(config) for _ in range(depth))
        for parameter in blocks.parameters():
            if parameter.dim() == 2:
                for part in parameter.chunk(3) if parameter.shape == (96, 32) else [parameter]:
                    nn.init.xavier_uniform_(part)
        x = torch.randn(8, 10, 32)
        for block in blocks:
            x, _ = block(x)
        logits = F.layer_norm(x, (32,))[:, 0] @ torch.randn(32, 5) / 32**0.5
        F.cross_entropy(logits, torch.arange(8) % 5).backward()
        lengths.append(float(blocks[-1].mlp.fc2.weight.grad.norm()))  # type: ignore[union-attr, operator, arg-type]
    return sum(lengths) / len(lengths)


def test_the_last_gradient_falls_with_depth_in_pre_norm_and_not_in_post_norm() -> None:
    pre = _last_gradient(4, True) / _last_gradient(32, True)
    post = _last_gradient(4, False) / _last_gradient(32, False)
    assert 2 < pre < 4.5  # √(32 / 4) is 2.8
    assert 0.5 < post < 1.7


@pytest.mark.parametrize(
    "settings",
    [{"pooling": "mean"}, {"activation": "gelu_tanh"}, {"activation": "quick_gelu"}],
    ids=lambda settings: next(iter(settings.values())),
)
def test_wrong_settings_load_strictly_and_change_the_output(settings: dict[str, Any]) -> None:
    config = ViTConfig.from_name("debug_patch8_16", num_classes=0)
    right, wrong = (VisionTransformer(c).eval() for c in (config, replace(config, **settings)))
    wrong.load_state_dict(right.state_dict())  # strict
    images = torch.randn(2, 3, 16, 16)
    assert float((right(images) - wrong(images)).detach().abs().max()) > 1e-5
