"""Every screen: no sideways scrolling, texts can be read, controls have names, paper is white."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minivit.data.scenes.dataset import TEST_SEED, make_scene, scene_layers
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.pages import Opened, opened

pytestmark = pytest.mark.browser

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def path(scenes_model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    image = make_scene(TEST_SEED, 0, image_size=96).image
    scene = PagePicture("scene 0", image, scene_layers(TEST_SEED, 0, image_size=96))
    write_page(
        scenes_model,
        [scene, "tutorials/photos/cat.jpg"],
        path,
        name="scenes.safetensors",
        scores={"attention": "points 83 %"},
    )
    return path


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[360, 768, 1440])
def here(browser: Any, path: Path, scheme: str, request: pytest.FixtureRequest) -> Iterator[Opened]:
    viewport = {"width": request.param, "height": 800}
    with opened(browser, path, viewport=viewport, color_scheme=scheme) as page:
        page.wait_until("passes.has(1)")
        yield page
        assert not page.complaints and not page.requests


def _all_states(here: Opened) -> Iterator[str]:
    """Brings out everything that a page can show."""
    yield "start"
    here.page.evaluate("choose({token: 40, head: 1})")
    here.page.click("#steps button")
    here.wait_until("document.querySelector('#steps table')")
    yield "steps"
    here.page.click("#methods >> text=relevance")
    yield "method"
    here.page.click("text=Remove patches")
    here.page.check("[aria-label='even attention, block 1']")
    here.wait_until("!latest.running && document.querySelector('#classes small')")
    here.page.evaluate("complain('photo.tiff: this browser cannot decode it')")
    yield "changed"


def test_no_screen_scrolls_sideways(here: Opened) -> None:
    for state in _all_states(here):
        width = here.page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= here.page.viewport_size["width"], state
        outside = here.page.evaluate(
            "[...document.querySelectorAll('button, select, input, h2, p, label')].filter((e) => "
            "e.checkVisibility() && !e.closest('#live, #steps') && (e.getBoundingClientRect().right"
            " > innerWidth || e.getBoundingClientRect().left < 0)).map((e) => e.outerHTML)"
        )
        assert not outside, state


def test_every_text_can_be_read(here: Opened, scheme: str) -> None:
    for state in _all_states(here):
        found = here.page.evaluate(CONTRAST)
        assert len(found) > 30
        faint = [(ratio, text) for ratio, text in found if ratio < 4.5]
        assert not faint, (state, scheme)


def test_every_control_has_a_name(browser: Any, path: Path) -> None:
    """In Chromium's own accessibility tree, which screen readers are told from."""
    with opened(browser, path) as here:
        here.wait_until("passes.has(1)")
        session = here.page.context.new_cdp_session(here.page)
        for state in _all_states(here):
            nodes = session.send("Accessibility.getFullAXTree")["nodes"]
            kinds = ("button", "slider", "checkbox", "combobox", "radio", "tab", "application")
            controls = [
                (node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in nodes
                if not node["ignored"] and node["role"]["value"] in kinds
            ]
            assert len(controls) > 30
            nameless = [role for role, name in controls if not name.strip()]
            assert not nameless, state
            live = [node for node in nodes if node["role"]["value"] == "status"]
            assert live, state
            boxes = [name for role, name in controls if role in ("checkbox", "slider", "combobox")]
            assert len(set(boxes)) == len(boxes), state  # and no two have the same


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_without_controls(browser: Any, path: Path, scheme: str) -> None:
    with opened(browser, path, color_scheme=scheme) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate("choose({theme: 'dark', token: 40, head: 1})")
        here.page.emulate_media(media="print", color_scheme=scheme)
        style = "(selector) => ({...getComputedStyle(document.querySelector(selector))})"
        assert here.page.evaluate(style, "body")["backgroundColor"] == "rgb(255, 255, 255)"
        assert here.page.evaluate(style, "h2")["color"] == "rgb(0, 0, 0)"
        assert here.page.evaluate(style, "#stage canvas")["printColorAdjust"] == "exact"
        picture = here.page.evaluate(style, "#picture")
        assert (picture["position"], picture["maxHeight"]) == ("static", "none")
        for selector in ("#save", "#open", ".sliders", "#live", "#objects", "#steps button"):
            assert not here.page.is_visible(selector), selector
        for selector in ("#stage canvas", "#legend", "#mass", "#readout", "#classes", "#heads"):
            assert here.page.is_visible(selector), selector
        faint = [text for ratio, text in here.page.evaluate(CONTRAST) if ratio < 4.5]
        assert not faint
        assert here.page.pdf(format="A4").startswith(b"%PDF")


def test_the_heap_does_not_grow(browser: Any, path: Path) -> None:
    with opened(browser, path) as here:
        here.wait_until("passes.has(1)")
        session = here.page.context.new_cdp_session(here.page)

        def used() -> float:
            session.send("HeapProfiler.collectGarbage")
            return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6

        interact = """(count) => { for (let k = 0; k < count; k++) choose({ token: (7 * k) % 145,
            block: k % 4, ask: k % 3 ? 'row' : 'column', head: k % 2 ? 'mean' : k % 3,
            method: k % 5 ? 'attention' : 'relevance', smooth: k % 4 === 0 }); }"""
        here.page.evaluate(interact, 50)
        before = used()
        here.page.evaluate(interact, 500)
        assert used() - before < 10
