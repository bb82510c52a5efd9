"""A scene in the page: drawn again as Pillow draws it, and its objects can be moved."""

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
COUNT = 6


@pytest.fixture(scope="module")
def here(
    browser: Any, scenes_model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    path: Path = tmp_path_factory.mktemp("page") / "scenes.html"
    pictures = [
        PagePicture(
            f"scene {n}",
            make_scene(TEST_SEED, n, image_size=96).image,
            scene_layers(TEST_SEED, n, image_size=96),
        )
        for n in range(COUNT)
    ]
    write_page(scenes_model, pictures, path)
    with opened(browser, path) as page:
        page.wait_until(f"passes.has({COUNT - 1})")
        yield page


def _differences(here: Opened, number: int) -> list[int]:
    """How many levels each byte of the scene that the page draws is off."""
    return list(
        here.page.evaluate(
            "(n) => { const p = page.pictures[n], was = page.pictures[n].pixels.pixels,"
            " now = composeScene(p.scene, p.scene.bodies).pixels;"
            " return Array.from(was, (v, k) => Math.abs(v - now[k])); }",
            number,
        )
    )


def test_the_page_draws_a_scene_as_the_library_does(here: Opened) -> None:
    for number in range(COUNT):
        off = _differences(here, number)
        assert sum(level > 1 for level in off) < 0.005 * len(off)  # borders of objects
        assert max(off) < 40


def test_a_dragged_object_takes_the_prediction_and_the_map_along(here: Opened) -> None:
    page = here.page
    page.evaluate("choose({picture: 1, token: 0})")
    body = page.evaluate("page.pictures[1].scene.bodies[0]")
    box = page.query_selector("#stage canvas").bounding_box()
    x, y = box["x"] + body["column"] * box["width"], box["y"] + body["row"] * box["height"]

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 0.4 * box["width"], y + 0.1 * box["height"], steps=8)
    page.mouse.up()
    page.evaluate("choose({token: 0})")
    moved = page.evaluate("page.pictures[1].bodies[0]")
    assert moved["column"] == pytest.approx(body["column"] - 0.4, abs=0.02)
    # The last of the passes arrives, and the map's strongest cell lies on the object's new place.
    here.wait_until(
        "(() => { const v = viewOf().values, k = v.indexOf(Math.max(...v)), "
        f"row = (Math.floor(k / 12) + 0.5) / 12 - {moved['row']}, "
        f"column = (k % 12 + 0.5) / 12 - {moved['column']}; "
        f"return Math.hypot(row, column) < 1.25 * {moved['radius']}; }})()"
    )
    label = f"{body['colour']} {body['shape']}"
    here.wait_until(f"document.querySelector('#classes button span').textContent === '{label}'")
    assert not here.complaints and not here.requests


def test_a_new_colour_is_a_new_class(here: Opened) -> None:
    here.page.evaluate("choose({picture: 0})")
    assert here.text("#classes button span") == "orange ring"
    here.page.select_option("#objects select >> nth=0", "pink")
    here.wait_until("document.querySelector('#classes button span').textContent === 'pink ring'")
