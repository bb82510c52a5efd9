"""The view in a link, and the picture that is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.explorer.pages import opened

pytestmark = pytest.mark.browser

VIEW = {
    "picture": 1,
    "ask": "column",
    "token": 17,
    "block": 2,
    "head": 1,
    "opacity": 40,
    "colours": "grey",
    "smooth": True,
    "theme": "dark",
}


def test_a_link_brings_back_the_view(browser: Any, scenes_page: Path) -> None:
    with opened(browser, scenes_page) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate("(news) => choose(news)", VIEW)
        address = here.page.url
        drawn = here.page.evaluate("document.querySelector('#stage canvas').toDataURL()")
        readout = here.text("#readout")
    with opened(browser, scenes_page, fragment=address.partition("#")[2]) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate("draw()")
        assert here.page.evaluate("state") == {**here.page.evaluate("START"), **VIEW}
        assert here.page.evaluate("document.querySelector('#stage canvas').toDataURL()") == drawn
        assert here.text("#readout") == readout
        assert here.page.input_value("#colours") == "grey"
        assert here.page.get_attribute("html", "data-theme") == "dark"
        here.page.evaluate("void (location.hash = 'picture=0&block=1')")  # as a pasted link
        here.wait_until("state.picture === 0 && state.block === 1")
        assert here.text("#block-number").startswith("1 (of")
        assert not here.complaints


def test_a_class_and_a_method_are_in_the_link(browser: Any, scenes_page: Path) -> None:
    with opened(browser, scenes_page) as here:
        here.wait_until("passes.has(1)")
        here.page.click("#classes button >> nth=1")
        chosen, address = here.page.evaluate("[state.target, state.method]"), here.page.url
    with opened(browser, scenes_page, fragment=address.partition("#")[2]) as here:
        assert here.page.evaluate("[state.target, state.method]") == chosen
        assert chosen[0] is not None and chosen[1] != "attention"


JUNK = [
    "picture=99&token=99999&block=77&head=55&opacity=5000&target=123456",
    "picture=-4&token=-1&block=-77&head=-2&opacity=-3&target=-1",
    "picture=zz&token=1e3&block=0x2&head=NaN&smooth=yes&ask=sideways&theme=neon",
    "method=constructor&colours=constructor&head=__proto__",
    "__proto__=5&constructor=7&toString=8&hasOwnProperty=1",
    "method=%3Cscript%3Ethrow%201%3C/script%3E&colours=%3Cimg%20src=x%20onerror=throw%201%3E",
    "%E0%A4%A&&&==&=x&token=%",
    "picture=1&picture=0&" + "x=" + "y" * 20000,
]


@pytest.mark.parametrize("fragment", JUNK)
def test_junk_in_a_link_does_no_harm(browser: Any, scenes_page: Path, fragment: str) -> None:
    with opened(browser, scenes_page, fragment=fragment) as here:
        here.wait_until("passes.has(1)")
        assert here.page.evaluate("document.getElementById('trouble').hidden")
        assert "of its attention lies on patches" in here.text("#mass")
        drawn = here.array("viewOf().values")
        assert np.isfinite(drawn).all() and drawn.max() > 0
        here.page.keyboard.press("ArrowLeft")
        assert "row" in here.text("#readout")
        assert not here.complaints and not here.requests


@pytest.mark.parametrize("width", [360, 1440])
def test_the_saved_picture_has_full_size(
    browser: Any, scenes_page: Path, tmp_path: Path, width: int
) -> None:
    viewport = {"width": width, "height": 800}
    with opened(browser, scenes_page, viewport=viewport, accept_downloads=True) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate("choose({picture: 1, opacity: 100, token: 0})")
        with here.page.expect_download() as download:
            here.page.click("#save")
        assert download.value.suggested_filename == "cat-map.png"
        path = tmp_path / "map.png"
        download.value.save_as(path)
        values = here.array("viewOf().values").reshape(12, 12)
        shown = here.page.evaluate("document.querySelector('#stage canvas').clientWidth")
    with Image.open(path) as saved:
        assert saved.size == (768, 768)  # 96 pixels, each 8 x 8, however small the window
        pixels = np.asarray(saved.convert("RGB")).astype(int)
    assert shown < 768
    cells = pixels.reshape(12, 64, 12, 64, 3).transpose(0, 2, 1, 3, 4).reshape(144, 64 * 64, 3)
    assert (cells == cells[:, :1]).all()  # a cell is one colour, without a seam
    order = values.ravel().argsort()
    brightness = cells[:, 0].sum(axis=1)[order]
    assert (np.diff(brightness) >= 0).all()  # the brighter, the more
    assert tuple(cells[order[-1], 0]) == (0xFE, 0xE8, 0x38)
