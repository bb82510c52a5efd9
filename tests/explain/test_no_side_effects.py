"""No method leaves a trace: on the model, on the pictures, on torch, or on chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minivit import VisionTransformer
from minivit.attention import MultiHeadAttention
from minivit.blocks import EncoderBlock
from minivit.explain import METHODS
from tests.explain.vits import COLS, ROWS, make_images, make_model

CLASSES = (VisionTransformer, EncoderBlock, MultiHeadAttention, nn.Linear, nn.LayerNorm, nn.Module)
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)
GRADIENTS = {
    "relevance",
    "attention_gradient",
    "legrad",
    "input_gradient",
    "smooth_gradient",
    "integrated_gradients",
}


def lived_in_model() -> VisionTransformer:
    """As a user may have it: gradients gathered, some parts in training, some weights frozen."""
    model = make_model(dropout=0.3, drop_path=0.2)
    for number, weight in enumerate(model.parameters()):
        weight.grad = torch.randn_like(weight)
        weight.requires_grad_(number % 3 > 0)
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    return model


def traces(model: VisionTransformer, images: Tensor) -> dict[str, Any]:
    """Everything that must be as before, as values that can be compared."""
    modules = dict(model.named_modules())
    mode = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled())
    kind, keys, place, *rest = np.random.get_state()
    return {
        "weights": bits(dict(model.named_parameters())),
        "the same weights": {name: id(weight) for name, weight in model.named_parameters()},
        "gradients": bits({name: w.grad for name, w in model.named_parameters()}),
        "the same gradients": {name: id(w.grad) for name, w in model.named_parameters()},
        "requires_grad": {name: w.requires_grad for name, w in model.named_parameters()},
        "tensor hooks": {
            name: len(w._backward_hooks or ()) for name, w in model.named_parameters()
        },
        "training": {name: module.training for name, module in modules.items()},
        "hooks": {
            (name, kind): list(getattr(module, kind))
            for name, module in modules.items()
            for kind in HOOKS
        },
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "classes": {name: type(module) for name, module in modules.items()},
        "class methods": {each.__name__: dict(vars(each)) for each in CLASSES},
        "modes": mode,
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "pictures": (bits({"": images}), images.requires_grad, images.grad is None),
        "chance": (bits({"": torch.get_rng_state()}), kind, keys.tobytes(), place, rest),
        "chance of Python": random.getstate(),
    }


def bits(tensors: dict[str, Tensor | None]) -> dict[str, bytes | None]:
    return {
        name: None if tensor is None else tensor.detach().numpy().tobytes()
        for name, tensor in tensors.items()
    }


def logits(model: VisionTransformer, images: Tensor) -> bytes:
    """Bits of the logits in eval mode, with the flags as before afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    with torch.no_grad():
        result = model(images).numpy().tobytes()
    for module in training:
        module.training = True
    return result


def assert_no_trace(model: VisionTransformer, images: Tensor, call: Callable[[], object]) -> None:
    before, answer = traces(model, images), logits(model, images)
    call()
    after = traces(model, images)
    for name in before:
        assert after[name] == before[name], name
    assert logits(model, images) == answer


@pytest.fixture(autouse=True)
def _any_chance() -> Iterator[None]:
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    yield


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_no_trace(name: str, mode: Callable[[], Any]) -> None:
    model, images = lived_in_model(), make_images()

    def call() -> None:
        maps = METHODS[name](model, images)
        assert maps.shape == (2, ROWS, COLS) and maps.isfinite().all()
        assert not maps.requires_grad and maps.grad_fn is None

    with mode():
        assert_no_trace(model, images, call)


@pytest.mark.parametrize("keep", ["maps", "inputs"])
def test_both_ways_of_relevance_leave_no_trace(keep: str) -> None:
    model, images = lived_in_model(), make_images()
    assert_no_trace(model, images, lambda: METHODS["relevance"](model, images, keep=keep))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_no_trace_in_inference_mode(name: str) -> None:
    """It gives its map, or says in one line that it needs gradients."""
    model, images = lived_in_model(), make_images()

    def call() -> None:
        try:
            assert METHODS[name](model, images).shape == (2, ROWS, COLS)
        except ValueError as error:
            assert "inference_mode" in str(error) and "\n" not in str(error)

    with torch.inference_mode():
        assert_no_trace(model, images, call)


@pytest.mark.parametrize("name", METHODS)
def test_the_pictures_of_a_caller_who_wants_gradients_are_left_alone(name: str) -> None:
    model, images = lived_in_model(), make_images().requires_grad_()
    assert_no_trace(model, images, lambda: METHODS[name](model, images))
    images = (2 * images).requires_grad_()  # not a leaf of the caller's graph
    assert not METHODS[name](model, images).requires_grad


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("name", METHODS)
def test_an_error_inside_leaves_no_trace(name: str, way: str) -> None:
    """An error raised late in a pass, where the method is in the middle of its work.

    That of the backward pass comes from a hook on what the last MLP gave.
    """
    model, images = lived_in_model(), make_images()
    answer = logits(model, images)

    def fail(*_: object) -> None:
        raise RuntimeError("a hook of the user's failed")

    def fail_going_back(module: nn.Module, arguments: object, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(fail)

    number, hook = (-2, fail) if way == "forward" else (-1, fail_going_back)
    handle = model.blocks[number].mlp.register_forward_hook(hook)
    calls: list[str] = []

    def call() -> None:
        try:
            METHODS[name](model, images)
        except RuntimeError as error:
            calls.append(str(error))
        except ValueError as refusal:  # it reads values past the block, and not past hooks
            assert name == "value_norm" and "has hooks" in str(refusal)

    before = traces(model, images)
    call()
    after = traces(model, images)
    for what in before:
        assert after[what] == before[what], what
    handle.remove()
    assert logits(model, images) == answer
    fails = name in GRADIENTS if way == "backward" else name not in {"random", "centre", "edges"}
    assert calls == ["a hook of the user's failed"] * fails


@pytest.mark.parametrize("name", METHODS)
def test_dropout_is_off_and_chance_is_the_methods_own(name: str) -> None:
    """The same map twice, from a model in any mode, whatever the global seeds are."""
    model, images = lived_in_model(), make_images()
    first = METHODS[name](model, images)
    torch.manual_seed(99)
    np.random.seed(98)
    random.seed(97)
    assert torch.equal(METHODS[name](model, images), first)
    torch.testing.assert_close(METHODS[name](model.eval(), images), first)
