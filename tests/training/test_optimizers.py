"""Which weights move, how fast, and that the rules are torch's own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from minivit.training.classify.task import ClassificationTask
from minivit.training.muon import Muon
from minivit.training.optimizers import layer_lr_scale, make_optimizers, set_rates
from minivit.training.settings import Settings
from tests.test_captioner import make_captioner
from tests.training.tasks import small_model

SETTINGS = Settings(epochs=1, batch_size=4, lr=0.1, weight_decay=0.05)
TOKENS: dict[str, Any] = {
    "distillation_token": True,
    "num_register_tokens": 2,
    "norm_pre": True,
    "layer_scale": 1e-5,
}


def changed(**changes: Any) -> Settings:
    return dataclasses.replace(SETTINGS, **changes)


def grouped(module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Name -> (kind of optimizer, group) of every parameter that moves."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    found: dict[str, Any] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert names[parameter] not in found  # each in one group
                found[names[parameter]] = (type(optimizer), group)
    return found


# ---- decay ---------------------------------------------------------------------------------------


def test_weight_matrices_are_decayed_and_nothing_else() -> None:
    task = ClassificationTask(small_model(**TOKENS), num_patch_classes=3)
    found = grouped(task, make_optimizers(task, SETTINGS))
    assert set(found) == {name for name, _ in task.named_parameters()}
    decayed = {name for name, (_, group) in found.items() if group["weight_decay"] == 0.05}
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    blocks = {f"model.blocks.{i}.{part}.weight" for i in (0, 1) for part in parts}
    heads = {"patch_head.weight", "model.head.weight", "model.head_dist.weight"}
    assert decayed == blocks | heads | {"model.patch_embed.proj.weight"}
    assert all(group["weight_decay"] in (0.0, 0.05) for _, group in found.values())


def test_all_are_decayed_where_that_is_asked_for() -> None:
    """One group, as in plain torch."""
    task = ClassificationTask(small_model(**TOKENS))
    (optimizer,) = make_optimizers(task, changed(decay_all=True))
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.05
    assert len(group["params"]) == len(list(task.parameters()))


# ---- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("head.weight", 0),
        ("head_dist.bias", 0),
        ("norm.weight", 0),
        ("fc_norm.weight", 0),
        ("blocks.11.mlp.fc2.weight", 1),
        ("blocks.1.norm1.bias", 11),
        ("blocks.0.attn.qkv.weight", 12),
        ("patch_embed.proj.weight", 13),
        ("pos_embed", 13),
        ("cls_token", 13),
        ("dist_token", 13),
        ("reg_token", 13),
        ("norm_pre.weight", 13),
    ],
)
def test_the_rate_falls_from_layer_to_layer(name: str, power: int) -> None:
    for prefix in ("", "model.", "module.model."):
        assert layer_lr_scale(prefix + name, 12, 0.75) == pytest.approx(0.75**power)
        assert layer_lr_scale(prefix + name, 12, 1.0) == 1.0


def test_every_weight_of_a_model_has_the_rate_of_its_layer() -> None:
    task = ClassificationTask(small_model(**TOKENS))
    settings = changed(layer_decay=0.5)
    optimizers = make_optimizers(task, settings, lambda name: task.lr_scale(name, settings))
    for name, (_, group) in grouped(task, optimizers).items():
        parts = name.split(".")
        if parts[1] == "blocks":
            share = {"0": 0.25, "1": 0.5}[parts[2]]
        else:
            share = 1.0 if parts[1] in ("norm", "head", "head_dist") else 0.125
        assert group["lr"] == group["highest_lr"] == pytest.approx(0.1 * share), name


def test_a_share_scales_every_group_from_its_highest_rate() -> None:
    """However often it is set, and whatever was set before."""
    task = ClassificationTask(small_model())
    settings = changed(layer_decay=0.5, optimizer="muon")
    optimizers = make_optimizers(task, settings, lambda name: task.lr_scale(name, settings))
    assert len(optimizers) == 2
    for share in (0.5, 0.1, 1.0):
        set_rates(optimizers, share)
        for _, group in grouped(task, optimizers).values():
            assert group["lr"] == pytest.approx(share * group["highest_lr"])
    highest = {group["highest_lr"] for _, group in grouped(task, optimizers).values()}
    assert sorted(highest) == pytest.approx([0.0125, 0.025, 0.05, 0.1])


# ---- what stays ----------------------------------------------------------------------------------


def test_the_head_alone_and_then_all() -> None:
    task = ClassificationTask(small_model(**TOKENS), num_patch_classes=3)
    heads = {
        f"model.{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")
    }
    every = {name for name, _ in task.named_parameters()}
    for settings, expected in ((changed(trainable="head"), heads), (SETTINGS, every)):
        chosen = settings
        optimizers = make_optimizers(task, chosen, lambda name, s=chosen: task.lr_scale(name, s))
        assert set(grouped(task, optimizers)) == expected
        assert {name for name, each in task.named_parameters() if each.requires_grad} == expected


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is trained: every weight stays as it is"):
        make_optimizers(small_model(), SETTINGS, lambda _name: 0.0)


# ---- rules ---------------------------------------------------------------------------------------


def test_muon_has_the_matrices_inside_blocks_and_adamw_the_rest() -> None:
    task = ClassificationTask(small_model(**TOKENS), num_patch_classes=3)
    found = grouped(task, make_optimizers(task, changed(optimizer="muon")))
    assert set(found) == {name for name, _ in task.named_parameters()}
    for name, parameter in task.named_parameters():
        inside = ".blocks." in name and parameter.dim() == 2
        assert found[name][0] is (Muon if inside else torch.optim.AdamW), name


def test_muon_leaves_a_captioners_backbone_and_word_embedding_to_adamw() -> None:
    captioner = make_captioner()
    found = grouped(captioner, make_optimizers(captioner, changed(optimizer="muon")))
    for name, parameter in captioner.named_parameters():
        inside = name.startswith(("encoder.", "decoder.")) and parameter.dim() == 2
        assert found[name][0] is (Muon if inside else torch.optim.AdamW), name


RULES: dict[str, Any] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.8),
    "adam": lambda groups: torch.optim.Adam(groups, lr=1.0, betas=(0.9, 0.95)),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95)),
}


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_those_of_torchs_plain_optimizer(rule: str) -> None:
    """Groups, rates and decay as they are written down here, five steps at falling rates."""
    ours, theirs = (ClassificationTask(small_model()) for _ in range(2))
    settings = changed(optimizer=rule, momentum=0.8, beta2=0.95, layer_decay=0.5)
    optimizers = make_optimizers(ours, settings, lambda name: ours.lr_scale(name, settings))
    plain = RULES[rule](
        [
            {"params": [parameter], "weight_decay": 0.05 if matrix else 0.0}
            for name, parameter in theirs.named_parameters()
            for matrix in [name.endswith("weight") and "norm" not in name]
        ]
    )
    names = [name for name, _ in theirs.named_parameters()]
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        set_rates(optimizers, 1 - step / 5)
        for name, group in zip(names, plain.param_groups, strict=True):
            group["lr"] = 0.1 * (1 - step / 5) * layer_lr_scale(name, 2, 0.5)
        for optimizer in (*optimizers, plain):
            optimizer.step()
    start = dict(ClassificationTask(small_model()).named_parameters())
    for name, parameter in ours.named_parameters():
        assert not torch.equal(parameter, start[name]), name
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=1e-5, atol=1e-6)
