"""Attention weights know the grid of the pictures that they are of, and remain a list."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minivit import AttentionRows, Attentions, VisionTransformer, ViTConfig
from minivit.explain import class_attention, patch_map, query_attention, rollout

KNOWN = {
    "image_size": (48, 24),
    "grid_size": (6, 3),
    "num_prefix_tokens": 4,
    "class_token": True,
    "blocks": (2, 0),
    "queries": (0, 21),
}


def make_model(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    values = {"image_size": (32, 48), "depth": 3, "num_register_tokens": 3} | options
    return VisionTransformer(ViTConfig.from_name("debug_patch8_32", **values)).eval()


@pytest.fixture
def attentions() -> Attentions:
    """Of pictures of 6 x 3 patches, by a model of 4 x 6."""
    rows = AttentionRows(blocks=[-1, 0], queries=[0, -1])
    with torch.no_grad():
        _, attentions = make_model()(torch.randn(2, 3, 48, 24), return_attention=rows)
    assert isinstance(attentions, Attentions)
    return attentions


def test_a_call_says_what_its_weights_are_of(attentions: Attentions) -> None:
    assert vars(attentions) == KNOWN
    assert [tuple(weights.shape) for weights in attentions] == [(2, 2, 2, 22)] * 2


@pytest.mark.parametrize(
    ("return_attention", "blocks"),
    [(True, (0, 1, 2)), ([], ()), ([1], (1,)), ([-1, 0, 2], (2, 0, 2)), (range(2), (0, 1))],
)
@torch.no_grad()
def test_whole_maps_are_those_of_all_tokens(return_attention: Any, blocks: tuple[int, ...]) -> None:
    model = make_model(class_token=False, pooling="mean", num_register_tokens=0)
    images = torch.randn(1, 3, 24, 32)
    for call in (model, model.encode):
        _, attentions = call(images, return_attention=return_attention)
        assert vars(attentions) == {
            "image_size": (24, 32),
            "grid_size": (3, 4),
            "num_prefix_tokens": 0,
            "class_token": False,
            "blocks": blocks,
            "queries": None,
        }


# ---- a list --------------------------------------------------------------------------------------


def test_it_is_the_list_that_it_was(attentions: Attentions) -> None:
    first, last = attentions
    assert isinstance(attentions, list) and len(attentions) == 2 and attentions
    assert attentions[-1] is last and attentions[0] is first
    others = [torch.zeros(1)]  # those of a captioner's encoder, say: of other tokens
    for plain in (attentions + others, attentions.copy()):
        assert type(plain) is list and plain[0] is first and plain[1] is last
    attentions[0] = last
    assert attentions[0] is last
    assert torch.stack(attentions).shape == (2, 2, 2, 2, 22)
    with pytest.raises(IndexError):
        attentions[2]


def test_a_slice_knows_what_the_whole_knows(attentions: Attentions) -> None:
    part = attentions[1:]
    assert vars(part) == KNOWN | {"blocks": (0,)} and part[0] is attentions[1]
    assert attentions[::-1].blocks == (0, 2) and attentions[::-1][0] is attentions[1]


def test_other_tensors_take_the_knowledge_over(attentions: Attentions) -> None:
    half = attentions.with_tensors(weights / 2 for weights in attentions)
    assert vars(half) == KNOWN and len(half) == 2
    torch.testing.assert_close(class_attention(half), class_attention(attentions) / 2)


def stored_and_loaded(attentions: Attentions) -> Any:
    file = io.BytesIO()
    torch.save(attentions, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made)), stored_and_loaded],
)
def test_copies_and_files_keep_the_knowledge(attentions: Attentions, duplicate: Any) -> None:
    made = duplicate(attentions)
    assert type(made) is Attentions and vars(made) == KNOWN
    assert all(torch.equal(one, two) for one, two in zip(made, attentions, strict=True))


def test_code_that_copies_any_kind_of_list_copies_this_one(attentions: Attentions) -> None:
    """`type(outputs)(…)`, as DataParallel does; the grid is lost, and asked for again."""
    made = type(attentions)(weights.clone() for weights in attentions)
    with pytest.raises(ValueError, match="plain tensors do not know the grid"):
        class_attention(made)
    maps = class_attention(made, make_model(), grid_size=(6, 3))
    assert torch.equal(maps, class_attention(attentions))


# ---- graphs --------------------------------------------------------------------------------------

REQUESTS = [True, [-1], AttentionRows(blocks=[0, -1], queries=[5, 0])]


@pytest.mark.parametrize("return_attention", REQUESTS)
@torch.no_grad()
def test_a_compiled_model_knows_each_size_with_two_graphs(return_attention: Any) -> None:
    graphs: list[Any] = []

    def count(graph: Any, _examples: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    model = make_model()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    for size in [(40, 40), (56, 56), (64, 96), (96, 64)]:
        images = torch.randn(1, 3, *size)
        _, attentions = compiled(images, return_attention=return_attention)
        _, expected = model(images, return_attention=return_attention)
        assert type(attentions) is Attentions and vars(attentions) == vars(expected)
        assert attentions.grid_size == (size[0] // 8, size[1] // 8)
        torch.testing.assert_close(attentions, expected)
    assert len(graphs) == 2


@torch.no_grad()
def test_from_pictures_to_maps_is_one_graph() -> None:
    model = make_model()

    def maps(images: Tensor) -> tuple[Tensor, ...]:
        _, attentions = model(images, return_attention=True)
        flow = patch_map(rollout(attentions)[:, 0], attentions)
        return class_attention(attentions[1:]), query_attention(attentions, patch=(2, 1)), flow

    images = torch.randn(1, 3, 48, 24)
    compiled = torch.compile(maps, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), maps(images))


@pytest.mark.parametrize("return_attention", REQUESTS)
@torch.no_grad()
def test_an_exported_model_gives_a_plain_list_for_any_size(return_attention: Any) -> None:
    """A grid that was written into the graph would be that of the example."""

    class Inspected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()

        def forward(self, images: Tensor) -> Any:
            return self.model(images, return_attention=return_attention)

    inspected = Inspected()
    sides = {axis: 8 * torch.export.Dim(f"side{axis}", min=2, max=50) for axis in (2, 3)}
    exported = torch.export.export(
        inspected, (torch.randn(1, 3, 48, 64),), dynamic_shapes=({0: None, 1: None} | sides,)
    ).module()
    images = torch.randn(1, 3, 72, 40)
    _, attentions = exported(images)
    assert type(attentions) is list
    torch.testing.assert_close(attentions, [*inspected(images)[1]])
