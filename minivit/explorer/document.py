"""The page: its parts in `page/` and the arrays of a model, joined into one file.

Nothing is fetched by the page, and its policy forbids it. Text from outside, names and labels,
stands in one JSON element, in which no character can end it, and reaches the page as text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minivit.captioner import Captioner
from minivit.explorer.gather import LIVE_WEIGHTS, PagePicture, describe
from minivit.explorer.gather_captions import describe_captioner
from minivit.explorer.method_scores import known_scores
from minivit.explorer.packed import Packed
from minivit.files import replacing
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer

_PAGE = Path(__file__).parent / "page"
NUMERICS = (
    "matrix.js",
    "positions.js",
    "preprocess.js",
    "safetensors.js",
    "followed.js",
    "vit.js",
    "engine.js",
)
"""Scripts that compute: they run in the worker too."""
INTERFACE = (
    "text.js",
    "arrays.js",
    "colours.js",
    "state.js",
    "attention.js",
    "live.js",
    "reading.js",
    "picture.js",
    "heads.js",
    "prediction.js",
    "scene.js",
    "steps.js",
    "patches.js",
    "grey16.js",
    "webp.js",
    "drop.js",
    "places.js",
    "word_steps.js",
    "relevance.js",
    "caption.js",
    "changed.js",
    "main.js",
)
"""Scripts of what is seen, in the order in which they are needed."""

METHODS_SHOWN = ("rollout", "relevance", "attention_gradient", "value_norm", "class_similarity")
"""Methods whose maps a page of a small model holds where none are named."""

METHODS_OF_LARGE = ("rollout", "value_norm")
"""The same of a larger model: a page takes little longer than a figure."""


def write_page(
    model: VisionTransformer | Captioner,
    pictures: Sequence[str | os.PathLike[str] | Image.Image | PagePicture],
    path: str | os.PathLike[str],
    *,
    methods: Sequence[str] | None = None,
    name: str = "",
    preprocess: Preprocess | None = None,
    scores: Mapping[str, str] | None = None,
    beam_size: int = 1,
    max_length: int | None = None,
    mark: str = "",
) -> None:
    """Writes a page in which the attention of a model on pictures can be explored, offline.

    A model of up to 4 M weights rides along, and the page runs it; of a larger one the page holds
    queries and keys of these pictures. A model that runs there, or one that is dropped onto the
    page, has maps by rollout and value norm of whatever is changed or dropped; maps by other
    methods are those stored here. Of a captioner the page holds what each word's step looked at,
    and the relevance of the cells for each token.

    Args:
        model: Vision Transformer or captioner in eval mode.
        pictures: Files, or pictures as `minivit.open_image` gives them.
        path: The page, an .html file; an existing one is replaced once the new one is whole.
        methods: Names in `minivit.explain.METHODS`; None: a few, of a large model two. Not for a
            captioner.
        name: Name of the weights, for the page's head.
        preprocess: Transform of the pictures; None: the model's. Not for a captioner.
        scores: A few words on methods, by their names, on how far they can be trusted here; they
            stand beside the names. None: those measured on the built-in scenes where the model is
            the shipped one, else no words. Not for a captioner.
        beam_size: Sentences that a captioner follows at a time, which the page then lists; 1:
            greedy.
        max_length: Greatest number of tokens of a caption, the start token counted; None: all that
            the captioner has.
        mark: Word that is kept at the end of the page (see `minivit.commands.outputs`).

    Raises:
        OSError: The page cannot be written, or a picture cannot be read.
        minivit.BadImageError: A file is no picture.
        ValueError: No picture; an option of the other kind of model; or what a method or a search
            refuses.
    """
    text = page_text(
        model,
        pictures,
        methods=methods,
        name=name,
        preprocess=preprocess,
        scores=scores,
        beam_size=beam_size,
        max_length=max_length,
    )
    if mark:
        text += f"<!-- {mark} -->\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def page_text(
    model: VisionTransformer | Captioner,
    pictures: Sequence[str | os.PathLike[str] | Image.Image | PagePicture],
    *,
    methods: Sequence[str] | None = None,
    name: str = "",
    preprocess: Preprocess | None = None,
    scores: Mapping[str, str] | None = None,
    beam_size: int = 1,
    max_length: int | None = None,
) -> str:
    """The text of the page that `write_page` writes."""
    if not pictures:
        raise ValueError("no pictures: a page shows at least one")
    packed = Packed()
    if isinstance(model, Captioner):
        if any(option is not None for option in (methods, preprocess, scores)):
            raise ValueError(
                "methods, preprocess, scores: a captioner has one map and one transform only"
            )
        return _join(
            describe_captioner(
                model,
                named_pictures(pictures),
                packed,
                name=name,
                beam_size=beam_size,
                max_length=max_length,
            ),
            packed,
        )
    if beam_size != 1 or max_length is not None:
        raise ValueError("beam_size, max_length: only a captioner writes sentences")
    preprocess = preprocess or model.preprocess
    live = sum(parameter.numel() for parameter in model.parameters()) <= LIVE_WEIGHTS
    document = describe(
        model,
        named_pictures(pictures),
        packed,
        name=name,
        methods=(METHODS_SHOWN if live else METHODS_OF_LARGE) if methods is None else methods,
        preprocess=preprocess,
        live=live,
        scores=known_scores(model, preprocess) if scores is None else scores,
    )
    kernel = np.frombuffer((_PAGE / "kernel.wasm").read_bytes(), dtype=np.uint8)
    document["kernel"] = packed.add(kernel)
    return _join(document, packed)


def named_pictures(
    pictures: Sequence[str | os.PathLike[str] | Image.Image | PagePicture],
) -> list[PagePicture]:
    """Pictures opened, with the names that the page shows."""
    return [_named(picture, number) for number, picture in enumerate(pictures)]


def _named(picture: str | os.PathLike[str] | Image.Image | PagePicture, number: int) -> PagePicture:
    if isinstance(picture, PagePicture):
        return picture
    if isinstance(picture, Image.Image):
        return PagePicture(f"picture {number + 1}", picture)
    from minivit.preprocess import open_image

    return PagePicture(Path(picture).name, open_image(picture))


def _join(document: dict[str, Any], packed: Packed) -> str:
    text = (_PAGE / "page.html").read_text(encoding="utf-8")
    # "<" cannot end the element, and what a browser treats as a line's end is no such thing here.
    escaped = json.dumps(document).replace("<", "\\u003c")
    parts = {
        "STYLE": (_PAGE / "style.css").read_text(encoding="utf-8"),
        "NUMERICS": _scripts(NUMERICS),
        "INTERFACE": _scripts(INTERFACE),
        "DOCUMENT": escaped,
        "ARRAYS": packed.html(),
    }
    for part, content in parts.items():
        before, mark, after = text.partition(f"<!--{part}-->")
        if not mark:
            raise ValueError(f"page.html has no place for {part}")
        text = before + content + after
    return text


def _scripts(names: Sequence[str]) -> str:
    return "\n".join((_PAGE / name).read_text(encoding="utf-8") for name in names)
