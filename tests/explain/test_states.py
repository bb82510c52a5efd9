"""The way from the states of a forward pass to the logits, and the last block's shorter one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain.methods.readout import block_inputs
from minivit.explain.states import logits_of_states, run_block
from tests.explain.vits import KINDS, make_images, make_model

ALL_READ = {"mean", "several blocks read"}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_from_any_state_on_the_logits_are_those_of_the_model(kind: str) -> None:
    model, images = make_model(kind, depth=4), make_images()
    expected = model(images)
    states = block_inputs(model, images, count=5)
    for count in range(1, 6):
        torch.testing.assert_close(logits_of_states(model, states[:count]), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_block_is_computed_for_what_the_head_reads(kind: str) -> None:
    model, images = make_model(kind), make_images()
    tokens = block_inputs(model, images, count=3)[-1]
    whole, weights = model.blocks[-1](tokens, need_weights=True)
    output, rows = run_block(model, 2, tokens, need_weights=True)
    count = tokens.shape[1] if kind in ALL_READ else 1 + model.config.distillation_token
    assert output.shape[1] == count and rows is not None and rows.shape[2] == count
    torch.testing.assert_close(output, whole[:, :count])
    torch.testing.assert_close(rows, weights[:, :, :count])
    assert (
        run_block(model, 1, tokens)[0].shape == tokens.shape
        and run_block(model, 1, tokens)[1] is None
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "where", ["blocks.2", "blocks.2.attn", "blocks.2.attn.qkv", "blocks.2.mlp.fc1"]
)
def test_a_hook_sees_all_tokens_of_the_last_block(where: str) -> None:
    model, images = make_model(), make_images()
    tokens = block_inputs(model, images, count=3)[-1]
    lengths: list[int] = []

    def look(module: torch.nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        lengths.append(arguments[0].shape[1])

    handle = model.get_submodule(where).register_forward_hook(look)
    output, _ = run_block(model, 2, tokens)
    handle.remove()
    assert lengths == [tokens.shape[1]] and output.shape == tokens.shape


def test_a_layer_of_another_kind_is_called() -> None:
    """As adapters put them in the place of `qkv`, whose weights then are not all there is."""

    class Adapted(torch.nn.Module):
        def __init__(self, layer: torch.nn.Linear) -> None:
            super().__init__()
            self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

        def forward(self, tokens: Tensor) -> Tensor:
            return 1.5 * self.layer(tokens)

    model, images = make_model(), make_images()
    model.blocks[-1].attn.qkv = Adapted(model.blocks[-1].attn.qkv)
    assert isinstance(model, VisionTransformer)
    with torch.no_grad():
        torch.testing.assert_close(logits_of_states(model, [model.embed(images)]), model(images))
