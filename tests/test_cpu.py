"""What is faster on a CPU is the same: products by parts, softmax in place, entry by entry.

And it is used only where it may be: without gradients, on a CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minivit.attention
from minivit import cpu
from minivit.attention import plain_attention, scaled_dot_product_attention
from minivit.cpu import FEW_TOKENS, Linear, attention_in_place, linear, may_write_in_place
from tests.attention_cases import KINDS, WAYS, B, H, M, N, make_mask, qkv


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_plain_equation_and_its_variant_in_place_give_the_same_bits() -> None:
    """The variant writes the weights over the scores; nothing else is different."""
    query, key, value = qkv()
    for kind in ("none", "boolean", "additive with -inf", "some queries see nothing"):
        mask, _ = make_mask(kind)
        plain = plain_attention(query, key, value, mask)
        in_place = attention_in_place(query, key, value, mask)
        assert torch.equal(in_place[0], plain[0]) and torch.equal(in_place[1], plain[1])


# ---- products with few tokens ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (FEW_TOKENS,), (2, FEW_TOKENS), (0, 3)])
@pytest.mark.parametrize("width", [768, 1000, 307, 30522])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_torchs_product(shape: tuple[int, ...], width: int, with_bias: bool) -> None:
    """For widths with and without common divisors with the number of parts."""
    torch.manual_seed(0)
    x, weight = torch.randn(*shape, 256), torch.randn(width, 256)
    bias = torch.randn(width) if with_bias else None
    with torch.no_grad():
        product = linear(x, weight, bias)
    assert product.shape == (*shape, width) and product.is_contiguous()
    torch.testing.assert_close(product, F.linear(x, weight, bias), rtol=1e-5, atol=1e-4)


def test_a_slice_of_rows_of_a_larger_matrix_and_tokens_with_gaps() -> None:
    weight, x = torch.randn(3 * 256, 256), torch.randn(2, 6, 256)[:, ::3]
    with torch.no_grad():
        product = linear(x, weight[256:512])
    torch.testing.assert_close(product, F.linear(x, weight[256:512]), rtol=1e-5, atol=1e-4)


def test_gradients_flow_as_through_torchs() -> None:
    layer = Linear(256, 768)
    x = torch.randn(1, 1, 256, requires_grad=True)
    layer(x).square().sum().backward()
    own = [x.grad, layer.weight.grad, layer.bias.grad]
    expected = torch.autograd.grad(
        F.linear(x, layer.weight, layer.bias).square().sum(), [x, layer.weight, layer.bias]
    )
    for one, other in zip(own, expected, strict=True):
        assert one is not None and torch.equal(one, other)


def test_new_weights_are_seen_at_once() -> None:
    layer, x = Linear(256, 768), torch.randn(1, 1, 256)
    with torch.no_grad():
        layer(x)
        layer.weight.zero_()
        torch.testing.assert_close(layer(x)[0, 0], layer.bias)


# ---- softmax(QKᵀ/√d)V in place -----------------------------------------------------------------


class Recorder(TorchDispatchMode):
    """Notes every tensor that an operation makes or writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []  # held, so that no memory is given out twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.made += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return result

    def storages(self, smallest: int) -> set[int]:
        """Addresses of all pieces of memory of at least so many bytes."""
        storages = (tensor.untyped_storage() for tensor in self.made)
        return {storage.data_ptr() for storage in storages if storage.nbytes() >= smallest}

    def largest(self) -> int:
        """Bytes of the largest piece of memory."""
        return max(tensor.untyped_storage().nbytes() for tensor in self.made)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, M), (N, M), (200, 150)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "causal" not in kind])
def test_in_place_is_the_plain_equation_bit_for_bit(
    kind: str, size: tuple[int, int], dtype: torch.dtype
) -> None:
    query, key, value = qkv(*size, dtype)
    mask, _ = make_mask(kind, *size, dtype)
    before = [tensor.clone() for tensor in (query, key, value)]
    for dropout in (0.0, 0.4):
        torch.manual_seed(1)
        plain = plain_attention(query, key, value, mask, dropout=dropout)
        torch.manual_seed(1)
        in_place = attention_in_place(query, key, value, mask, dropout=dropout)
        assert torch.equal(in_place[0], plain[0]) and torch.equal(in_place[1], plain[1])
    assert all(map(torch.equal, (query, key, value), before))


@pytest.mark.parametrize("kind", ["none", "boolean", "additive with -inf"])
def test_without_gradients_one_piece_of_memory_holds_scores_and_weights(kind: str) -> None:
    length = 64
    query, key, value = qkv(length, length)
    mask, _ = make_mask(kind, length, length)
    with torch.no_grad(), Recorder() as recorder:
        scaled_dot_product_attention(query, key, value, mask=mask, need_weights=True)
    assert len(recorder.storages(B * H * length * length * 4)) == 1


def test_weights_with_gradients_are_not_written_over_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor for a mask that is learned; without gradients they are, under autocast too."""
    calls: list[str] = []

    def noted(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        calls.append("in place")
        return attention_in_place(*arguments, **options)

    monkeypatch.setattr(minivit.attention, "attention_in_place", noted)
    query, key, value = qkv()
    bias = torch.randn(N, M, requires_grad=True)
    scaled_dot_product_attention(query, key, value, mask=bias, need_weights=True)
    for learned in (query, key):
        learned.requires_grad_()
        scaled_dot_product_attention(query, key, value, need_weights=True)
        learned.requires_grad_(False)
    assert calls == []
    scaled_dot_product_attention(query, key, value.requires_grad_(), need_weights=True)
    with torch.no_grad():
        scaled_dot_product_attention(query, key, value, mask=bias, need_weights=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scaled_dot_product_attention(query, key, value.detach(), need_weights=True)
    assert calls == ["in place"] * 3
    assert not may_write_in_place(query.to("meta"), key.to("meta"), None)


@pytest.mark.parametrize("kind", ["none", "keys", "causal"])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_memory_of_rows_grows_with_their_number(num_rows: int, kind: str) -> None:
    """Nothing of N x M entries is made, not even of one byte each."""
    length = 400
    query, key, value = qkv(length, length)
    mask, is_causal = make_mask(kind, length, length)

    def most_bytes(**way: Any) -> int:
        with Recorder() as recorder:
            scaled_dot_product_attention(query, key, value, mask=mask, is_causal=is_causal, **way)
        return recorder.largest()

    map_bytes = B * H * length * length * 4
    rows = list(range(num_rows))
    assert most_bytes(need_weights=True) >= map_bytes
    assert most_bytes(rows=rows) <= max(most_bytes(), B * H * num_rows * length * 4)
    assert most_bytes(rows=rows) < length * length


# ---- bfloat16, entry by entry ------------------------------------------------------------------


def test_bfloat16_is_timed_once_beside_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000))
    fast, slow = torch.bfloat16, torch.float32
    seconds = {fast: 3, slow: 1}
    now = [0.0]

    def multiply(left: Tensor, _right: Tensor) -> Tensor:
        now[0] += seconds[left.dtype] + next(clock) % 7  # other programs take some time too
        return left

    monkeypatch.setattr("minivit.cpu.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "matmul", multiply)
    cpu.bf16_slowdown.cache_clear()
    try:
        assert cpu.bf16_slowdown() == 3
        seconds[fast] = 9
        assert cpu.bf16_slowdown() == 3  # measured once
    finally:
        cpu.bf16_slowdown.cache_clear()


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the queries that have gone to torch's fused kernel."""
    calls = []
    fused = F.scaled_dot_product_attention

    def count(query: Tensor, *arguments: object, **options: object) -> Tensor:
        calls.append(query.shape)
        return fused(query, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    monkeypatch.setattr(cpu, "bf16_slowdown", lambda: 0.5)  # whatever processor runs the tests
    return calls


def test_a_processor_that_emulates_bfloat16_keeps_the_fused_kernel(
    fused_calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "bf16_slowdown", lambda: 2.5)
    parts = torch.randn(3, 2, 1, 200, 8, dtype=torch.bfloat16)
    scaled_dot_product_attention(*parts)
    assert len(fused_calls) == 1


@pytest.mark.parametrize("way", ["fused", "rows"])
@pytest.mark.parametrize(
    ("n", "m", "how"),
    [
        (200, 200, "by entry"),
        (128, 300, "by entry"),
        (127, 300, "fused"),
        (300, 127, "fused"),
        (4096, 4097, "fused"),
    ],
)
def test_in_bfloat16_many_tokens_are_served_entry_by_entry(
    n: int, m: int, how: str, way: str, fused_calls: list[torch.Size]
) -> None:
    parts = tuple(torch.randn(2, 1, length, 8, dtype=torch.bfloat16) for length in (n, m, m))
    output, _ = scaled_dot_product_attention(*parts, **WAYS[way])
    assert len(fused_calls) == (how == "fused")
    exact, _ = scaled_dot_product_attention(*(part.float() for part in parts), need_weights=True)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("why", ["gradients", "mask", "causal", "dropout", "float32", "no entry"])
def test_all_else_is_left_to_the_fused_kernel(why: str, fused_calls: list[torch.Size]) -> None:
    dtype = torch.float32 if why == "float32" else torch.bfloat16
    query, key, value = torch.randn(3, 0 if why == "no entry" else 2, 1, 200, 8).to(dtype)
    value.requires_grad_(why == "gradients")
    mask = torch.rand(200, 200) > 0.5 if why == "mask" else None
    dropout = 0.5 if why == "dropout" else 0.0
    output, _ = scaled_dot_product_attention(
        query, key, value, mask=mask, is_causal=why == "causal", dropout=dropout
    )
    assert fused_calls == [output.shape]
