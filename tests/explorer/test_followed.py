"""Rollout and value norm, computed in the page of its own passes: the numbers are `METHODS`'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
from minivit.data.scenes.dataset import TEST_SEED, make_scene, scene_layers
from minivit.explain import METHODS, intervene, rollout
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from minivit.weights import find_weights
from tests.explorer.conftest import as_in_page, sharp_vit
from tests.explorer.pages import Opened, opened
from tests.explorer.test_numbers import picture
from weights_convert import real

pytestmark = pytest.mark.browser
PHOTO = "tutorials/photos/cat.jpg"
FOLLOWED = ("rollout", "value_norm")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "page.html"
    methods = ("rollout", "relevance")
    write_page(sharp_vit(), [PagePicture("one", picture((48, 32)))], page, methods=methods)
    return page


@pytest.fixture
def here(browser: Any, path: Path) -> Iterator[Opened]:
    with opened(browser, path) as page:
        page.wait_until("passes.has(0)")
        yield page
        assert not page.complaints and not page.requests


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    return as_in_page(sharp_vit())


def _images(model: VisionTransformer) -> torch.Tensor:
    return model.preprocess(picture((48, 32)))[None]


def _shown(here: Opened, method: str) -> np.ndarray[Any, Any]:
    """The map that a click on the method shows."""
    here.page.click(f"#methods >> text={method.replace('_', ' ')}")
    assert not here.page.evaluate("viewOf().isAttention")
    return here.array("viewOf().values")


def _change(here: Opened, changes: str) -> None:
    here.page.evaluate(f"change({changes})")
    here.wait_until("!latest.running")


def _assert_map(got: np.ndarray[Any, Any], expected: torch.Tensor) -> None:
    np.testing.assert_allclose(got, expected.detach().flatten(), atol=1e-4 * float(expected.max()))


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "heads": ("{headsOff: {1: [0, 2]}}", {"heads": {1: [0, 2]}}),
    "an MLP": ("{mlpsOff: [0]}", {"mlps": [0]}),
    "a block": ("{blocksOff: [1]}", {"blocks": [1]}),
    "even attention": ("{uniform: [1]}", {"weights": {1: "uniform"}}),
}


@pytest.mark.parametrize("method", FOLLOWED)
@pytest.mark.parametrize("change", CHANGES)
def test_a_switch_is_followed(
    here: Opened, model: VisionTransformer, change: str, method: str
) -> None:
    text, options = CHANGES[change]
    before = _shown(here, method)
    _change(here, text)
    with intervene(model, **options):
        expected = METHODS[method](model, _images(model))[0]
    _assert_map(_shown(here, method), expected)
    assert np.abs(before - expected.detach().numpy().ravel()).max() > 3e-3 * before.max()


def test_what_is_off_in_the_last_block_moves_nothing(
    here: Opened, model: VisionTransformer
) -> None:
    heads = [METHODS["value_norm"](model, _images(model), head=head)[0] for head in range(3)]
    _change(here, "{headsOff: {2: [1]}}")
    _assert_map(_shown(here, "value_norm"), (heads[0] + heads[2]) / 3)
    _change(here, "{headsOff: {}, blocksOff: [2]}")
    assert not _shown(here, "value_norm").any()
    assert here.text("#mass") == "value norm: 0 everywhere"


def test_patches_that_are_gone_leave_holes(here: Opened, model: VisionTransformer) -> None:
    gone = 8
    here.page.evaluate(f"togglePlace(viewOf(), {gone})")
    here.wait_until("!latest.running && viewOf().numTokens === 26")
    with torch.inference_mode():
        tokens, attentions = model.embed(_images(model)), []
        tokens = tokens[:, [k for k in range(tokens.shape[1]) if k != 3 + gone]]
        for block in model.blocks:
            tokens, weights = block(tokens, need_weights=True)
            attentions.append(weights)
        row = rollout(attentions)[0, 0, 3:].numpy()
    got = _shown(here, "rollout")
    assert np.isnan(got[gone])
    np.testing.assert_allclose(np.delete(got, gone), row, atol=1e-5)
    assert f"{100 * row.sum():.1f} % of the row" in here.text("#mass")
    assert "of 23 patches" in here.text("#mass")
    here.page.mouse.move(0, 0)
    here.page.evaluate(f"choose({{method: 'rollout', token: {3 + 5}}})")
    value = float(here.text("#readout").split("× even")[0].split(",")[-1])
    assert value == pytest.approx(row[5] / row.mean(), rel=0.01)


def test_words_say_what_cannot_follow(here: Opened) -> None:
    names = (
        "[...document.querySelectorAll('#methods button')].map((b) => [b.textContent, b.disabled])"
    )
    free = [[name, False] for name in ("attention", "rollout", "relevance", "value norm")]
    assert here.page.evaluate(names) == free
    assert not here.page.is_visible("#stale")
    _change(here, "{headsOff: {1: [0]}}")
    assert here.page.evaluate(names) == [[n, n == "relevance"] for n, _ in free]
    assert "relevance are of the picture and model as they came" in here.text("#stale")
    assert "count" not in here.text("#stale")
    _shown(here, "rollout")
    assert "heads and blocks that are off count" in here.text("#stale")
    here.page.click("text=Back to the start")
    here.wait_until("!latest.running && !isChanged()")
    assert here.page.evaluate(names) == free


def test_a_dragged_scene_is_followed(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    image = make_scene(TEST_SEED, 0, image_size=96).image
    scene = PagePicture("scene", image, scene_layers(TEST_SEED, 0, image_size=96))
    write_page(scenes_model, [scene], page, methods=("rollout",))
    model = as_in_page(scenes_model)
    with opened(browser, page) as here:
        here.wait_until("passes.has(0)")
        before = _shown(here, "rollout")
        here.page.evaluate("changeBody(0, {row: 0.2, column: 0.3, radius: 0.15})")
        here.wait_until("page.pictures[0].start && !latest.running")
        here.wait_until("isChanged() && passes.get(0).logits[0] !== untouched.get(0)[0]")
        seen = here.array("page.pictures[0].pixels.pixels", "uint8").reshape(96, 96, 3)
        images = model.preprocess(Image.fromarray(seen))[None]
        for method in FOLLOWED:
            expected = METHODS[method](model, images)[0]
            _assert_map(_shown(here, method), expected)
        assert np.abs(_shown(here, "rollout") - before).max() > 0.01 * before.max()
        assert not here.complaints


def test_a_dropped_photo_and_a_dropped_checkpoint_have_these_maps(
    browser: Any, path: Path, scenes_model: VisionTransformer
) -> None:
    """And words say where those of the others come from."""
    with opened(browser, path) as here:
        here.wait_until("passes.has(0)")
        here.page.evaluate("page.scores = {rollout: 'points 83 %'}")
        here.page.set_input_files("#files", PHOTO)
        here.wait_until("passes.has(1) && state.picture === 1")
        rounded = as_in_page(sharp_vit())
        images = rounded.preprocess(minivit.open_image(PHOTO))[None]
        for method in FOLLOWED:
            _assert_map(_shown(here, method), METHODS[method](rounded, images)[0])
        assert "visualize.py explain" in here.text("#stale")
        here.page.set_input_files("#files", str(find_weights("scenes")))
        here.wait_until("page.config.depth !== 3 && passes.has(1)")
        images = scenes_model.preprocess(minivit.open_image(PHOTO))[None]
        for method in FOLLOWED:
            _assert_map(_shown(here, method), METHODS[method](scenes_model, images)[0])
        assert "visualize.py explain" in here.text("#stale")
        assert "points" not in here.text("#methods")  # scores of the model that was there
        assert not here.complaints and not here.requests


def test_without_a_class_token_there_are_none(browser: Any, tmp_path: Path) -> None:
    page, model = tmp_path / "page.html", sharp_vit(pooling="mean", class_token=False)
    write_page(model, [PagePicture("one", picture((48, 32)))], page, methods=())
    with opened(browser, page, fragment="method=rollout") as here:
        here.wait_until("passes.has(0)")
        assert here.text("#methods") == "attention"
        assert here.page.evaluate("viewOf().isAttention")
        assert not here.complaints


def test_the_real_model_has_these_maps(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    weights = real.path()
    if weights is None:
        pytest.skip("make real has not been run")
    model = minivit.load_model(weights)
    images = model.preprocess(minivit.open_image(PHOTO))[None]
    page = tmp_path / "page.html"
    write_page(scenes_model, [PHOTO], page)
    with opened(browser, page) as here:
        here.wait_until("passes.has(0)")
        here.page.set_input_files("#files", [str(weights), PHOTO])
        here.wait_until("page.config.dim === 384 && passes.has(1)", seconds=120)
        here.wait_until("state.picture === 1")
        for method in FOLLOWED:
            expected = METHODS[method](model, images)[0].detach()
            limit = 1e-3 * float(expected.max())
            np.testing.assert_allclose(_shown(here, method), expected.flatten(), atol=limit)
        assert not here.complaints
