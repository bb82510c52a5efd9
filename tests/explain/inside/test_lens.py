"""The logit lens: each row is what a model of fewer blocks says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minivit.explain import intervene, logit_lens
from tests.explain.by_hand import CONFIGS, make_images, make_model
from tests.explain.untouched import untouched


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "dinov2"])
@torch.no_grad()
def test_rows_are_models_of_fewer_blocks(name: str) -> None:
    model, images = make_model(**CONFIGS[name]), make_images()
    rows = logit_lens(model, images)
    assert rows.shape == (2, 4, 10)
    assert torch.equal(rows[:, -1], model(images))
    embedding = model.classify(model.norm(model.embed(images)))
    assert torch.equal(rows[:, 0], embedding)
    for depth in (1, 2):
        short = make_model(**CONFIGS[name], depth=depth)
        names = short.state_dict().keys()
        short.load_state_dict({k: v for k, v in model.state_dict().items() if k in names})
        torch.testing.assert_close(rows[:, depth], short(images), atol=1e-12, rtol=0)


@torch.no_grad()
def test_an_intervention_shows_from_its_block_on() -> None:
    model, images = make_model(), make_images()
    rows = logit_lens(model, images)
    with intervene(model, mlps=[1]):
        changed = logit_lens(model, images)
    same = (rows == changed).all(-1)
    assert same[:, :2].all() and not same[:, 2:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "the model has no head"),
        (CONFIGS["dinov2"], "the head sees 2 blocks at once"),
    ],
)
def test_what_is_not_defined_is_said_in_a_line(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logit_lens(make_model(**options), make_images())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_nothing_is_left_behind(mode: Any) -> None:
    model, images = make_model(dropout=0.1).train(), make_images()
    with untouched(model, images), mode():
        assert not logit_lens(model, images).requires_grad
