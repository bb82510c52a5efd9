"""A browser that refuses workers or WebAssembly, and a page that was damaged on its way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minivit.explorer import write_page
from minivit.vit import VisionTransformer
from tests.explorer.pages import opened

pytestmark = pytest.mark.browser
WORKERS = "; worker-src blob:"
KERNEL = " 'wasm-unsafe-eval'"


def _changed(page: Path, path: Path, old: str, new: str) -> Path:
    text = page.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


REFUSALS = {
    "throws": "Worker = function () { throw new Error('refused'); };",
    "is silent": "Worker = class { postMessage() {} terminate() {} };",
}


@pytest.mark.parametrize("how", ["policy", *REFUSALS])
def test_without_a_worker_the_model_runs_on_the_page(
    browser: Any, scenes_page: Path, tmp_path: Path, how: str
) -> None:
    path = (
        _changed(scenes_page, tmp_path / "page.html", WORKERS, "")
        if how == "policy"
        else _changed(
            scenes_page,
            tmp_path / "page.html",
            '<script id="numerics">',
            f'<script>{REFUSALS[how]}</script><script id="numerics">',
        )
    )
    with opened(browser, scenes_page) as here:
        here.wait_until("passes.has(1)")
        expected = here.array("passes.get(1).logits")
    with opened(browser, path) as here:
        here.wait_until("passes.has(1)")
        assert here.page.evaluate("live.worker === null && live.engine !== null")
        assert "no worker starts here" in here.text("#pass")
        np.testing.assert_array_equal(here.array("passes.get(1).logits"), expected)
        here.page.evaluate("change({headsOff: {0: [1]}})")
        here.wait_until("!latest.running && document.querySelector('#classes small')")
        assert here.page.evaluate("document.getElementById('trouble').hidden")
        # What the policy stops the browser itself writes down; the page adds nothing to it.
        assert all("Content Security Policy" in line for line in here.complaints)
        assert not here.requests


def test_a_worker_that_is_slow_is_no_silent_one(
    browser: Any, scenes_page: Path, tmp_path: Path
) -> None:
    """It says at once that it started, and is not given up however long an answer takes."""
    path = _changed(
        scenes_page, tmp_path / "page.html", "const PATIENCE = 40;", "const PATIENCE = 8;"
    )
    slow = "const engine = new Engine();\n  port.onmessage"
    held = (
        "const engine = new Engine(), open = engine.open;\n  engine.open = (argument) => { "
        "for (const end = Date.now() + 2500; Date.now() < end;); "
        "return open.call(engine, argument); };\n  port.onmessage"
    )
    with opened(browser, _changed(path, path, slow, held)) as here:
        here.wait_until("passes.has(1)")
        assert here.page.evaluate("live.worker !== null")
        assert "no worker" not in here.text("#pass")
        assert not here.complaints


def test_without_webassembly_plain_javascript_runs(
    browser: Any, scenes_page: Path, tmp_path: Path
) -> None:
    path = _changed(scenes_page, tmp_path / "page.html", KERNEL, "")
    with opened(browser, scenes_page) as here:
        here.wait_until("passes.has(1)")
        expected = here.array("passes.get(1).logits")
    with opened(browser, path) as here:
        here.wait_until("passes.has(1)")
        assert here.text("#pass").startswith("JavaScript: ")
        np.testing.assert_allclose(here.array("passes.get(1).logits"), expected, atol=1e-4)
        assert here.page.evaluate("document.getElementById('trouble').hidden")
        assert all("WebAssembly" in line or "Content Security" in line for line in here.complaints)


def _damaged(page: Path, path: Path, number: int) -> Path:
    """The page with one letter of an array exchanged."""
    text = page.read_text(encoding="utf-8")
    before, mark, after = text.partition(f'data-array="{number}">')
    assert mark
    letter = "A" if after[5] != "A" else "B"
    path.write_text(before + mark + after[:5] + letter + after[6:], encoding="utf-8")
    return path


def test_a_damaged_array_is_said(browser: Any, scenes_page: Path, tmp_path: Path) -> None:
    path = _damaged(scenes_page, tmp_path / "page.html", 0)
    with opened(browser, path) as here:
        here.wait_until("!document.getElementById('trouble').hidden")
        assert here.text("#trouble") == "this page is damaged: copy or make it again"
        assert not here.complaints


def test_a_damaged_map_is_said_when_it_is_looked_at(
    browser: Any, scenes_model: VisionTransformer, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    write_page(scenes_model, ["tutorials/photos/cat.jpg"], page, methods=("rollout", "value_norm"))
    with opened(browser, page) as here:
        number = here.page.evaluate("page.pictures[0].maps[1].values.array")
    with opened(browser, _damaged(page, tmp_path / "damaged.html", number)) as here:
        here.wait_until("passes.has(0)")
        here.page.click("#methods >> text=rollout")
        assert here.page.evaluate("document.getElementById('trouble').hidden")
        here.page.click("#methods >> text=value norm")
        assert here.text("#trouble") == "this page is damaged: copy or make it again"
        here.page.keyboard.press("Escape")
        assert here.page.evaluate("document.getElementById('trouble').hidden")
        assert not here.complaints


def test_a_page_that_was_cut_off_says_so(browser: Any, scenes_page: Path, tmp_path: Path) -> None:
    text = scenes_page.read_text(encoding="utf-8")
    path = tmp_path / "page.html"
    path.write_text(text[: text.rindex('data-array="') + 200], encoding="utf-8")
    with opened(browser, path) as here:
        here.wait_until("!document.getElementById('trouble').hidden")
        assert "damaged" in here.text("#trouble")
