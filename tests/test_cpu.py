"""A product by parts is the product; and only where it may be: few tokens, no gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from minivit.cpu import FEW_TOKENS, Linear, linear


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (FEW_TOKENS,), (2, FEW_TOKENS), (0, 3)])
@pytest.mark.parametrize("width", [768, 1000, 307, 30522])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_torchs_product(shape: tuple[int, ...], width: int, with_bias: bool) -> None:
    """For widths with and without common divisors with the number of parts."""
    torch.manual_seed(0)
    x, weight = torch.randn(*shape, 256), torch.randn(width, 256)
    bias = torch.randn(width) if with_bias else None
    with torch.no_grad():
        found = linear(x, weight, bias)
    assert found.shape == (*shape, width) and found.is_contiguous()
    torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_a_slice_of_rows_of_a_larger_matrix_and_tokens_with_gaps() -> None:
    weight, x = torch.randn(3 * 256, 256), torch.randn(2, 6, 256)[:, ::3]
    with torch.no_grad():
        found = linear(x, weight[256:512])
    torch.testing.assert_close(found, F.linear(x, weight[256:512]), rtol=1e-5, atol=1e-4)


def test_gradients_flow_as_through_torchs() -> None:
    layer = Linear(256, 768)
    x = torch.randn(1, 1, 256, requires_grad=True)
    layer(x).square().sum().backward()
    own = [x.grad, layer.weight.grad, layer.bias.grad]
    expected = torch.autograd.grad(
        F.linear(x, layer.weight, layer.bias).square().sum(), [x, layer.weight, layer.bias]
    )
    for found, other in zip(own, expected, strict=True):
        assert found is not None and torch.equal(found, other)


def test_new_weights_are_seen_at_once() -> None:
    layer, x = Linear(256, 768), torch.randn(1, 1, 256)
    with torch.no_grad():
        layer(x)
        layer.weight.zero_()
        torch.testing.assert_close(layer(x)[0, 0], layer.bias)
