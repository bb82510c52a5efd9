"""The page in a notebook, and a picture where a notebook shows no page."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from minivit.captioner import Captioner
from minivit.explorer.document import named_pictures, page_text
from minivit.explorer.still import still
from minivit.vit import VisionTransformer

_TRUST = "A page stands here in a notebook that is trusted. Run this cell to see it."


class ShownPage:
    """A page that a notebook shows in a frame of its own, and a picture for where it shows none.

    The frame is a sandbox that lets scripts run and files be saved, and nothing else: a bare page
    in an output would run in the notebook's own document.

    JupyterLab takes frames and styles out of the HTML of a notebook that it does not trust, and
    keeps pictures; it does not turn to another format then, so the picture has to stand in the
    HTML. The style hides it behind a frame only. As a format of its own it is for readers that know
    no HTML: LaTeX and PDF.
    """

    def __init__(self, text: str, height: int, still: bytes, description: str) -> None:
        self._text = text
        self._height = height
        self._still = still
        self._description = description

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._still).decode("ascii")
        return (
            "<style>iframe.minivit-page + div { display: none }</style>"
            '<iframe class="minivit-page" sandbox="allow-scripts allow-downloads" width="100%" '
            f'height="{self._height}" style="border:0" '
            f'srcdoc="{html.escape(self._text, quote=True)}"></iframe>'
            f'<div><img alt="{html.escape(self._description, quote=True)}" '
            f'src="data:image/jpeg;base64,{picture}"><p>{_TRUST}</p></div>'
        )

    def _repr_jpeg_(self) -> bytes:
        return self._still


def show(
    model: VisionTransformer | Captioner,
    pictures: Sequence[str | os.PathLike[str] | Image.Image],
    *,
    height: int = 900,
    **options: Any,
) -> ShownPage:
    """The page of `write_page`, for the last line of a notebook's cell.

    A notebook that is not trusted, one from somebody else for example, shows a picture of the first
    photo in its place: where the class token looks, or the maps of a caption's words.

    Args:
        model: As in `write_page`, as are pictures, options and errors.
        pictures: Files or pictures.
        height: Height of the frame in pixels.
        options: Further arguments of `write_page`.
    """
    named = named_pictures(pictures)
    text = page_text(model, named, **options)
    description = f"{named[0].name}, and where the model looks"
    return ShownPage(text, height, still(model, named[0], **options), description)
