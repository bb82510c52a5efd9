"""Training undone: every parameter once, step by step, on a copy."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch

from minivit.explain.scoring.untrained import before_training, parameter_groups, randomised
from tests.explain.scored_models import sharp

VARIANTS = [
    {},
    {"num_classes": 0, "distillation_token": False},
    {"distillation_token": True, "num_register_tokens": 0},
    {"norm_pre": True, "fc_norm": True, "pooling": "mean", "layer_scale": 1e-5},
    {"pooling": "cls_and_mean", "head_blocks": 2, "representation_dim": 8},
]


def test_a_model_before_training_is_made_of_its_seed_alone() -> None:
    model = sharp()
    state = torch.random.get_rng_state()
    first, again, second = (before_training(model, seed).pos_embed for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_head_before_training_depends_on_the_picture() -> None:
    """A head of zeros would give every method of gradients a map of zeros."""
    first, second = before_training(sharp(), 0)(torch.randn(2, 3, 32, 48))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_parameter_goes_in_one_step(changes: dict[str, object]) -> None:
    model = sharp(**changes)
    groups = parameter_groups(model)
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    blocks = ["block 2", "block 1", "block 0"]
    assert list(groups)[-4:] == [*blocks, "embeddings"]
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(groups["embeddings"])
    assert "blocks.1.attn.qkv.weight" in groups["block 1"]


@pytest.mark.parametrize("changes", VARIANTS)
def test_each_step_takes_its_weights_and_keeps_the_others(changes: dict[str, object]) -> None:
    model = sharp(**changes)
    trained = copy.deepcopy(model.state_dict())
    fresh = before_training(model, 3).state_dict()
    groups = parameter_groups(model)
    gone: set[str] = set()
    for step, changed in randomised(model, 3):
        gone |= set(groups[step])
        for name, weight in changed.state_dict().items():
            expected = fresh if name in gone else trained
            assert torch.equal(weight, expected[name]), (step, name)
        assert not changed.training
    assert gone == set(trained)
    assert all(torch.equal(weight, trained[name]) for name, weight in model.state_dict().items())


def test_no_step_does_nothing_and_hooks_stay_with_their_model() -> None:
    model, images = sharp(), torch.randn(1, 3, 32, 48)
    calls: list[object] = []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        logits = [changed(images).clone() for _, changed in randomised(model, 0)]
        assert not calls
        logits.insert(0, model(images))
    assert all(not torch.allclose(first, second) for first, second in pairwise(logits))
