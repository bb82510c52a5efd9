"""What today's packages get wrong, and minivit does not: on random weights with sharp attention.

Versions are those of November 2026. Where a test of a method already asks for the right thing, it
is named here; the others are below.

| package | what it does | test |
| --- | --- | --- |
| torchxai-explain 0.3.0 | lays 8 × 18 patches out as 12 × 12, and 8 × 12 as 9 × 9, without a warning; takes registers for picture | `test_a_map_moves_with_the_picture` |
| | normalises rows in the gradient-weighted map | `methods/test_relevance.py: test_it_is_the_papers_matrix`; museum, "rows normalised" |
| | clears accumulated gradients, leaves `.grad` and eval mode behind | `test_no_side_effects.py: test_a_method_leaves_no_trace` |
| | returns one map for a batch of two | `test_each_picture_of_a_batch_has_its_own_map` |
| | may return minus the map, when that scores better | `scoring/test_score.py: test_a_planted_map_points_and_its_reverse_is_below_chance` |
| fast-vit-rollout 0.1.1 | leaves hooks behind | `test_no_side_effects.py`; `inside/test_interventions_leave_no_trace.py` |
| | needs the fused kernel off | `test_whole_weights_are_made_only_where_a_method_needs_them` |
| quantus 0.6.0 | randomisation walks modules: never touches q, k, v of torchvision's model nor class token and positions | `test_undone_training_changes_every_parameter`; museum |
| grad-cam 1.5.7 | ROAD erases the whole picture when zeros tie | `test_a_map_of_zeros_loses_its_patches_one_by_one` |
| captum 0.9.0 | DeepLift on a ViT sums to 1.84 where the difference of logits is -0.94 | `test_attributions_sum_to_the_difference_where_deeplift_does_not` (`make parity`); `methods/test_integrated_gradients.py: test_the_parts_sum_to_the_difference_of_logits` |
| lxt 2.1 | does not import beside transformers 5 | `test_real_model.py`, which imports both (`make parity`) |
| hilrp 0.2.0 | changes LayerNorm for the whole process | `test_importing_changes_no_class_of_torch` |
"""  # noqa: E501

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import attention
from minivit.explain import METHODS
from minivit.explain.methods.integrated_gradients import integrate
from minivit.explain.scoring.removal import removal
from minivit.explain.scoring.untrained import randomised
from tests.explain.vits import KINDS, make_images, make_model

PLACED = {"random", "centre", "smooth_gradient", "edges"}
"""Methods whose values know their place, or the picture's border."""


def pictures(grid: tuple[int, int], count: int = 2) -> Tensor:
    """(count, 3, height, width) in float64, of patches of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(1)
    rows, cols = grid
    return torch.randn(count, 3, 8 * rows, 8 * cols, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("grid", [(8, 18), (8, 12)])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in PLACED])
def test_a_map_moves_with_the_picture(name: str, grid: tuple[int, int]) -> None:
    """Without positions, patches that change places take their values with them.

    The 144 and 96 patches are moved by 3 rows and 5 columns, all around; a map of another layout,
    or with a register in it, does not move so.
    """
    model, images = make_model("registers", depth=2), pictures(grid, 1)
    assert model.pos_embed is not None
    with torch.no_grad():
        model.pos_embed.zero_()
    maps = METHODS[name](model, images, 2)
    assert maps.shape == (1, *grid)
    there = METHODS[name](model, images.roll((24, 40), (2, 3)), 2)
    assert float(maps.std()) > 0
    torch.testing.assert_close(there, maps.roll((3, 5), (1, 2)), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_each_picture_of_a_batch_has_its_own_map(name: str) -> None:
    model, images = make_model(), make_images(2)
    maps = METHODS[name](model, images)
    assert len(maps) == 2
    alone = torch.cat([METHODS[name](model, image[None]) for image in images])
    torch.testing.assert_close(maps, alone, rtol=1e-6, atol=1e-10)
    knows_the_picture = name != "centre"
    assert torch.equal(maps[0], maps[1]) is not knows_the_picture


WHOLE_WEIGHTS = {"rollout": 1, "relevance": 3, "legrad": 4}
"""Number of blocks, of 4, whose weights a method makes whole; others make none, or one row."""


@pytest.mark.parametrize("name", METHODS)
def test_whole_weights_are_made_only_where_a_method_needs_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other outputs of attention come from the fused kernel, which stays as torch has it set.

    Rollout keeps the maps of half as many blocks as there are heads, and makes the others a head at
    a time beside the kernel.
    """
    whole: list[int] = []
    fused: list[int] = []
    explicit, kernel = attention.explicit_attention, attention.F.scaled_dot_product_attention

    def noted_explicit(query: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        whole.append(query.shape[-2])
        return explicit(query, *arguments, **options)

    def noted_kernel(*arguments: Any, **options: Any) -> Tensor:
        fused.append(1)
        return kernel(*arguments, **options)

    monkeypatch.setattr(attention, "explicit_attention", noted_explicit)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", noted_kernel)
    switches = (
        torch.backends.cuda.flash_sdp_enabled,
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.math_sdp_enabled,
    )
    before = [switch() for switch in switches]
    METHODS[name](make_model(depth=4), make_images())
    assert sum(rows > 1 for rows in whole) == WHOLE_WEIGHTS.get(name, 0)
    assert bool(fused) or name in {"random", "centre", "edges", "relevance"}
    assert [switch() for switch in switches] == before


@pytest.mark.parametrize("kind", KINDS)
def test_undone_training_changes_every_parameter(kind: str) -> None:
    """Class token, positions, and each of queries, keys and values too."""
    model = make_model(kind)
    with torch.no_grad():
        for weight in model.parameters():  # nothing is where a starting weight is
            weight.add_(0.1 * torch.randn_like(weight))
    before = dict(model.named_parameters())
    for _, copy in randomised(model, 0):
        undone = copy
    after = dict(undone.named_parameters())
    assert after.keys() == before.keys() >= {"pos_embed", "blocks.0.attn.qkv.weight"}
    for name, weight in before.items():
        parts = 3 if ".qkv." in name else 1
        for old, new in zip(weight.chunk(parts), after[name].chunk(parts), strict=True):
            assert bool((old != new).all()), name


def test_a_map_of_zeros_loses_its_patches_one_by_one() -> None:
    """In the order of their numbers, as by a map that says this order, and never all at once."""
    model, images, target = make_model(), make_images(1), torch.tensor([1])
    nothing = removal(model, images, torch.zeros(1, 4, 6), target, points=24)
    in_order = removal(model, images, -torch.arange(24.0).view(1, 4, 6), target, points=24)
    assert torch.equal(nothing.deletion, in_order.deletion)
    assert torch.equal(nothing.insertion, in_order.insertion)
    assert len(set(nothing.deletion[0].tolist())) == 25  # each step sees another picture


@pytest.mark.parity
def test_attributions_sum_to_the_difference_where_deeplift_does_not() -> None:
    """DeepLift has no rule for products of activations nor for softmax over keys."""
    from captum import attr

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor) -> Tensor:
            return self.model(pixels)

    model, images = make_model(), make_images(1)
    with torch.no_grad():
        difference = float((model(images) - model(torch.zeros_like(images)))[0, 1])
    parts = attr.DeepLift(Logits()).attribute(images.requires_grad_(), torch.zeros_like(images), 1)
    ours = integrate(model, images, 1, steps=64).attributions
    assert abs(float(ours.sum()) - difference) < 1e-3 * abs(difference)
    assert abs(float(parts.detach().sum()) - difference) > 0.1 * abs(difference)


CLASSES_OF_TORCH = """
import inspect, torch
from torch import nn

def state():
    names = {}
    spaces = [nn, nn.functional, nn.init, torch, torch.Tensor, torch.autograd, torch.nn.modules.activation]
    for space in spaces:
        for name, value in vars(space).items():
            names[space.__name__, name] = id(value)
            if inspect.isclass(value) and issubclass(value, nn.Module):
                names |= {(name, each): id(method) for each, method in vars(value).items()}
    hooks = vars(nn.modules.module)
    names |= {name: len(value) for name, value in hooks.items() if name.startswith("_global_")
              and hasattr(value, "__len__")}
    return names

before, forward = state(), nn.LayerNorm.forward
flags = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state().tolist()
import minivit.explain
after = state()
changed = [name for name in before if before[name] != after.get(name)]
assert not changed, changed
assert nn.LayerNorm.forward is forward
assert flags == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_rng_state().tolist())
print(len(before))
"""  # noqa: E501


def test_importing_changes_no_class_of_torch() -> None:
    """Classes, functions, global hooks, flags and the random state, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", CLASSES_OF_TORCH],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 2000  # names looked at
