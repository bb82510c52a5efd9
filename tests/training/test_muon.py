"""Muon: what orthogonalising does to singular values, and that it trains."""

import pytest
import torch

from minivit.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(12, 12), (12, 48), (48, 12)])
def test_singular_values_come_close_to_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices)
    values = torch.linalg.svdvals(result)
    assert result.shape == matrices.shape
    assert values.min() > 0.3 and values.max() < 1.3  # the quintic overshoots by design
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ result @ right.mT  # diagonal when the singular vectors are the same
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_the_size_of_the_gradient_does_not_matter() -> None:
    matrix = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalize(matrix), orthogonalize(1000 * matrix))


@pytest.mark.parity  # torch has it since 2.9, minivit runs from 2.6 on
@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_agrees_with_torch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = {
        ours: Muon([ours], lr=0.02, weight_decay=0.1),
        theirs: torch.optim.Muon(
            [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
    }
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in optimizers.items():
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).abs().mean().item()
    assert moved > 0.01
    # torch iterates in bfloat16, which knows three digits
    torch.testing.assert_close(ours - start, theirs - start, atol=0.1 * moved, rtol=0)


def test_it_finds_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(6, 10, generator=generator)
    x = torch.randn(200, 10, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(6, 10))
    optimizer = Muon([weight], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        ((x @ (weight - target).T) ** 2).mean().backward()
        optimizer.step()
    assert (weight - target).abs().max() < 0.05


def test_weight_decay_is_decoupled_and_a_parameter_without_gradient_stays() -> None:
    moved, kept = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    moved.grad = torch.zeros(2, 2)
    Muon([moved, kept], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(moved.detach(), torch.full((2, 2), 0.95))
    assert torch.equal(kept, torch.ones(2, 2))


def test_only_matrices() -> None:
    with pytest.raises(ValueError, match=r"matrices, found \(4,\)"):
        Muon([torch.nn.Parameter(torch.ones(4))], lr=0.1)
