"""Every intervention, and all that describes a model, leaves the model as it was: after errors too.

Methods are asked the same in `tests/explain/test_no_side_effects.py`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from minivit import VisionTransformer, explain
from minivit.explain import Recording, intervene, record
from tests.explain.untouched import untouched
from tests.explain.vits import make_images, make_model

Mode = Callable[[], contextlib.AbstractContextManager[Any]]
MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]

PARTS: dict[str, Any] = {
    "patches": [(1, 2), (3, 5)],
    "heads": {0: [1], 2: [0, 2]},
    "attention": [1],
    "mlps": [0, 2],
    "blocks": [1],
    "outputs": [0, 2],
}
WEIGHTS: dict[str, Any] = {
    "uniform": {1: "uniform"},
    "another picture's": None,  # made of the model, see `intervention`
}
REPLACEMENTS: dict[str, Any] = {"zero": 0.0, "half": 0.5, "mean": "mean", "another picture's": None}
INTERVENTIONS = [("weights", kind) for kind in WEIGHTS] + [
    (part, by) for part in PARTS for by in REPLACEMENTS
]


def lived_in_model() -> VisionTransformer:
    """With frozen weights, parts in training, and a hook of somebody else's."""
    model = make_model(drop_path=0.2)
    model.gradient_checkpointing = True
    for number, (weight, module) in enumerate(
        zip(model.parameters(), model.modules(), strict=False)
    ):
        weight.requires_grad_(number % 3 > 0)
        module.training = number % 2 == 0
    model.blocks[0].attn.proj.register_forward_pre_hook(lambda module, arguments: None)
    return model


@contextlib.contextmanager
def intervention(model: VisionTransformer, images: Tensor, part: str, kind: str) -> Iterator[None]:
    """One part replaced in one way; others' values come from the pictures in reverse order."""
    options: dict[str, Any]
    if part == "weights":
        with torch.no_grad():
            _, attentions = model(images.flip(0), return_attention=[1])
        options = {"weights": WEIGHTS[kind] or {1: attentions[0]}}
    else:
        by = REPLACEMENTS[kind]
        options = {part: PARTS[part], "by": recording(model, images) if by is None else by}
    with intervene(model, **options):
        yield


def recording(model: VisionTransformer, images: Tensor) -> Recording:
    with torch.no_grad(), record(model) as kept:
        model(images.flip(0))
    return kept


def test_every_intervention_is_asked() -> None:
    keywords = {
        name
        for name, parameter in inspect.signature(intervene).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == {part for part, _ in INTERVENTIONS} | {"tokens", "by"}


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        (torch.enable_grad, None),
        (torch.no_grad, "in the body"),
        (torch.inference_mode, None),
        (torch.enable_grad, "in the model"),
    ],
)
@pytest.mark.parametrize(("part", "kind"), INTERVENTIONS)
def test_an_intervention_leaves_no_trace(
    part: str, kind: str, mode: Mode, error: str | None
) -> None:
    model, images = lived_in_model(), make_images()
    with untouched(model, images):
        chance = torch.random.get_rng_state()
        handle = None
        with contextlib.suppress(KeyError), mode(), intervention(model, images, part, kind):
            if error == "in the model":
                handle = model.blocks[-1].mlp.register_forward_hook(_fail)
            model(images)
            if error == "in the body":
                raise KeyError
        if handle is not None:
            handle.remove()
        torch.random.set_rng_state(chance)  # stochastic depth of the caller's own passes has drawn


def test_an_intervention_changes_what_the_model_says() -> None:
    """Without which all the above would hold of doing nothing."""
    model, images = make_model(), make_images()
    with torch.no_grad():
        plain = model(images)
        for part, kind in INTERVENTIONS:
            with intervention(model, images, part, kind):
                assert not torch.allclose(model(images), plain), (part, kind)
            assert torch.equal(model(images), plain), (part, kind)


def _fail(*_: object) -> None:
    raise KeyError("a hook of the user's failed")


# ---- what describes a model ----------------------------------------------------------------------

DESCRIPTIONS: dict[str, Callable[[VisionTransformer, Tensor], object]] = {
    "attention_distance": explain.attention_distance,
    "attention_entropy": explain.attention_entropy,
    "attention_parts": explain.attention_parts,
    "contributions": explain.contributions,
    "diagnose": lambda model, images: explain.diagnose(model, images[:1]),
    "filter_components": lambda model, images: explain.filter_components(model, count=8),
    "logit_lens": explain.logit_lens,
    "logits_of_kept": lambda model, images: explain.logits_of_kept(
        model, images, torch.tensor([3, 1, 8])
    ),
    "mass_by_kind": explain.mass_by_kind,
    "outlier_tokens": explain.outlier_tokens,
    "position_similarity": lambda model, images: explain.position_similarity(model),
    "rank_parts": explain.rank_parts,
    "token_similarity": explain.token_similarity,
}
READS_NO_BLOCKS = {"filter_components", "position_similarity"}


def test_every_description_is_asked() -> None:
    """Public functions whose first argument is the model; the others are asked elsewhere."""
    elsewhere = {"intervene", "record", "scores", "store_queries_keys"}
    functions = {
        name
        for name in explain.__all__
        if inspect.isfunction(inspect.unwrap(getattr(explain, name)))
        and next(iter(inspect.signature(getattr(explain, name)).parameters)) == "model"
    }
    assert functions == set(DESCRIPTIONS) | elsewhere


@pytest.mark.parametrize("error", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_leaves_no_trace(name: str, mode: Mode, error: bool) -> None:
    model, images = lived_in_model(), make_images()
    with untouched(model, images):
        calls: list[str] = []
        handle = model.blocks[-1].norm1.register_forward_hook(_fail) if error else None
        try:
            with mode():
                DESCRIPTIONS[name](model, images)
        except KeyError as raised:
            calls.append(str(raised))
        if handle is not None:
            handle.remove()
        assert bool(calls) is (error and name not in READS_NO_BLOCKS)
