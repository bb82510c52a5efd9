"""Relevance of a word in a captioner's page: the maps are those of `minivit.explain.words`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minivit
from minivit.captioner import Captioner
from minivit.explain.words import word_relevance
from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from minivit.generation import generate
from minivit.word_maps import decoder_input
from tests.explorer.pages import Opened, opened
from tests.explorer.test_captions import picture, small_captioner

pytestmark = pytest.mark.browser
PHOTO = "tutorials/photos/cat.jpg"
RELEVANCE = "#methods >> text=word relevance"


def _relevance(captioner: Captioner, image: Any, **options: Any) -> np.ndarray[Any, Any]:
    """(tokens, cells) of the sentence that the captioner writes."""
    memory = captioner.encode_photos([image])
    ((sentence, *_),) = generate(captioner.next_words(memory), **options)
    ids = [*sentence.token_ids, *([captioner.tokenizer.end_id] if sentence.ended else [])]
    tokens = decoder_input([ids], captioner.tokenizer, max_length=captioner.config.max_length)
    maps = word_relevance(captioner, captioner.preprocess(image)[None], tokens)
    return maps[0].flatten(1).detach().numpy()


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    loaded = minivit.load_model("scenes_captioner")
    assert isinstance(loaded, Captioner)
    return loaded


@pytest.fixture(scope="module")
def path(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "captions.html"
    write_page(captioner, [PHOTO], page)
    return page


@pytest.fixture
def here(browser: Any, path: Path) -> Iterator[Opened]:
    with opened(browser, path) as page:
        yield page
        assert not page.complaints and not page.requests


def test_the_maps_of_all_words_are_pythons(here: Opened, captioner: Captioner) -> None:
    expected = _relevance(captioner, minivit.open_image(PHOTO))
    here.page.click(RELEVANCE)
    count = here.page.evaluate("viewOf().caption.words.length")
    assert count == len(expected) > 2
    for word, weights in enumerate(expected):
        here.page.evaluate(f"choose({{word: {word}}})")
        got = here.array("viewOf().values")
        np.testing.assert_allclose(got, weights, atol=1e-4 * weights.max())
        shades = here.array("viewOf().shades")
        np.testing.assert_allclose(shades, weights / weights.max(), atol=1e-4)
    assert np.abs(expected[0] / expected[0].max() - expected[1] / expected[1].max()).max() > 0.05


@pytest.mark.parametrize("resnet", [False, True], ids=["ViT", "ResNet"])
def test_a_word_of_several_tokens_has_their_mean(
    browser: Any, tmp_path: Path, resnet: bool
) -> None:
    """And a sentence as long as can be written has a map for each word that has a step."""
    captioner, image = small_captioner(resnet=resnet), picture((144, 96))
    write_page(captioner, [PagePicture("one", image)], tmp_path / "page.html")
    expected = _relevance(captioner, image)
    with opened(browser, tmp_path / "page.html") as here:
        words = here.page.evaluate("viewOf().caption.words")
        assert resnet or any(len(word["tokens"]) > 1 for word in words)
        for number, word in enumerate(words):
            here.page.evaluate(f"choose({{word: {number}, method: 'word_relevance'}})")
            if max(word["tokens"]) >= len(expected):
                assert here.page.is_disabled(RELEVANCE)
                assert here.page.evaluate("viewOf().isAttention")
                continue
            weights = expected[word["tokens"]].mean(axis=0)
            got = here.array("viewOf().values")
            np.testing.assert_allclose(got, weights, atol=1e-4 * weights.max() + 1e-30)
        assert not here.complaints


def test_what_belongs_to_attention_leads_back_to_it(here: Opened) -> None:
    chosen = "document.querySelector('#methods [aria-pressed=true]').textContent"
    assert here.page.evaluate(chosen) == "attention"
    for what in ("#heads button >> nth=2", "[data-align=reads]", "#relative"):
        here.page.evaluate("choose({...START})")
        here.page.focus("#methods button >> nth=1")
        here.page.keyboard.press("Enter")
        assert here.page.evaluate(chosen) == "word relevance"
        assert here.page.evaluate("document.activeElement.textContent") == "word relevance"
        here.page.click(what)
        assert here.page.evaluate(chosen) == "attention"
    here.page.evaluate("choose({...START, method: 'word_relevance', align: 'reads'})")
    reading = here.text("#next")
    assert not here.page.query_selector("[data-align=reads][aria-checked=true]")
    here.page.evaluate("choose({method: 'attention', align: 'predicts'})")
    assert here.text("#next") == reading  # relevance is of the step that says the word
    here.page.evaluate("choose({method: 'attention', align: 'reads'})")
    assert here.text("#next") != reading


def test_two_words_each_have_their_own_scale(here: Opened, captioner: Captioner) -> None:
    expected = _relevance(captioner, minivit.open_image(PHOTO))
    here.page.evaluate("choose({method: 'word_relevance', pin: 0, word: 1})")
    assert here.text("#highest") == "its largest"
    for number, word in enumerate((1, 0)):
        assert here.array(f"viewOf().maps.shades[{number}]").max() == pytest.approx(1)
        got = here.array(f"viewOf().maps.values[{number}]")
        np.testing.assert_allclose(got, expected[word], atol=1e-4 * expected[word].max())
    place = int(expected[1].argmax())
    box = here.page.query_selector("#stage canvas").bounding_box()
    row, column = divmod(place, 12)
    here.page.mouse.move(
        box["x"] + (column + 0.5) / 12 * box["width"], box["y"] + (row + 0.5) / 12 * box["height"]
    )
    value, times = here.text("#readout").split(": ")[1].split(" × even")[0].split(", ")
    assert float(value) == pytest.approx(expected[1, place], rel=6e-3)
    assert float(times) == pytest.approx(expected[1, place] / expected[1].mean(), rel=6e-3)
    largest = np.sort(expected[1])[::-1].cumsum()
    cells = int((largest < expected[1].sum() / 2).sum()) + 1
    assert f"half of it on {cells} of 144 cells" in here.text("#mass")


def test_it_takes_two_bytes_a_cell(here: Opened) -> None:
    maps, relevance = here.page.evaluate(
        "[viewOf().caption.maps.bytes, viewOf().caption.relevance.whole.bytes]"
    )
    tokens = len(here.page.evaluate("viewOf().caption.steps")) - 1
    assert relevance == 2 * 144 * tokens
    assert relevance < maps / 10


def test_a_link_brings_it_back(browser: Any, here: Opened, path: Path) -> None:
    here.page.click(RELEVANCE)
    fragment, mass = here.page.url.partition("#")[2], here.text("#mass")
    assert mass.startswith("word relevance")
    with opened(browser, path, fragment=fragment) as again:
        assert again.text("#mass") == mass


def test_without_a_word_nothing_is_asked(captioner: Captioner) -> None:
    from minivit.explorer.gather_captions import _relevance as gather
    from minivit.explorer.packed import Packed

    start = torch.tensor([[captioner.tokenizer.start_id]])
    one = PagePicture("one", minivit.open_image(PHOTO))
    assert gather(captioner, one, start, Packed()) is None


def test_a_page_is_the_same_where_torch_records_nothing(
    captioner: Captioner, tmp_path: Path
) -> None:
    """Relevance takes gradients, which inference mode forbids to whoever does not leave it."""
    write_page(captioner, [PHOTO], tmp_path / "plain.html")
    with torch.inference_mode():
        write_page(captioner, [PHOTO], tmp_path / "inference.html")
    pages = [(tmp_path / f"{name}.html").read_bytes() for name in ("plain", "inference")]
    assert pages[0] == pages[1]
