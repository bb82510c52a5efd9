"""The picture that stands for a page in a notebook that is not trusted."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

import minivit
from minivit.captioner import Captioner
from minivit.explorer import show, still
from minivit.explorer.gather import PagePicture
from minivit.vit import VisionTransformer
from tests.explorer.conftest import sharp_vit

CAT = "tutorials/photos/cat.jpg"


class Sanitised(HTMLParser):
    """What JupyterLab leaves of an output that it does not trust, for the tags that matter here.

    Frames go, styles and scripts go with their text, and so does every address of a picture but
    http, https and data.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self._dropped = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "script"):
            self._dropped += 1
        elif tag == "img":
            self.pictures.append(dict(attributes))

    def handle_endtag(self, tag: str) -> None:
        self._dropped -= tag in ("style", "script")

    def handle_data(self, text: str) -> None:
        if not self._dropped:
            self.texts.append(text)


def test_the_picture_survives_where_frames_and_styles_do_not(
    scenes_model: VisionTransformer,
) -> None:
    shown = show(scenes_model, [CAT], methods=("rollout",), name="scenes")
    left = Sanitised(shown._repr_html_())
    (picture,) = left.pictures
    kind, text = str(picture["src"]).split(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(text) == shown._repr_jpeg_()
    assert "cat.jpg" in str(picture["alt"])
    assert "trusted" in "".join(left.texts) and len("".join(left.texts)) < 200


def test_a_hostile_name_is_text(scenes_model: VisionTransformer) -> None:
    name = '"><script>alert(1)</script>.jpg'
    picture = PagePicture(name, Image.new("RGB", (60, 40), "red"))
    left = Sanitised(show(scenes_model, [picture], methods=())._repr_html_())
    assert len(left.pictures) == 1 and name in str(left.pictures[0]["alt"])


@pytest.mark.parametrize("kind", ["photo", "noise", "captioner", "many words"])
def test_it_is_small_and_as_wide_as_a_column(scenes_model: VisionTransformer, kind: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (400, 600, 3), dtype=np.uint8))
    picture = minivit.open_image(CAT) if kind == "photo" else noise
    model: VisionTransformer | Captioner = scenes_model
    if kind in ("captioner", "many words"):
        model = minivit.load_model("scenes_captioner", expected=Captioner)
    if kind == "many words":
        assert isinstance(model, Captioner)
        with torch.no_grad():  # no word is the end
            list(model.parameters())[-1][model.tokenizer.end_id] = -1e4
    data = still.still(model, PagePicture("picture", picture), beam_size=1)
    assert len(data) < still.MOST_BYTES
    width, height = Image.open(io.BytesIO(data)).size
    assert 330 <= width <= 990 and height > 100


def _drawn(model: VisionTransformer, **options: object) -> tuple[np.ndarray, str]:
    """The map in the figure, and all that is written there."""
    picture = PagePicture("cat", minivit.open_image(CAT))
    options = {"name": "w", "preprocess": model.preprocess} | options
    figure = still._first_view(model, picture, *options.values())
    words = " ".join(text.get_text() for text in figure.texts)
    return np.asarray(figure.axes[1].images[-1].get_array()), words


@torch.inference_mode()
def test_it_shows_the_class_token_in_the_last_block(scenes_model: VisionTransformer) -> None:
    preprocess = replace(
        scenes_model.preprocess, mode="fit_shortest", crop_fraction=1.0, multiple_of=8
    )
    for each in (scenes_model.preprocess, preprocess):
        images = each(minivit.open_image(CAT))[None]
        logits, attentions = scenes_model(images, return_attention=True)
        grid = scenes_model.patch_embed.grid_for(*images.shape[-2:])
        expected = attentions[-1][0, :, 0, 1:].mean(0).reshape(grid)
        drawn, words = _drawn(scenes_model, preprocess=each)
        np.testing.assert_allclose(drawn, expected, atol=1e-6)
        assert "class token" in words and "weights: w" in words
        assert scenes_model.labels[int(logits[0].argmax())] in words


@pytest.mark.parametrize(("registers", "name"), [(0, "the first patch"), (2, "register 0")])
def test_without_a_class_token_the_first_token_looks(registers: int, name: str) -> None:
    model = sharp_vit(class_token=False, pooling="mean", num_register_tokens=registers)
    assert name in _drawn(model)[1]
