"""Names and labels from outside appear as text, whatever they hold, and run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minivit.explorer import write_page
from minivit.explorer.gather import PagePicture
from tests.explorer.conftest import sharp_vit
from tests.explorer.pages import Opened, opened
from tests.explorer.test_gestures import _picture

pytestmark = pytest.mark.browser

RUN = "window.ran = true"
HOSTILE = [
    f'"><script>{RUN}</script>',
    f"</script><script>{RUN}</script>",
    f"--><img src=x onerror='{RUN}'><!--",
    "line\u2028end\u2029s",
    "photo\u202egnp.exe",
    "\u2066isolated\u2069 \u200fmark \x00\x1b[31m",
    "<!--ARRAYS--> <!--DOCUMENT--> ${RUN} `\\u003c`",
    "x" * 300,
]
SHOWN = {  # what is not seen is written out
    HOSTILE[3]: r"line\u2028end\u2029s",
    HOSTILE[4]: r"photo\u202egnp.exe",
    HOSTILE[5]: r"\u2066isolated\u2069 \u200fmark \u0000\u001b[31m",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = sharp_vit(num_classes=len(HOSTILE))
    order = model(model.preprocess(_picture())[None])[0].argsort(descending=True).tolist()
    labels = dict(zip(order, reversed(HOSTILE), strict=True))  # the longest is the likeliest
    model.labels = [labels[number] for number in range(len(HOSTILE))]
    path = tmp_path_factory.mktemp("page") / "page.html"
    pictures = [PagePicture(name, _picture()) for name in HOSTILE]
    scores = {"rollout": HOSTILE[0], "relevance": HOSTILE[4]}
    write_page(
        model,
        pictures,
        path,
        name=HOSTILE[1] + HOSTILE[4],
        methods=("rollout", "relevance"),
        scores=scores,
    )
    return path


@pytest.fixture(params=[360, 768, 1440])
def here(browser: Any, path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    with opened(browser, path, viewport={"width": request.param, "height": 900}) as page:
        page.wait_until(f"passes.has({len(HOSTILE) - 1})")
        yield page
        assert page.page.evaluate("window.ran") is None
        assert not page.complaints and not page.requests


def test_hostile_texts_are_shown_as_text(here: Opened) -> None:
    expected = [SHOWN.get(text, text) for text in HOSTILE]
    texts = "elements => elements.map((element) => element.textContent)"
    assert here.page.eval_on_selector_all("#tabs button", texts) == expected
    labels = here.page.eval_on_selector_all("#classes span", texts)
    assert labels == expected[:2:-1]
    clipped = (
        "buttons => buttons.filter((button) => button.scrollWidth > button.clientWidth).length"
    )
    assert here.page.eval_on_selector_all("#classes button", clipped) == 0
    assert here.text("#weights") == HOSTILE[1] + SHOWN[HOSTILE[4]]
    assert here.page.eval_on_selector_all("#methods small", texts) == [
        HOSTILE[0],
        SHOWN[HOSTILE[4]],
    ]
    for button in range(3):
        here.page.click(f"#classes button >> nth={button}")
        assert not set(here.text("#mass")) & set("\u2028\u202e\u2066\x1b\x00")
    assert here.page.query_selector("img, #tabs script, main script") is None
    assert here.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_the_name_of_a_dropped_file_is_text(here: Opened, tmp_path: Path) -> None:
    name = f"<img src=x onerror={RUN}>\u202egpj.png"
    (tmp_path / name).write_bytes(b"no picture")
    here.page.set_input_files("#files", [str(tmp_path / name)])
    here.wait_until("!document.getElementById('trouble').hidden")
    start = here.text("#trouble").partition(": this browser")[0]
    assert start == name.replace("\u202e", r"\u202e")
    here.page.keyboard.press("Escape")
    _picture().save(tmp_path / name)
    here.page.set_input_files("#files", [str(tmp_path / name)])
    here.wait_until(f"passes.has({len(HOSTILE)})")
    assert here.text("#tabs button:last-child") == name.replace("\u202e", r"\u202e")
    assert here.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
