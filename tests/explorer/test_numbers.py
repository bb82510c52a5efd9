"""The numbers in the page are torch's: weights of attention, logits, pixels, positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
from minivit.explain import intervene
from minivit.explain.inside.lens import logit_lens
from minivit.explorer import document, write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.conftest import as_in_page, sharp_vit
from tests.explorer.pages import Opened, opened

pytestmark = pytest.mark.browser

VARIANTS: dict[str, dict[str, Any]] = {
    "registers and LayerScale": {},
    "mean pooling, no class token": {"pooling": "mean", "class_token": False, "fc_norm": True},
    "distillation token": {"distillation_token": True, "num_register_tokens": 0},
    "class token and mean": {"pooling": "cls_and_mean"},
    "sine positions": {"pos_embed": "sine", "dim": 48},
    "quick GELU, norm before": {"activation": "quick_gelu", "norm_pre": True, "patch_bias": False},
    "GELU by tanh, no bias": {"activation": "gelu_tanh", "qkv_bias": False},
    "ReLU, a tanh layer": {"activation": "relu", "representation_dim": 20},
    "SwiGLU": {"activation": "swiglu"},
    "no head": {"num_classes": 0},
}


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Random colours of 8 pixels' size, (width, height)."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _torch(model: VisionTransformer, image: Image.Image) -> tuple[torch.Tensor, list[torch.Tensor]]:
    with torch.inference_mode():
        logits, attentions = model(model.preprocess(image)[None], return_attention=True)
    return logits[0], [weights[0] for weights in attentions]


def _live(here: Opened, number: int = 0) -> None:
    here.wait_until(f"passes.has({number})")


def _assert_pass(here: Opened, number: int, model: VisionTransformer, image: Image.Image) -> None:
    logits, attentions = _torch(model, image)
    np.testing.assert_allclose(here.array(f"passes.get({number}).logits"), logits, atol=1e-4)
    for block, weights in enumerate(attentions):
        got = here.array(f"passes.get({number}).attention[{block}]").reshape(weights.shape)
        np.testing.assert_allclose(got, weights, atol=3e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pass_in_the_page_is_torchs(browser: Any, tmp_path: Path, variant: str) -> None:
    model = sharp_vit(**VARIANTS[variant])
    images = [picture((48, 32)), picture((80, 40), 1)]
    path = tmp_path / "page.html"
    write_page(
        model, [PagePicture("one", images[0]), PagePicture("two", images[1])], path, methods=()
    )
    with opened(browser, path) as here:
        _live(here, 1)
        for number, image in enumerate(images):
            _assert_pass(here, number, as_in_page(model), image)
        assert not here.complaints and not here.requests


def test_the_shipped_model_says_in_the_page_what_it_says_here(
    browser: Any, scenes_model: VisionTransformer, scenes_page: Path
) -> None:
    with opened(browser, scenes_page) as here:
        _live(here, 1)
        image = minivit.open_image("tutorials/photos/cat.jpg")
        rounded = as_in_page(scenes_model)
        _assert_pass(here, 1, rounded, image)
        exact, _ = _torch(scenes_model, image)
        np.testing.assert_allclose(here.array("passes.get(1).logits"), exact, atol=3e-3)
        with torch.inference_mode():
            lens = logit_lens(rounded, rounded.preprocess(image)[None])[0]
        for block, logits in enumerate(lens):
            np.testing.assert_allclose(
                here.array(f"passes.get(1).lens[{block}]"), logits, atol=1e-4
            )


def test_plain_javascript_gives_the_same(browser: Any, scenes_page: Path) -> None:
    with opened(browser, scenes_page) as here:
        _live(here, 0)
        by_kernel = here.array("passes.get(0).logits")
        here.page.evaluate(
            "window.plain = new Engine(), plain.open({...ownWeights(), kernel: null})"
        )
        assert here.page.evaluate("plain.model.kernel.name") == "JavaScript"
        by_loop = here.array("plain.run({picture: page.pictures[0].pixels, changes: {}}).logits")
        np.testing.assert_allclose(by_loop, by_kernel, atol=1e-4)
        assert not np.array_equal(by_loop, by_kernel)  # they were two ways indeed


def test_stored_queries_and_keys_give_rows_and_columns(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "LIVE_WEIGHTS", 0)
    model, image = sharp_vit(), picture((48, 32))
    path = tmp_path / "page.html"
    write_page(model, [PagePicture("one", image)], path, methods=())
    _, attentions = _torch(model, image)
    with opened(browser, path) as here:
        assert here.page.evaluate("live") is None
        here.page.evaluate("window.stored = viewOf().attention")
        for block, weights in enumerate(attentions):
            for head in range(3):
                for token in (0, 3, 20):
                    row = here.array(f"stored.row({block}, {head}, {token})")
                    np.testing.assert_allclose(row, weights[head, token], atol=3e-4)
                    column = here.array(f"stored.column({block}, {head}, {token})")
                    np.testing.assert_allclose(column, weights[head, :, token], atol=3e-4)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "heads": ("{headsOff: {1: [0, 2]}}", {"heads": {1: [0, 2]}}),
    "an MLP": ("{mlpsOff: [0]}", {"mlps": [0]}),
    "a block": ("{blocksOff: [2]}", {"blocks": [2]}),
    "even attention": ("{uniform: [1]}", {"weights": {1: "uniform"}}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_switched_off_in_the_page_is_an_intervention(
    browser: Any, scenes_model: VisionTransformer, scenes_page: Path, change: str
) -> None:
    text, options = CHANGES[change]
    image = minivit.open_image("tutorials/photos/cat.jpg")
    rounded = as_in_page(scenes_model)
    with torch.inference_mode(), intervene(rounded, **options):
        logits = rounded(rounded.preprocess(image)[None])[0]
    with opened(browser, scenes_page) as here:
        _live(here, 1)
        here.page.evaluate(
            "live.ask('run', {picture: page.pictures[1].pixels, changes: "
            + text
            + "}).then((p) => { window.changed = p; })"
        )
        here.wait_until("window.changed")
        np.testing.assert_allclose(here.array("changed.logits"), logits, atol=1e-4)
        assert (
            np.abs(here.array("changed.logits") - here.array("passes.get(1).logits")).max() > 0.01
        )


def test_a_query_can_be_followed_step_by_step(
    browser: Any, scenes_model: VisionTransformer, scenes_page: Path
) -> None:
    """q·k/√d, softmax and the mix, as the library's own layer computes them."""
    image, block, head, token = minivit.open_image("tutorials/photos/cat.jpg"), 2, 1, 40
    rounded = as_in_page(scenes_model)
    with torch.inference_mode():
        tokens = rounded.embed(rounded.preprocess(image)[None])
        for earlier in rounded.blocks[:block]:
            tokens, _ = earlier(tokens)
        qkv = rounded.blocks[block].attn.qkv(rounded.blocks[block].norm1(tokens))[0]
        query, keys, values = qkv.unflatten(1, (3, 3, 32))[:, :, head].unbind(1)  # each (N, d)
        scores = query[token] @ keys.T / 32**0.5
        mix = scores.softmax(0) @ values
    with opened(browser, scenes_page, fragment="picture=1&head=1&block=2&token=40") as here:
        _live(here, 1)
        here.page.click("#steps button")
        here.wait_until("passes.get(1).watched")
        np.testing.assert_allclose(
            here.array("passes.get(1).watched.query"), query[token], atol=1e-4
        )
        np.testing.assert_allclose(here.array("passes.get(1).watched.keys[7]"), keys[7], atol=1e-4)
        np.testing.assert_allclose(here.array("passes.get(1).watched.scores"), scores, atol=1e-3)
        np.testing.assert_allclose(here.array("passes.get(1).watched.mix"), mix, atol=1e-4)
        first = [
            cell.strip()
            for cell in here.page.eval_on_selector_all(
                "#steps tr:nth-child(2) td", "cells => cells.map((cell) => cell.textContent)"
            )
        ]
        best = int(scores.argmax())
        assert float(first[1]) == pytest.approx(float(scores[best]) * 32**0.5, abs=0.01)
        assert float(first[4]) == pytest.approx(float(scores.softmax(0)[best]), rel=0.01)
