"""What was clumsy when the page was used by hand, each as a property that holds now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minivit.data.scenes.dataset import TEST_SEED, make_scene, scene_layers
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.conftest import sharp_vit
from tests.explorer.pages import Opened, opened

pytestmark = pytest.mark.browser
IDLE = "!latest.running && latest.next === null"


@pytest.fixture(scope="module")
def path(scenes_model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    image, layers = (make(TEST_SEED, 0, image_size=96) for make in (make_scene, scene_layers))
    photo = "tutorials/photos/cat.jpg"
    write_page(scenes_model, [PagePicture("scene 0", image.image, layers), photo], path)
    return path


@pytest.fixture
def here(browser: Any, path: Path) -> Iterator[Opened]:
    with opened(browser, path) as page:
        page.wait_until("passes.has(1)")
        yield page
        assert not page.complaints and not page.requests


def _at(here: Opened, row: float, column: float) -> tuple[float, float]:
    """A place of the picture on the screen, in shares of its sides."""
    box = here.page.query_selector("#stage canvas").bounding_box()
    return box["x"] + column * box["width"], box["y"] + row * box["height"]


def _body(here: Opened) -> dict[str, Any]:
    return dict(here.page.evaluate("bodiesOf(page.pictures[0])[0]"))


def test_a_drag_leaves_who_is_asked_and_a_click_on_an_object_does_not(here: Opened) -> None:
    mouse, body = here.page.mouse, _body(here)
    row, column = body["row"] - 0.9 * body["radius"], body["column"]
    mouse.move(*_at(here, row, column))
    mouse.down()
    mouse.move(*_at(here, row - 0.2, column), steps=4)
    mouse.up()
    assert here.page.evaluate("state.token") == 0  # the class token, whose map goes along
    assert _body(here)["row"] == pytest.approx(body["row"] - 0.2, abs=0.01)
    mouse.click(*_at(here, row - 0.2, column))
    place = int((row - 0.2) * 12) * 12 + int(column * 12)
    assert here.page.evaluate("state.token") == 1 + place
    assert _body(here)["row"] == pytest.approx(body["row"] - 0.2, abs=0.01)


def test_a_finger_moves_an_object_and_elsewhere_the_page(browser: Any, path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    with opened(browser, path, **phone) as here:
        here.wait_until("passes.has(1)")
        session, body = here.page.context.new_cdp_session(here.page), _body(here)

        def swipe(row: float, column: float) -> None:
            x, y = _at(here, row, column)
            for name, up in (("touchStart", 0), *(("touchMove", 10 * k) for k in range(1, 9))):
                points = [{"x": x, "y": y - up}]
                session.send("Input.dispatchTouchEvent", {"type": name, "touchPoints": points})
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        swipe(body["row"] - 0.8 * body["radius"], body["column"])
        assert _body(here)["row"] < body["row"] - 0.15
        assert here.page.evaluate("scrollY") == 0
        moved = _body(here)
        swipe(0.5, 0.03)
        here.wait_until("scrollY > 20")
        assert _body(here) == moved


def test_what_was_changed_is_said_beside_the_picture_and_undone_there(here: Opened) -> None:
    assert not here.page.is_visible("#changed")
    before = here.array("passes.get(0).logits").copy()
    here.page.evaluate("togglePlace(viewOf(), 5)")
    here.page.uncheck("[aria-label='head 1, block 3']")
    here.page.uncheck("[aria-label='MLP, block 2']")
    here.page.check("[aria-label='even attention, block 0']")
    here.page.evaluate("change({temperature: 2})")
    here.page.uncheck("#objects input[type=checkbox] >> nth=0")
    here.wait_until(IDLE)
    assert here.text("#changed span") == (
        "Changed: objects; head 1 of block 3 off; MLP of block 2 off; even attention in block 0;"
        " scores divided by 2.00 more; 1 patch taken away."
    )
    here.page.click("#link")  # the address names the view, not the changes
    here.wait_until(
        "document.getElementById('link').textContent === 'Copied, without your changes'"
    )
    here.page.click("text=Back to the start")
    here.wait_until(f"{IDLE} && !isChanged() && untouched.has(0)")
    assert not here.page.is_visible("#changed")
    assert here.page.evaluate("document.activeElement.id") == "stage"
    here.wait_until("!page.pictures[0].start")
    assert here.array("passes.get(0).logits") == pytest.approx(before, abs=1e-4)


def test_shuffling_says_what_it_did(here: Opened) -> None:
    here.page.click("text=Shuffle with positions")
    here.wait_until(f"{IDLE} && isChanged()")
    assert "kept its position" in here.text("#tool-hint")
    assert here.text("#changed span") == "Changed: order of the tokens."
    here.page.click("text=Shuffle patches")
    here.wait_until(IDLE)
    assert "another's position" in here.text("#tool-hint")
    here.page.click("text=Swap two patches")
    here.page.mouse.click(*_at(here, 0.1, 0.1))
    assert here.text("#tool-hint") == "Now the second one."
    here.page.mouse.click(*_at(here, 0.1, 0.9))
    assert "Click two patches" in here.text("#tool-hint")


def test_who_follows_one_query_follows_the_next(here: Opened) -> None:
    here.page.evaluate("choose({token: 40, head: 1})")
    here.page.click("#steps button")
    here.wait_until("document.querySelector('#steps table')")
    for token, block in ((41, 3), (41, 2), (90, 2)):
        here.page.evaluate(f"choose({{token: {token}, block: {block}}})")
        row, column = divmod(token - 1, 12)
        here.wait_until(f"{IDLE} && document.querySelector('#steps table')")
        says = here.text("#steps div > p")
        assert says == f"Followed: row {row}, column {column} in block {block}, head 1"
        asked = here.page.evaluate("passes.get(0).watched.asked")
        assert asked == {"block": block, "head": 1, "query": token}
    here.page.click("#tabs button >> nth=1")  # of another picture nothing was asked yet
    here.wait_until(IDLE)
    assert here.text("#steps button").startswith("Follow row ")
    here.page.click("#steps button")
    here.wait_until("document.querySelector('#steps table')")
    here.page.click("text=Stop following")
    here.wait_until(IDLE)
    assert not here.page.query_selector("#steps table")


def test_a_small_share_is_not_called_none(here: Opened) -> None:
    assert here.page.evaluate("[0, 1e-5, 4.9e-4, 6e-4, 1].map(percent)") == [
        "0.0 %",
        "<0.1 %",
        "<0.1 %",
        "0.1 %",
        "100.0 %",
    ]
    assert here.page.evaluate("[0, 1e-5, 0.01, 12.3].map(timesOver)") == [
        "0.00",
        "<0.01",
        "0.01",
        "12",
    ]


def test_a_slow_pass_shows_that_it_runs_and_moves_nothing(here: Opened) -> None:
    top = "document.getElementById('picture').getBoundingClientRect().top"
    before = here.page.evaluate(top)
    here.page.evaluate(
        "live.ask = ((ask) => (...all) => new Promise((done) => setTimeout(done, 800)).then("
        "() => ask.apply(live, all)))(live.ask); change({temperature: 2})"
    )
    assert not here.page.is_visible("#progress")
    here.wait_until("!document.getElementById('progress').hidden")
    assert here.page.get_attribute("#progress", "aria-label") == "A pass over the picture"
    assert here.page.evaluate(top) == before
    here.wait_until(f"{IDLE} && document.getElementById('progress').hidden")


@pytest.mark.parametrize("width", [768, 1440])
def test_all_switches_of_six_heads_are_in_sight(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    model = sharp_vit(num_heads=6, depth=12)
    write_page(model, [make_scene(TEST_SEED, 0, image_size=96).image], path)
    with opened(browser, path, viewport={"width": width, "height": 900}) as here:
        here.wait_until("passes.has(0)")
        widths = "(e) => [e.scrollWidth, e.clientWidth]"
        needed, there = here.page.eval_on_selector("#live", widths)
        assert needed <= there


@pytest.mark.parametrize("height", [640, 800, 1000])
def test_the_picture_and_what_is_said_of_it_fit_a_screen(
    browser: Any, path: Path, height: int
) -> None:
    with opened(browser, path, viewport={"width": 1440, "height": height}) as here:
        here.wait_until("passes.has(1)")
        here.page.evaluate("choose({token: 40})")
        here.page.evaluate("scrollTo(0, 300)")
        assert here.page.evaluate(
            "[...document.querySelectorAll('#readout, #mass, .sliders')].every((e) => "
            "e.getBoundingClientRect().bottom <= innerHeight)"
        )


def test_a_page_without_the_model_says_so(
    browser: Any, here: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not here.page.is_visible("#not-live")
    monkeypatch.setattr("minivit.explorer.document.LIVE_WEIGHTS", 0)
    write_page(sharp_vit(), ["tutorials/photos/cat.jpg"], tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as stored:
        assert "nothing else is computed" in stored.text("#not-live")
        assert stored.page.is_visible("#not-live")
        seen = stored.text("#seen")
        assert seen == "As the model sees it: 48 × 32 pixels, 4 rows and 6 columns of patches."
