"""What a learner does with keys and pointer, and the numbers that come back, beside torch's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minivit.explain import METHODS
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.conftest import as_in_page, sharp_vit
from tests.explorer.pages import Opened, opened

pytestmark = pytest.mark.browser
ROWS, COLS, PREFIX, BLOCKS, HEADS = 4, 6, 3, 3, 3  # class token and two registers


def _picture() -> Image.Image:
    noise = np.random.default_rng(4).integers(0, 256, (ROWS, COLS, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    return sharp_vit()


@pytest.fixture(scope="module")
def attention(model: VisionTransformer) -> np.ndarray[Any, Any]:
    """(blocks, heads, query, key) of the weights that are in the page."""
    rounded = as_in_page(model)
    with torch.inference_mode():
        _, weights = rounded(rounded.preprocess(_picture())[None], return_attention=True)
    return torch.stack([block[0] for block in weights]).numpy()


@pytest.fixture(scope="module")
def path(model: VisionTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "page.html"
    methods = ("rollout", "relevance", "legrad", "class_similarity")
    pictures = [PagePicture("one", _picture()), PagePicture("two", _picture())]
    write_page(model, pictures, page, methods=methods)
    return page


@pytest.fixture
def here(browser: Any, path: Path) -> Iterator[Opened]:
    with opened(browser, path) as page:
        page.wait_until("passes.has(1)")
        yield page
        assert not page.complaints and not page.requests


def _at(here: Opened, row: int, column: int) -> tuple[float, float]:
    """The middle of a patch on the screen."""
    box = here.page.query_selector("#stage canvas").bounding_box()
    x = box["x"] + (column + 0.5) / COLS * box["width"]
    return x, box["y"] + (row + 0.5) / ROWS * box["height"]


def _read(here: Opened) -> tuple[int, int, float, float]:
    """Row, column, number and times even, as the page says them; of less than a hundredth, 0."""
    text = here.text("#readout")
    match = re.fullmatch(r"row (\d+), column (\d+): ([\d.e+-]+), (<?[\d.]+) × even", text)
    assert match, text
    times = 0.0 if match[4] == "<0.01" else float(match[4])
    return int(match[1]), int(match[2]), float(match[3]), times


def _token(row: int, column: int) -> int:
    return PREFIX + row * COLS + column


def _assert_says(here: Opened, place: tuple[int, int], weight: float) -> None:
    row, column, value, times = _read(here)
    assert (row, column) == place
    assert value == pytest.approx(weight, rel=6e-3, abs=3e-4)
    assert times == pytest.approx(weight * (PREFIX + ROWS * COLS), rel=6e-3, abs=8e-3)


def test_a_click_asks_a_patch_and_the_pointer_reads_another(
    here: Opened, attention: np.ndarray[Any, Any]
) -> None:
    mean = attention[-1].mean(axis=0)
    here.page.mouse.click(*_at(here, 1, 4))
    _assert_says(here, (1, 4), mean[_token(1, 4), _token(1, 4)])
    here.page.mouse.move(*_at(here, 3, 2))
    _assert_says(here, (3, 2), mean[_token(1, 4), _token(3, 2)])
    here.page.click("[data-ask=column]")
    here.page.mouse.move(*_at(here, 3, 2))
    _assert_says(here, (3, 2), mean[_token(3, 2), _token(1, 4)])
    here.page.mouse.move(0, 0)  # the read-out goes back to the patch that was chosen
    _assert_says(here, (1, 4), mean[_token(1, 4), _token(1, 4)])


def test_keys_choose_patch_block_head_and_question(
    here: Opened, attention: np.ndarray[Any, Any]
) -> None:
    press = here.page.keyboard.press
    here.page.focus("#stage")
    press("ArrowRight")  # from the middle, (2, 3), as the class token has no place
    press("ArrowUp")
    mean = attention[-1].mean(axis=0)
    _assert_says(here, (1, 4), mean[_token(1, 4), _token(1, 4)])
    press("[")
    press(".")  # from mean to max
    expected = attention[1].max(axis=0)
    np.testing.assert_allclose(here.array("viewOf().tokens"), expected[_token(1, 4)], atol=3e-4)
    press(".")
    press(".")
    press("r")
    expected = attention[1, 1]
    np.testing.assert_allclose(here.array("viewOf().tokens"), expected[:, _token(1, 4)], atol=3e-4)
    assert here.text("#block-number") == "1 (of 0–2)"
    assert here.page.get_attribute("[data-ask=column]", "aria-checked") == "true"
    for _ in range(9):
        press("ArrowLeft")
        press("ArrowDown")
    row, column, _, _ = _read(here)
    assert (row, column) == (ROWS - 1, 0)  # the border holds
    press(",")
    press(",")
    press(",")
    press(",")
    assert here.page.evaluate("state.head") == HEADS - 1  # round to the last


def test_characters_act_only_where_the_focus_is_on_what_they_are_for(here: Opened) -> None:
    press = here.page.keyboard.press
    signs = [chr(code) for code in range(33, 127)]
    for outside in ("#theme", "#classes button", "#live [data-tool]", "[role=tab]", "body"):
        here.page.evaluate("(of) => document.querySelector(of).focus()", outside)
        before = here.page.evaluate("[state, changes]")
        for sign in signs:
            press(sign)
        assert here.page.evaluate("[state, changes]") == before, outside
    used = ["[", "]", ",", ".", "r"]
    for inside in ("#stage", "[data-ask=row]", "#methods button", "#heads button"):
        here.page.focus(inside)
        for sign in used:
            before = here.page.evaluate("state")
            press(sign)
            assert here.page.evaluate("state") != before, (inside, sign)
    here.page.focus("#theme")
    here.page.mouse.click(*_at(here, 1, 1))  # who clicks the picture has the focus on it
    before = here.page.evaluate("state.ask")
    press("r")
    assert here.page.evaluate("state.ask") != before
    for sign in used:
        assert sign in here.text("#keys")


def test_tokens_beside_the_picture_and_the_mass_of_a_row(
    here: Opened, attention: np.ndarray[Any, Any]
) -> None:
    here.page.click("text=register 1")
    assert here.page.evaluate("state.token") == 2
    assert "Point at a patch" in here.text("#readout")
    mean = attention.mean(axis=1)  # (blocks, query, key)
    registers = mean[..., 1:PREFIX].sum(axis=-1)
    block, token = np.unravel_index(registers.argmax(), registers.shape)
    assert registers.max() > 0.01  # else nobody would see them left out
    here.page.evaluate(f"choose({{block: {block}, token: {token}}})")
    row = mean[block, token]
    text = here.text("#mass").replace("<0.1 %", "0.0 %")
    shares = [float(share) for share in re.findall(r"([\d.]+) %", text)]
    expected = [100 * row[PREFIX:].sum(), *(100 * row[:PREFIX])]
    assert shares == pytest.approx(expected, abs=0.06)
    name = [
        "class token",
        "register 0",
        "register 1",
        *(f"row {k // COLS}, column {k % COLS}" for k in range(24)),
    ][token]
    assert text.startswith(f"{name}, block {block}, mean over heads: ")
    here.page.keyboard.press("r")
    here.page.click("#heads >> text=head 2")
    assert here.text("#mass").startswith(f"{name}, block {block}, head 2: ")


def _swapped_logits(model: VisionTransformer, one: int, other: int) -> np.ndarray[Any, Any]:
    """Torch, on a picture whose two patches were exchanged as pixels."""
    rounded = as_in_page(model)
    images = rounded.preprocess(_picture())[None]
    swapped = images.clone()

    def cell(place: int) -> tuple[slice, slice]:
        row, column = divmod(place, COLS)
        return slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)

    for to, source in ((one, other), (other, one)):
        swapped[(..., *cell(to))] = images[(..., *cell(source))]
    with torch.inference_mode():
        return rounded(swapped)[0].numpy()


@pytest.mark.parametrize("by", ["pointer", "keys"])
def test_two_patches_change_places(here: Opened, model: VisionTransformer, by: str) -> None:
    before = here.array("passes.get(0).logits")
    here.page.click("text=Swap two patches")
    if by == "pointer":
        here.page.mouse.click(*_at(here, 0, 1))
        here.page.mouse.click(*_at(here, 3, 5))
    else:
        here.page.evaluate("choose({token: viewOf().numPrefix + 1})")
        here.page.focus("#stage")
        here.page.keyboard.press("Enter")
        for key in ["ArrowDown"] * 3 + ["ArrowRight"] * 4:
            here.page.keyboard.press(key)
        here.page.keyboard.press("Enter")
    here.wait_until("!latest.running && changes.patches !== null")
    after = here.array("passes.get(0).logits")
    np.testing.assert_allclose(after, _swapped_logits(model, 1, 23), atol=1e-4)
    assert np.abs(after - before).max() > 0.01
    assert here.page.evaluate("document.querySelector('#classes small').textContent.slice(0, 4)")
    here.page.click("text=Back to the start")
    here.wait_until("!latest.running && !isChanged()")
    np.testing.assert_array_equal(here.array("passes.get(0).logits"), before)


def test_the_picture_shows_the_patches_where_they_stand(here: Opened) -> None:
    def colour(row: int, column: int) -> list[int]:
        """RGBA of the middle of a patch, with no map over it."""
        return list(
            here.page.evaluate(
                "([x, y]) => { const c = document.querySelector('#stage canvas'), one = new "
                "OffscreenCanvas(1, 1).getContext('2d'); one.drawImage(c, -Math.floor(x * c.width),"
                " -Math.floor(y * c.height)); return [...one.getImageData(0, 0, 1, 1).data]; }",
                [(column + 0.5) / COLS, (row + 0.5) / ROWS],
            )
        )

    here.page.evaluate("choose({opacity: 0})")
    first, second = colour(0, 1), colour(3, 5)
    assert first != second
    here.page.evaluate("swapPlaces(viewOf(), 1); swapPlaces(viewOf(), 23)")
    here.wait_until("!latest.running && changes.patches !== null")
    assert (colour(0, 1), colour(3, 5)) == (second, first)
    here.page.evaluate("togglePlace(viewOf(), 1)")
    here.wait_until("!latest.running && changes.patches.length === 23")
    assert colour(0, 1)[3] == 0


def test_a_patch_is_taken_away_and_comes_back(here: Opened, model: VisionTransformer) -> None:
    here.page.click("text=Remove patches")
    here.page.mouse.click(*_at(here, 2, 2))
    here.wait_until("!latest.running && viewOf().numTokens === 26")
    assert here.text("#readout") == "row 2, column 2: taken away"
    assert here.page.evaluate("state.token") == 0  # the class token is still the one that looks
    here.page.evaluate(f"choose({{token: {_token(2, 2)}}})")
    assert "taken away" in here.text("#mass")
    rounded = as_in_page(model)
    with torch.inference_mode():
        tokens = rounded.embed(rounded.preprocess(_picture())[None])
        kept = [k for k in range(tokens.shape[1]) if k != _token(2, 2)]
        tokens = tokens[:, kept]
        for block in rounded.blocks:
            tokens, weights = block(tokens, need_weights=True)
    here.page.keyboard.press("Escape")
    here.page.mouse.click(*_at(here, 2, 3))  # the next patch is the one that is asked
    expected = weights[0].mean(dim=0)[_token(2, 3) - 1]
    np.testing.assert_allclose(here.array("viewOf().tokens"), expected, atol=3e-4)
    assert _read(here)[:2] == (2, 3)
    here.page.click("text=Remove patches")
    here.page.focus("#stage")
    here.page.keyboard.press("ArrowLeft")
    here.page.keyboard.press(" ")
    here.wait_until("!latest.running && viewOf().numTokens === 27")
    assert not here.page.evaluate("isChanged()")


def test_a_class_is_chosen_and_the_gradient_methods_explain_it(
    here: Opened, model: VisionTransformer
) -> None:
    images = model.preprocess(_picture())[None]
    classes = model(images)[0].topk(3).indices.tolist()
    buttons = here.page.query_selector_all("#classes button")
    assert [button.is_enabled() for button in buttons] == [True] * 3 + [False] * 2
    buttons[1].click()
    assert here.page.evaluate("state.method") == "legrad"  # the first that knows classes
    expected = METHODS["legrad"](model, images, classes[1])[0].detach().numpy()
    np.testing.assert_allclose(
        here.array("viewOf().values"), expected.ravel(), rtol=1e-4, atol=1e-7
    )
    here.page.click("#methods >> text=relevance")
    here.page.click("#classes button >> nth=2")
    assert here.page.evaluate("state.method") == "relevance"
    expected = METHODS["relevance"](model, images, classes[2])[0].detach().numpy().ravel()
    np.testing.assert_allclose(here.array("viewOf().values"), expected, rtol=1e-4, atol=1e-7)
    assert f"class {classes[2]}" in here.text("#mass")
    place = int(expected.argmax())
    here.page.mouse.move(*_at(here, *divmod(place, COLS)))
    _, _, value, times = _read(here)
    assert value == pytest.approx(expected[place], rel=6e-3)
    assert times == pytest.approx(expected[place] / expected.mean(), rel=6e-3)


def test_what_a_map_of_a_method_holds_is_said(here: Opened, model: VisionTransformer) -> None:
    images = model.preprocess(_picture())[None]
    here.page.click("#methods >> text=rollout")
    values = METHODS["rollout"](model, images)[0].detach().numpy().ravel()
    share, cells = re.findall(
        r"([\d.]+) % of the row .* half of the map on (\d+) of 24", here.text("#mass")
    )[0]
    assert float(share) == pytest.approx(100 * values.sum(), abs=0.06)
    largest = np.sort(values)[::-1].cumsum()
    assert int(cells) == int((largest < values.sum() / 2).sum()) + 1
    here.page.click("#methods >> text=class similarity")
    values = METHODS["class_similarity"](model, images)[0].detach().numpy().ravel()
    above, below = (float(part) for part in re.findall(r"([\d.]+) %", here.text("#mass")))
    assert above == pytest.approx(100 * values.clip(0).sum() / np.abs(values).sum(), abs=0.06)
    assert above + below == pytest.approx(100, abs=0.11)
    here.page.mouse.move(*_at(here, 0, 0))
    assert "even" not in here.text("#readout")  # parts of both signs have no shares


def test_who_pressed_something_is_still_there(here: Opened) -> None:
    focused = "document.activeElement.textContent + (document.activeElement.ariaLabel || '')"
    here.page.focus("#methods button >> nth=1")
    here.page.keyboard.press("Enter")
    assert here.page.evaluate(focused) == "rollout"
    here.page.focus("#prefix button >> nth=1")
    here.page.keyboard.press(" ")
    assert here.page.evaluate(focused).startswith("register 0")
    here.page.focus("[aria-label='head 1, block 2']")
    here.page.keyboard.press(" ")
    here.wait_until("!latest.running && isChanged()")
    assert here.page.evaluate(focused) == "head 1, block 2"
    assert here.page.is_disabled("#methods >> text=relevance")
    assert here.page.is_visible("#stale")


def test_tabs_take_arrow_keys(here: Opened) -> None:
    here.page.focus("[role=tab] >> nth=0")
    here.page.keyboard.press("ArrowRight")
    assert here.page.evaluate("state.picture") == 1
    assert here.page.evaluate("document.activeElement.textContent") == "two"
    here.page.keyboard.press("ArrowLeft")
    assert here.page.evaluate("state.picture") == 0


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_reading_cells_moves_nothing(browser: Any, path: Path, width: int) -> None:
    with opened(browser, path, viewport={"width": width, "height": 900}) as here:
        here.wait_until("passes.has(1)")
        below = "document.querySelector('.sliders').getBoundingClientRect().top"
        legend = "document.querySelector('#legend canvas').getBoundingClientRect().width"
        here.page.mouse.click(*_at(here, 0, 0))
        heights, widths = set(), set()
        for place in range(0, ROWS * COLS, 2):
            here.page.mouse.move(*_at(here, *divmod(place, COLS)))
            heights.add(round(here.page.evaluate(below)))
            widths.add(round(here.page.evaluate(legend)))
        for place in range(0, ROWS * COLS, 5):
            here.page.evaluate(f"choose({{token: {PREFIX + place}}})")
            heights.add(round(here.page.evaluate(below)))
            widths.add(round(here.page.evaluate(legend)))
        largest = set()
        for block in range(BLOCKS):
            for head in ("mean", 0, 1, 2):
                here.page.evaluate("(news) => choose(news)", {"block": block, "head": head})
                widths.add(round(here.page.evaluate(legend)))
                largest.add(len(here.text("#highest")))
        assert len(heights) == len(widths) == 1
        assert len(largest) > 1  # the numbers beside the legend had different lengths
