"""What an explanation must leave as it was: everything that a later call could notice."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from minivit import VisionTransformer


def give_gradients(model: VisionTransformer) -> None:
    """Fills every `.grad` with numbers that are not 0."""
    for index, weight in enumerate(model.parameters()):
        weight.grad = torch.full_like(weight, 1.0 + index)


def state_of(model: VisionTransformer) -> dict[str, Any]:
    """Weights, gradients, flags, hooks, attributes and methods; modes and random states."""
    state: dict[str, Any] = {
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "random": (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())),
    }
    for name, weight in model.named_parameters():
        gradient = None if weight.grad is None else weight.grad.numpy().tobytes()
        bits = weight.detach().numpy().tobytes()
        state[name] = (id(weight), bits, gradient, id(weight.grad), weight.requires_grad)
    for name, module in model.named_modules():
        kind = type(module)
        hooks = {key: len(value) for key, value in vars(module).items() if "hooks" in key}
        flags = {key: value for key, value in vars(module).items() if isinstance(value, bool)}
        methods = (id(kind.forward), id(kind.__call__))
        state[f"module {name}"] = (kind, sorted(vars(module)), hooks, flags, methods)
    return state


@contextlib.contextmanager
def untouched(model: VisionTransformer, images: torch.Tensor) -> Iterator[None]:
    """Asserts that what is done within, errors too, leaves no trace on the model."""
    give_gradients(model)
    training = [module for module in model.modules() if module.training]

    def logits() -> bytes:
        model.eval()
        with torch.no_grad():
            values = model(images).numpy().tobytes()
        for module in training:
            module.training = True
        return bytes(values)

    before, state = logits(), state_of(model)
    try:
        yield
    finally:
        after = state_of(model)
        assert [key for key in state if state[key] != after.get(key)] == []
        assert state.keys() == after.keys()
        assert logits() == before
