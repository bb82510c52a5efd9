"""Shares of a logit: against the sum written out vector by vector, and that they add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import attention_parts, contributions, intervene
from tests.explain.by_hand import CONFIGS, forward, make_images, make_model
from tests.explain.untouched import untouched

TARGETS = [7, 2]


def shares_by_hand(model: VisionTransformer, images: Tensor) -> dict[str, Tensor]:
    """Every part as vectors (B, N, D), each led through the norms as they stood, and the heads."""
    config, w = model.config, {n: t.detach() for n, t in model.state_dict().items()}
    seen: dict[tuple[str, int], Tensor] = {}

    def keep(part: str, block: int, value: Tensor) -> Tensor:
        seen[part, block] = value
        return value

    forward(model, images, keep)
    one = torch.tensor(1.0)
    vectors: dict[str, tuple[int, Tensor]] = {"embedding": (-1, seen["embedding", 0])}
    for i in range(config.depth):
        scale = w.get(f"blocks.{i}.ls1.gamma", one)
        width = config.dim // config.num_heads
        matrix = w[f"blocks.{i}.attn.proj.weight"]
        for h in range(config.num_heads):
            head = seen["heads", i][:, h] @ matrix[:, h * width : (h + 1) * width].T
            vectors[f"head {i} {h}"] = i, head * scale
        bias = w[f"blocks.{i}.attn.proj.bias"] * scale
        vectors[f"bias {i}"] = i, bias.expand_as(seen["embedding", 0])
        vectors[f"mlp {i}"] = i, seen["mlps", i] * w.get(f"blocks.{i}.ls2.gamma", one)

    def through(name: str, part: Tensor, whole: Tensor) -> Tensor:
        """A part through a LayerNorm that found the deviation of the whole; without its bias."""
        if f"{name}.weight" not in w:
            return part
        deviation = (whole.var(-1, correction=0, keepdim=True) + config.layer_norm_eps).sqrt()
        return (part - part.mean(-1, keepdim=True)) / deviation * w[f"{name}.weight"]

    first, last = config.num_prefix_tokens, seen["outputs", config.depth - 1]
    shares = {}
    for name, (block, part) in vectors.items():
        normed = through("norm", part, last)
        if config.pooling == "cls":
            pooled, whole = normed[:, 0], last[:, 0]
        else:
            pooled, whole = normed[:, first:].mean(1), last[:, first:].mean(1)
        if config.pooling == "cls_and_mean":
            before = seen["outputs", config.depth - 2]
            earlier = through("norm", part, before)[:, 0] * (block <= config.depth - 2)
            pooled = torch.cat([earlier, normed[:, 0], pooled], 1)
        logits = through("fc_norm", pooled, whole) @ w["head.weight"].T
        if config.distillation_token:
            logits = (logits + normed[:, 1] @ w["head_dist.weight"].T) / 2
        shares[name] = logits[torch.arange(len(images)), torch.tensor(TARGETS)]
    return shares


@pytest.mark.parametrize("name", CONFIGS)
def test_shares_are_those_written_out_and_add_up_to_the_logit(name: str) -> None:
    model, images = make_model(**CONFIGS[name]), make_images()
    expected = shares_by_hand(model, images)
    shares = contributions(model, images, TARGETS)
    assert shares.heads.shape == (2, 3, 4) and shares.mlps.shape == (2, 3)
    ours = {"embedding": shares.embedding}
    for i in range(3):
        ours |= {f"head {i} {h}": shares.heads[:, i, h] for h in range(4)}
        ours |= {f"bias {i}": shares.attention_biases[:, i], f"mlp {i}": shares.mlps[:, i]}
    assert ours.keys() == expected.keys()
    for part in ours:
        torch.testing.assert_close(ours[part], expected[part], atol=1e-10, rtol=0)
    logits = forward(model, images)[[0, 1], TARGETS]
    total = sum(ours.values()) + shares.bias
    torch.testing.assert_close(total, logits, atol=1e-10, rtol=0)
    torch.testing.assert_close(shares.logit, logits, atol=1e-10, rtol=0)
    assert shares.error.abs().max() < 1e-10


@pytest.mark.parametrize("name", CONFIGS)
def test_single_precision_is_enough(name: str) -> None:
    model, images = make_model(**CONFIGS[name]).float(), make_images().float()
    shares = contributions(model, images)
    assert shares.error.abs().max() < 1e-4
    assert torch.equal(shares.logit, model(images).amax(1))  # of the predicted class
    for block in range(3):
        heads, bias = attention_parts(model, images, block)
        kept = {}
        handle = model.blocks[block].attn.register_forward_hook(
            lambda module, arguments, outputs, kept=kept: kept.update(output=outputs[0])
        )
        model(images)
        handle.remove()
        torch.testing.assert_close(heads.sum(1) + bias, kept["output"], atol=1e-5, rtol=0)


def test_parts_of_an_attention_are_what_its_heads_write() -> None:
    model, images = make_model(), make_images()
    whole, parts = {}, attention_parts(model, images)
    assert parts.heads.shape == (2, 4, 25, 32)

    def keep(part: str, block: int, value: Tensor) -> Tensor:
        whole[part, block] = value
        return value

    def alone(head: int) -> Tensor:
        """The attention's output when no other head speaks, without the bias."""

        def silence(part: str, block: int, value: Tensor) -> Tensor:
            if part == "heads" and block == 2:
                value = value * (torch.arange(4) == head).double()[:, None, None]
            return keep(part, block, value)

        forward(model, images, silence)
        return whole["attention", 2] - model.blocks[2].attn.proj.bias.detach()

    for head in range(4):
        torch.testing.assert_close(parts.heads[:, head], alone(head), atol=1e-10, rtol=0)


def test_a_head_that_is_silenced_has_no_share_and_the_rest_adds_up() -> None:
    model, images = make_model(), make_images()
    with intervene(model, heads={1: [2]}):
        shares = contributions(model, images, 0)
    assert bool((shares.heads[:, 1, 2] == 0).all()) and bool((shares.heads[:, 0] != 0).all())
    assert shares.error.abs().max() < 1e-10
    with intervene(model, blocks=[1], by=0.5):  # no part of the sum: the error says so
        assert contributions(model, images, 0).error.abs().min() > 1e-3


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        ({"representation_dim": 16}, None, "do not add up through the tanh layer before this head"),
        ({"num_classes": 0}, None, "the model has no head"),
        ({}, 10, "class 10: choose from 0 to 9"),
        ({}, "cat", "no class is called 'cat'"),
        ({}, [1, 2, 3], "3 classes for 2 pictures"),
    ],
)
def test_what_is_not_defined_is_said_in_a_line(options: Any, target: Any, message: str) -> None:
    model, images = make_model(**options), make_images()
    with untouched(model, images), pytest.raises(ValueError) as caught:
        contributions(model, images, target)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_there_is_no_such_block() -> None:
    with pytest.raises(ValueError, match="block 3: choose from -3 to 2"):
        attention_parts(make_model(), make_images(), 3)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_nothing_is_left_behind(mode: Any) -> None:
    model, images = make_model(dropout=0.1).train(), make_images()
    with untouched(model, images):
        with mode():
            contributions(model, images)
            attention_parts(model, images)
        with intervene(model, mlps=[0]):
            assert not contributions(model, images).heads.requires_grad
