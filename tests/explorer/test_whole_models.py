"""Whole models in the page: the shipped one over many scenes, and that of `make real`, dropped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minivit
from minivit.data.scenes.dataset import TEST_SEED, ScenesDataset
from minivit.explorer import write_page
from minivit.vit import VisionTransformer
from tests.explorer.pages import opened
from weights_convert import real

pytestmark = pytest.mark.browser
PHOTO = "tutorials/photos/cat.jpg"

# Pixels of many scenes in, the logits of each out.
RUN_ALL = """
async (text) => {
  const bytes = fromBase64(text), size = 96 * 96 * 3, all = [];
  for (let k = 0; k < bytes.length; k += size) {
    const picture = { pixels: bytes.slice(k, k + size), width: 96, height: 96, channels: 3 };
    all.push((await live.ask("run", { picture, changes: {} })).logits);
  }
  window.everyLogit = Float32Array.from(all.flatMap((logits) => [...logits]));
}
"""


def test_two_hundred_scenes_get_the_answers_that_they_get_here(
    browser: Any, scenes_model: VisionTransformer, scenes_page: Path
) -> None:
    data = ScenesDataset(TEST_SEED, 200, image_size=96)
    pixels = torch.stack([data[index][0] for index in range(200)])  # (B, 3, 96, 96) uint8
    with torch.inference_mode():
        expected = scenes_model(scenes_model.preprocess.normalize(pixels)).numpy()
    text = base64.b64encode(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).decode()
    with opened(browser, scenes_page) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate(RUN_ALL, text)
        logits = here.array("everyLogit").reshape(expected.shape)
    assert (logits.argmax(1) == expected.argmax(1)).all()
    np.testing.assert_allclose(logits, expected, atol=1e-2)


def test_a_real_model_that_is_dropped_runs_in_the_page(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    weights = real.path()
    if weights is None:
        pytest.skip("make real has not been run")
    model = minivit.load_model(weights)
    with torch.inference_mode():
        image = model.preprocess(minivit.open_image(PHOTO))[None]
        features, attentions = model(image, return_attention=True)
    page = tmp_path / "page.html"
    write_page(scenes_model, [PHOTO], page)
    with opened(browser, page) as here:
        here.wait_until("passes.has(0)")
        here.page.set_input_files("#files", [str(weights), PHOTO])
        here.wait_until("page.config.dim === 384 && passes.has(1)", seconds=120)
        assert here.page.evaluate("live.worker !== null")
        got = here.array("passes.get(1).logits")
        np.testing.assert_allclose(got, features[0], atol=1e-3)
        for block, expected in enumerate(attentions):
            got = here.array(f"passes.get(1).attention[{block}]").reshape(expected[0].shape)
            np.testing.assert_allclose(got, expected[0], atol=1e-3)
        assert not here.complaints and not here.requests


def test_a_real_model_that_is_stored_gives_its_weights(browser: Any, tmp_path: Path) -> None:
    weights = real.path()
    if weights is None:
        pytest.skip("make real has not been run")
    model = minivit.load_model(weights)
    page = tmp_path / "page.html"
    write_page(model, [PHOTO], page, methods=())
    with torch.inference_mode():
        image = model.preprocess(minivit.open_image(PHOTO))[None]
        _, attentions = model(image, return_attention=True)
    with opened(browser, page) as here:
        here.page.evaluate("window.stored = viewOf().attention")
        for block, expected in enumerate(attentions):
            for head in range(6):
                for token in (0, 100):
                    row = here.array(f"stored.row({block}, {head}, {token})")
                    np.testing.assert_allclose(row, expected[0, head, token], atol=3e-4)
                    column = here.array(f"stored.column({block}, {head}, {token})")
                    np.testing.assert_allclose(column, expected[0, head, :, token], atol=3e-4)
