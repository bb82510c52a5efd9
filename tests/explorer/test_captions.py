"""A caption in the page: the maps are the captioner's, lie where it looked, and words stay text."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
import visualize
from minivit.captioner import Captioner
from minivit.config import CaptionerConfig, ResNetConfig, ViTConfig
from minivit.explorer import show, write_page
from minivit.explorer.gather import PagePicture
from minivit.generation import generate
from minivit.preprocess import Preprocess
from minivit.tokenizer import WordPiece
from minivit.word_maps import Caption, decoder_input, relative_attention
from tests.catr import catr
from tests.explorer.pages import Opened, opened
from tests.explorer.test_screens import CONTRAST

pytestmark = pytest.mark.browser

HOSTILE = (
    "</script><script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "<!--<script>",
    "a\u2028b\u2029c",
    "\u202eright to left",
    "&lt;b&gt;",
)
PIECES = ("##board", "##<i>")


def picture(size: tuple[int, int] = (96, 64), seed: int = 0) -> Image.Image:
    """Random colours of 8 pixels' size, (width, height)."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3))
    return Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def small_captioner(*, resnet: bool = False, seed: int = 0) -> Captioner:
    """Random weights with sharp attention and words that would like to be HTML; it sees 3:2."""
    torch.manual_seed(seed)
    tokenizer = WordPiece(("[PAD]", "[CLS]", "[SEP]", "[UNK]", *HOSTILE, *PIECES))
    vit = ViTConfig.from_name("debug_patch8_32", image_size=(32, 48), num_classes=0)
    config = CaptionerConfig(
        backbone=ResNetConfig(depth=50) if resnet else vit,
        vocabulary_size=len(tokenizer),
        max_length=12,
        dim=32,
        num_heads=4,
        hidden_dim=48,
        encoder_depth=1,
        decoder_depth=3,
        head_dim=24,
    )
    preprocess = Preprocess(
        image_size=(84, 84) if resnet else (32, 48),
        mode="fit_longest" if resnet else "fit_shortest",
        filter="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        multiple_of=1 if resnet else 8,
    )
    captioner = Captioner(config, tokenizer, preprocess=preprocess).eval()
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if name.endswith("cross_attn.qkv.weight"):
                parameter.mul_(3)
        captioner.head[2].weight.mul_(100)  # words that differ in how likely they are
    return captioner


def _choose(here: Opened, **state: object) -> None:
    here.page.evaluate("(news) => choose(news)", state)


def _map(here: Opened, **state: object) -> np.ndarray[Any, np.dtype[np.float32]]:
    _choose(here, **state)
    return here.array("viewOf().values")


def _assert_maps(here: Opened, captioner: Captioner, image: Image.Image, **options: Any) -> None:
    """All words of the page's first picture, in both alignments, several blocks and heads."""
    config = captioner.config
    for align in ("predicts", "reads"):
        for block in (0, config.decoder_depth - 1):
            for head in (None, config.num_heads - 1):
                (caption,) = captioner.caption(
                    [image], align=align, block=block, head=head, **options
                )
                ratios = relative_attention(torch.stack([w.attention for w in caption.words]))
                state = {"align": align, "block": block, "head": "mean" if head is None else head}
                expected = [word.attention for word in caption.words]
                if caption.end_attention is not None:
                    expected.append(caption.end_attention)
                for word, weights in enumerate(expected):
                    got = _map(here, **state, word=word, relative=False)
                    np.testing.assert_allclose(got, weights.flatten(), atol=1e-4)
                for word, ratio in enumerate(ratios):
                    got = _map(here, **state, word=word, relative=True)
                    np.testing.assert_allclose(got, ratio.flatten(), rtol=1e-3, atol=1e-4)


# ---- numbers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    loaded = minivit.load_model("scenes_captioner")
    assert isinstance(loaded, Captioner)
    return loaded


@pytest.fixture(scope="module")
def shipped(
    browser: Any, captioner: Captioner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    """The shipped captioner on a photo and on a picture without anything, three beams each."""
    path: Path = tmp_path_factory.mktemp("page") / "captions.html"
    blank = PagePicture("blank", Image.new("RGB", (96, 96)))
    write_page(captioner, ["tutorials/photos/cat.jpg", blank], path, beam_size=3)
    with opened(browser, path) as page:
        yield page
        assert not page.complaints and not page.requests


@pytest.fixture
def here(shipped: Opened) -> Opened:
    """The page as it is at the start."""
    shipped.page.mouse.move(0, 0)
    shipped.page.evaluate("choose({...START})")
    return shipped


@pytest.fixture(scope="module")
def caption(captioner: Captioner) -> Caption:
    return captioner.caption([minivit.open_image("tutorials/photos/cat.jpg")], beam_size=3)[0]


def test_maps_are_the_captioners(here: Opened, captioner: Captioner) -> None:
    _assert_maps(here, captioner, minivit.open_image("tutorials/photos/cat.jpg"), beam_size=3)


def test_the_largest_over_heads_is_that_of_each_cell(here: Opened, captioner: Captioner) -> None:
    heads = [_map(here, word=1, head=k) for k in range(captioner.config.num_heads)]
    np.testing.assert_array_equal(_map(here, word=1, head="max"), np.max(heads, axis=0))


def test_next_words_are_as_likely_as_the_captioner_says(
    here: Opened, captioner: Captioner, caption: Caption
) -> None:
    ids = [*caption.token_ids, captioner.tokenizer.end_id]
    memory = captioner.encode_photos([minivit.open_image("tutorials/photos/cat.jpg")])
    tokens = decoder_input([ids], captioner.tokenizer)
    with torch.inference_mode():
        shares = captioner.decode(tokens, memory)[0][0].softmax(dim=-1)
    names = captioner.tokenizer.vocabulary
    for step in range(len(ids)):
        _choose(here, word=step, align="predicts")
        stored = here.page.evaluate(f"viewOf().caption.steps[{step}]")
        likeliest = shares[step].topk(5)
        np.testing.assert_allclose(stored["probabilities"], likeliest.values, atol=3e-4)
        assert stored["next"] == [names[number] for number in likeliest.indices]
        rows = here.page.query_selector_all("#next li")
        assert [row.query_selector("bdi").text_content() for row in rows] == stored["next"]
        for row, value in zip(rows, likeliest.values.tolist(), strict=True):
            percent = f"{100 * value:.1f} %" if value >= 5e-4 else "<0.1 %"
            assert row.query_selector("b").text_content() == percent
        taken = here.page.query_selector("#next .taken bdi").text_content()
        assert taken == names[ids[step]]  # what was said is marked among what was likely
        # The step that reads a word is the one that predicts what comes after it.
        if step:
            reading = here.page.text_content("#next")
            _choose(here, word=step - 1, align="reads")
            assert here.page.text_content("#next") == reading
    _choose(here, word=len(ids) - 1, align="reads")
    assert "The sentence is over." in here.text("#next")


def test_beams_are_listed_with_their_scores(here: Opened, captioner: Captioner) -> None:
    for number, image in enumerate(
        (minivit.open_image("tutorials/photos/cat.jpg"), Image.new("RGB", (96, 96)))
    ):
        _choose(here, picture=number)
        memory = captioner.encode_photos([image])
        (beams,) = generate(captioner.next_words(memory), beam_size=3)
        rows = here.page.query_selector_all("#beams tbody tr")
        got = [[cell.text_content() for cell in row.query_selector_all("td")] for row in rows]
        assert [text for text, _ in got] == [
            captioner.tokenizer.decode(beam.token_ids) + ("" if beam.ended else " … (cut)")
            for beam in beams
        ]
        for (_, score), beam in zip(got, beams, strict=True):
            assert float(score) == pytest.approx(beam.score, abs=6e-4)


@pytest.mark.slow
def test_catrs_weights_on_a_picture_of_3_to_2(browser: Any, tmp_path: Path) -> None:
    image, path = picture((288, 192)), tmp_path / "page.html"
    write_page(catr(), [PagePicture("one", image)], path, max_length=7)
    with opened(browser, path) as here:
        _assert_maps_of_some_heads(here, image)
        _assert_aligned(here, catr().caption([image], max_length=7)[0], image)
        assert not here.complaints and not here.requests


def _assert_maps_of_some_heads(here: Opened, image: Image.Image) -> None:
    for align, block, head in (("predicts", 5, None), ("reads", 2, 3), ("predicts", 0, 7)):
        (caption,) = catr().caption([image], align=align, block=block, head=head, max_length=7)
        state = {"align": align, "block": block, "head": "mean" if head is None else head}
        for word, expected in enumerate(caption.words):
            got = _map(here, **state, word=word)
            np.testing.assert_allclose(got, expected.attention.flatten(), atol=1e-4)
    _choose(here, align="predicts", block=-1, head="mean")


# ---- places --------------------------------------------------------------------------------------


def _assert_aligned(here: Opened, caption: Caption, photo: Image.Image) -> None:
    """Each pixel of the canvas has the colour of the cell whose region of the photo it shows."""
    word = len(caption.words) - 1
    _choose(here, word=word, opacity=100, head="mean", block=-1, align="predicts")
    width, height = here.page.evaluate(
        "(() => { const c = document.querySelector('#stage canvas'); return [c.width, c.height]; "
        "})()"
    )
    assert width / height == pytest.approx(photo.width / photo.height, rel=0.02)
    shown = here.array(
        "Float32Array.from(document.querySelector('#stage canvas').getContext('2d')"
        f".getImageData(0, 0, {width}, {height}).data)"
    ).reshape(height, width, 4)
    table = here.array("Float32Array.from(tableFor(state, false))").reshape(256, 3)
    weights = caption.words[word].attention
    rows, cols = weights.shape
    left, top, right, bottom = caption.box
    x = (np.arange(width) + 0.5) * photo.width / width
    y = (np.arange(height) + 0.5) * photo.height / height
    # What is left free on the right and below belongs to the last cells, as in `caption_figure`.
    col = np.clip(np.floor((x - left) / (right - left) * cols).astype(int), 0, cols - 1)
    row = np.clip(np.floor((y - top) / (bottom - top) * rows).astype(int), 0, rows - 1)
    expected = table[np.rint(255 * (weights / weights.max()).numpy()).astype(int)]
    off = np.abs(shown[..., :3] - expected[row[:, None], col[None]]).max(axis=-1)
    assert (off > 3).mean() < 0.001  # 3: a value on the border of two colours
    # And the pointer reads the cell that is drawn under it.
    box = here.page.query_selector("#stage canvas").bounding_box()
    for across, down in ((0.02, 0.03), (0.25, 0.34), (0.5, 0.4), (0.99, 0.98)):
        here.page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
        place = f"row {row[int(down * height)]}, column {col[int(across * width)]}:"
        assert here.text("#readout").startswith(place)


@pytest.mark.parametrize("resnet", (False, True))
def test_a_picture_of_3_to_2_is_aligned(browser: Any, tmp_path: Path, resnet: bool) -> None:
    captioner, image = small_captioner(resnet=resnet), picture((144, 96))
    path = tmp_path / "page.html"
    write_page(captioner, [PagePicture("one", image)], path)
    with opened(browser, path) as here:
        _assert_aligned(here, captioner.caption([image])[0], image)


def test_each_picture_has_its_own_cells_and_no_padding(browser: Any, tmp_path: Path) -> None:
    captioner = small_captioner(resnet=True)
    images = [picture((144, 96)), picture((64, 144), 1)]
    path = tmp_path / "page.html"
    write_page(captioner, [PagePicture(f"{k}", image) for k, image in enumerate(images)], path)
    captions = captioner.caption(images)  # in one batch, in which both are padded
    with opened(browser, path) as here:
        for number, caption in enumerate(captions):
            weights, *_ = (*(word.attention for word in caption.words), caption.end_attention)
            got = _map(here, picture=number, word=0)
            assert here.page.evaluate("viewOf().grid") == list(weights.shape)
            np.testing.assert_allclose(got, weights.flatten(), atol=1e-4)
            assert "100.0 %" in here.text("#mass")


# ---- words ---------------------------------------------------------------------------------------


def test_hostile_words_and_names_are_text(browser: Any, tmp_path: Path) -> None:
    captioner, path = small_captioner(), tmp_path / "page.html"
    image = picture((144, 96))
    write_page(captioner, [PagePicture(HOSTILE[0], image)], path, name=HOSTILE[1], beam_size=2)
    (caption,) = captioner.caption([image], beam_size=2)
    assert any("<" in word.text for word in caption.words)
    assert any(len(word.tokens) > 1 for word in caption.words)  # pieces too
    with opened(browser, path) as here:
        chips = [chip.text_content() for chip in here.page.query_selector_all("#words bdi")]
        assert chips[: len(caption.words)] == [word.text for word in caption.words]
        for word in range(len(chips)):
            here.page.click(f"#words button >> nth={word}")
            here.page.evaluate("choose({pin: state.word})")
        assert here.text("#tabs button") == HOSTILE[0] and here.text("#weights") == HOSTILE[1]
        assert caption.text in here.text("#beams tbody")
        assert here.page.title() == "minivit explorer"
        assert (
            here.page.evaluate("document.querySelectorAll('main img, main i i, bdi *').length") == 0
        )
        assert not here.complaints and not here.requests


def test_pieces_of_a_word_each_have_their_step(browser: Any, tmp_path: Path) -> None:
    captioner, image = small_captioner(), picture((144, 96))
    path = tmp_path / "page.html"
    write_page(captioner, [PagePicture("one", image)], path)
    (caption,) = captioner.caption([image])
    with opened(browser, path) as here:
        _assert_maps(here, captioner, image)
        for number, word in enumerate(caption.words):
            _choose(here, word=number, align="predicts")
            steps = here.page.query_selector_all("#next h3")
            assert len(steps) == len(word.tokens)
            taken = here.page.query_selector_all("#next .taken bdi")
            names = [one.text_content() for one in taken]
            assert names == [caption.tokens[token] for token in word.tokens]
            chip = here.page.query_selector(f"#words button >> nth={number}")
            likely = math.exp(word.log_prob)
            assert chip.query_selector("small").text_content() == (
                f"{likely:.2f}" if likely > 0.005 else "<0.01"
            )


# ---- hands ---------------------------------------------------------------------------------------


def test_words_are_stepped_through_by_keys_clicks_and_the_pointer(here: Opened) -> None:
    page = here.page
    first = here.array("viewOf().values")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("viewOf().word") == 2
    page.keyboard.press("ArrowLeft")
    page.click("#words button >> nth=3")
    assert page.evaluate("state.word") == 3
    page.keyboard.press("ArrowLeft")  # the focus goes along
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "true"
    page.hover("#words button >> nth=0")  # shown while the pointer is there, not chosen
    np.testing.assert_array_equal(here.array("viewOf().values"), first)
    assert page.evaluate("state.word") == 2
    page.hover("h1")
    assert page.evaluate("viewOf().word") == 2
    page.focus("#words [tabindex='0']")
    page.keyboard.press("r")
    assert page.evaluate("state.align") == "reads"
    assert page.get_attribute("[data-align=reads]", "aria-checked") == "true"
    page.keyboard.press("r")
    page.keyboard.press("End")
    assert here.text("#words [aria-checked=true] bdi") == "(end)"
    page.keyboard.press("Home")
    assert page.evaluate("state.word") == 0


def test_characters_act_only_where_the_focus_is_on_what_they_are_for(here: Opened) -> None:
    page, signs = here.page, "rdp[],."
    for outside in ("#theme", "#beams", "body"):
        page.evaluate("(of) => document.querySelector(of).focus()", outside)
        before = page.evaluate("state")
        for sign in signs:
            page.keyboard.press(sign)
        assert page.evaluate("state") == before, outside
    for inside in ("#words [tabindex='0']", "#picture", "#heads button"):
        page.evaluate("choose({...START, block: 1})")
        page.focus(inside)
        for sign in signs[:5]:
            before = page.evaluate("state")
            page.keyboard.press(sign)
            assert page.evaluate("state") != before, (inside, sign)
    for sign in signs:
        assert sign in here.text("#keys")


def test_two_words_stand_side_by_side_on_one_scale(here: Opened, caption: Caption) -> None:
    page = here.page
    strongest = [float(word.attention.max()) for word in caption.words]
    one = int(np.argmax(strongest))
    other = int(one == 0)
    _choose(here, word=one)
    page.click("#pin")
    _choose(here, word=other)
    left = page.query_selector("#pinned canvas").bounding_box()
    right = page.query_selector("#stage canvas").bounding_box()
    assert left["x"] + left["width"] < right["x"] and left["y"] == pytest.approx(right["y"], abs=1)
    assert caption.words[one].text in here.text("#pinned figcaption")
    assert caption.words[other].text in here.text("#word-shown")
    assert float(here.text("#highest")) == pytest.approx(strongest[one], rel=0.01)
    row, column = 3, 4
    page.mouse.move(
        right["x"] + (column + 0.5) / 12 * right["width"],
        right["y"] + (row + 0.5) / 12 * right["height"],
    )
    own, pinned = (float(caption.words[k].attention[row, column]) for k in (other, one))
    words = here.text("#readout").replace(",", " ").replace(";", " ").split()
    assert words[:4] == ["row", "3", "column", "4:"]
    assert float(words[4]) == pytest.approx(own, rel=0.06)
    assert float(words[words.index("pinned:") + 1]) == pytest.approx(pinned, rel=0.06)
    with page.expect_download() as download:  # both are saved, the pinned one on the left
        page.click("#save")
    saved = Image.open(download.value.path())
    both = here.array(
        "Float32Array.of(...['#pinned', '#stage'].flatMap((id) => [...document.querySelector("
        "id + ' canvas').getContext('2d').getImageData(9, 9, 1, 1).data]))"
    )
    gap = saved.width - 2 * saved.height
    corners = [saved.convert("RGBA").getpixel((x, 9)) for x in (9, saved.height + gap + 9)]
    assert gap > 0 and np.array_equal(np.ravel(corners), both)
    page.focus("#pin")
    page.keyboard.press("d")
    assert page.is_checked("#relative") and here.text("#lowest").startswith("≤ 1/")
    page.keyboard.press("p")
    assert not page.is_visible("#pinned")


def test_a_link_brings_the_view_back(browser: Any, here: Opened, captioner: Captioner) -> None:
    state = {"picture": 1, "word": 2, "align": "reads", "relative": True, "pin": 0, "head": 1}
    state |= {"block": 0}
    values = _map(here, **state)
    path, fragment = here.page.evaluate("[location.pathname, location.hash.slice(1)]")
    with opened(browser, Path(path), fragment=fragment) as again:
        np.testing.assert_array_equal(again.array("viewOf().values"), values)
        assert again.page.is_visible("#pinned") and again.page.is_checked("#relative")
    # A word that is not there, as after another sentence, is no reason to fail.
    with opened(browser, Path(path), fragment="word=999&pin=999&block=99&head=99") as other:
        assert other.text("#words [aria-checked=true] bdi") == "(end)"
        assert not other.page.is_visible("#pinned") and not other.complaints


@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("width", (360, 768, 1440))
def test_it_fits_the_screen_and_can_be_read(
    browser: Any, here: Opened, width: int, scheme: str
) -> None:
    path = Path(here.page.evaluate("location.pathname"))
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, path, fragment="pin=1", **options) as narrow:
        assert narrow.page.evaluate("document.documentElement.scrollWidth") <= width
        found = narrow.page.evaluate(CONTRAST)
        assert len(found) > 20 and not [one for one in found if one[0] < 4.5]


def test_paper_shows_both_words_and_no_controls(browser: Any, here: Opened) -> None:
    path = Path(here.page.evaluate("location.pathname"))
    with opened(browser, path, fragment="pin=1") as paper:
        assert "step through the words" in paper.text("#keys")
        paper.page.emulate_media(media="print")
        for selector in ("#pin", "#keys", "#relative", "[data-align=reads]", ".sliders"):
            assert not paper.page.is_visible(selector), selector
        for selector in ("#words", "#pinned canvas", "#stage canvas", "#next", "#beams"):
            assert paper.page.is_visible(selector), selector


def test_the_read_out_stays_with_the_pointer(here: Opened) -> None:
    box = here.page.query_selector("#stage canvas").bounding_box()
    here.page.mouse.move(box["x"] + 5, box["y"] + 5)
    first = here.text("#readout")
    here.page.keyboard.press("ArrowRight")
    assert here.text("#readout") != first
    assert first.startswith("row 0, column 0:")
    assert here.text("#readout").startswith("row 0, column 0:")
    here.page.mouse.move(0, 0)
    assert "strongest at" in here.text("#readout")


def test_characters_that_are_not_seen_are_written_out(browser: Any, tmp_path: Path) -> None:
    captioner, path = small_captioner(), tmp_path / "page.html"
    write_page(captioner, [PagePicture("one", picture((144, 96)))], path)
    with opened(browser, path, fragment="pin=1") as here:
        here.page.evaluate(
            "(text) => { for (const word of viewOf().caption.words) word.text = text; "
            "drawnCaption = null; choose({word: 0}); }",
            HOSTILE[4],
        )
        for selector in ("#words bdi", "#readout", "#word-shown", "#pinned figcaption"):
            assert r"\u202eright to left" in here.text(selector), selector
        here.page.focus("#pin")
        here.page.keyboard.press("p")
        assert r"\u202eright to left" in here.text("#pin")


def test_the_command_and_a_notebook_make_the_same_page(
    browser: Any, captioner: Captioner, tmp_path: Path
) -> None:
    path, photo = tmp_path / "page.html", "tutorials/photos/cat.jpg"
    words = ["explore", photo, "--weights", "scenes_captioner", "--beam-size", "2"]
    assert visualize.main([*words, "--max-length", "5", "--out", str(path)]) == 0
    options: dict[str, Any] = {
        "beam_size": 2,
        "max_length": 5,
        "name": "scenes_captioner.safetensors, shipped with minivit",
    }
    shown = show(captioner, [photo], **options)._repr_html_()
    page, _, mark = path.read_text(encoding="utf-8").rpartition("<!-- minivit:")
    assert html.escape(page) in shown and mark.endswith(" -->\n")
    with opened(browser, path) as here:  # the sentence was cut, so that it has no end
        assert len(here.page.query_selector_all("#words button")) == 4
        assert "(cut)" in here.text("#beams")
        _choose(here, word=3, align="reads")  # what came next was not taken
        assert len(here.page.query_selector_all("#next li")) == 5
        assert here.page.query_selector("#next .taken") is None


def test_flags_of_the_other_kind_of_model_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, says in (
        (["--weights", "scenes_captioner", "--whole"], "--whole: only for a Vision Transformer"),
        (["--weights", "scenes_captioner", "--methods", "rollout"], "--methods: only for"),
        (["--weights", "scenes_captioner", "--scores", "README.md"], "--scores: only for"),
        (["--beam-size", "2"], "only a captioner writes sentences"),
    ):
        assert visualize.main(["explore", *flags, "--out", str(tmp_path / "page.html")]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
