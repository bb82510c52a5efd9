"""Relevance against the whole matrix of the paper, with gradients by finite differences too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer
from minivit.explain import METHODS
from minivit.explain.methods import relevance
from tests.explain.vits import COLS, KINDS, ROWS, as_maps, attention_arrays, make_images, make_model

method = METHODS["relevance"]


def gradients_of_weights(
    model: VisionTransformer, images: Tensor, classes: list[int]
) -> list[np.ndarray]:
    """The logits' gradients (B, H, N, N) by the weights of all blocks, in one backward pass."""
    logits, attentions = model(images, return_attention=True)
    score = sum(logits[picture, number] for picture, number in enumerate(classes))
    return [gradient.numpy() for gradient in torch.autograd.grad(score, list(attentions))]


def by_hand(model: VisionTransformer, images: Tensor, classes: list[int]) -> np.ndarray:
    """Equations 5 and 6 with whole matrices, and the row that the head reads, as maps."""
    gradients = gradients_of_weights(model, images, classes)
    rows = []
    for picture in range(len(images)):
        flow = np.eye(model.num_prefix_tokens + ROWS * COLS)
        for weights, gradient in zip(attention_arrays(model, images), gradients, strict=True):
            mean = np.maximum(gradient[picture] * weights[picture], 0).mean(axis=0)
            flow = flow + mean @ flow
        mean_of_patches = model.config.pooling == "mean"
        rows.append(flow[model.num_prefix_tokens :].mean(0) if mean_of_patches else flow[0])
    return as_maps(model, np.stack(rows))


@pytest.mark.parametrize("keep", ["maps", "inputs", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_papers_matrix(kind: str, keep: str) -> None:
    model, images = make_model(kind), make_images()
    maps = method(model, images, [3, 1], keep=keep)
    expected = by_hand(model, images, [3, 1])
    assert maps.shape == (2, ROWS, COLS) and not maps.requires_grad
    assert expected.min() >= 0 and expected.max() > 1e-3
    np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keep", ["maps", "inputs"])
def test_the_class_is_by_default_the_predicted_one(keep: str) -> None:
    model, images = make_model(), make_images(3)
    predicted = model(images).argmax(dim=1)
    maps = method(model, images, keep=keep)
    assert torch.equal(maps, method(model, images, predicted, keep=keep))
    assert torch.equal(method(model, images, "cat", keep=keep), method(model, images, 2, keep=keep))
    assert not torch.allclose(maps, method(model, images, (predicted + 1) % 5, keep=keep))


@pytest.mark.parametrize("keep", ["maps", "inputs"])
def test_a_picture_has_the_same_map_alone_and_in_a_batch(keep: str) -> None:
    model, images = make_model(), make_images(3)
    maps = method(model, images, [0, 1, 2], keep=keep)
    for number in range(3):
        alone = method(model, images[number : number + 1], number, keep=keep)[0]
        torch.testing.assert_close(maps[number], alone, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_the_one_that_finite_differences_give() -> None:
    """The map of one block alone, from logits of models whose weights were changed by hand."""
    model, images = make_model(depth=1), make_images(1)
    (weights,) = attention_arrays(model, images)
    block, step = model.blocks[0], 1e-6

    def logit(changed: np.ndarray) -> float:
        tokens = model.embed(images)
        value = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)[2]
        value = value.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        attended = (torch.from_numpy(changed) @ value).transpose(1, 2).flatten(2)
        h = tokens + block.ls1(block.attn.proj(attended))
        out = h + block.ls2(block.mlp(block.norm2(h)))
        return model.classify(model.norm(out))[0, 4].item()

    with torch.no_grad():
        row = np.zeros(weights.shape[-1])
        for head in range(weights.shape[1]):
            for column in range(weights.shape[-1]):
                up, down = weights.copy(), weights.copy()
                up[0, head, 0, column] += step
                down[0, head, 0, column] -= step
                slope = (logit(up) - logit(down)) / (2 * step)
                row[column] += max(0, slope * weights[0, head, 0, column]) / weights.shape[1]
    expected = as_maps(model, row[None])
    for keep in ("maps", "inputs"):
        maps = method(model, images, 4, keep=keep)
        np.testing.assert_allclose(maps.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_it_works_without_gradients_around_it_but_not_in_inference_mode() -> None:
    model, images = make_model(), make_images()
    expected = method(model, images)
    with torch.no_grad():
        assert torch.equal(method(model, images), expected)
    with torch.inference_mode():
        made_there = images.clone()
        with pytest.raises(ValueError, match=r"torch.inference_mode records none"):
            method(model, images)
    for keep in ("maps", "inputs"):
        torch.testing.assert_close(method(model, made_there, keep=keep), expected)


@pytest.mark.parametrize(("free", "way"), [(10**12, "maps"), (10**5, "inputs"), (None, "inputs")])
def test_free_memory_decides(monkeypatch: pytest.MonkeyPatch, free: int | None, way: str) -> None:
    monkeypatch.setattr(relevance, "free_memory", lambda device: free)
    taken: list[str] = []
    for name in ("maps", "inputs"):
        original = getattr(relevance, f"_row_of_kept_{name}")

        def noted(*arguments: Any, name: str = name, original: Any = original) -> Tensor:
            taken.append(name)
            return original(*arguments)

        monkeypatch.setattr(relevance, f"_row_of_kept_{name}", noted)
    method(make_model(), make_images())
    assert taken == [way]


def test_the_bytes_of_the_maps_are_about_those_that_autograd_saves() -> None:
    model, images = make_model(depth=4).float(), make_images().float()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = model(images.requires_grad_(), return_attention=True)
    total = sum(size for place, size in saved.items() if place not in weights)
    del kept
    assert 0.7 * total <= relevance.bytes_of_maps(model, images) <= 1.5 * total


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        ({"num_classes": 0}, None, "the model has no head"),
        ({}, 5, "class 5: choose from 0 to 4"),
        ({}, "fox", "no class is called 'fox'"),
        ({}, [1], "1 classes for 2 pictures"),
    ],
)
def test_what_has_no_relevance_is_refused(
    options: dict[str, Any], target: Any, message: str
) -> None:
    for keep in ("maps", "inputs"):
        with pytest.raises(ValueError, match=message):
            method(make_model(**options), make_images(), target, keep=keep)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="keep is 'all': choose from auto, maps, inputs"):
        method(make_model(), make_images(), keep="all")
