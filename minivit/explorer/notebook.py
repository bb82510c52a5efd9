"""The page in a notebook."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from minivit.captioner import Captioner
from minivit.explorer.document import page_text
from minivit.vit import VisionTransformer


class ShownPage:
    """A page that a notebook shows in a frame of its own.

    The frame is a sandbox that lets scripts run and files be saved, and nothing else: a bare page
    in an output would run in the notebook's own document.
    """

    def __init__(self, text: str, height: int) -> None:
        self._text = text
        self._height = height

    def _repr_html_(self) -> str:
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" width="100%" height="{self._height}" '
            f'style="border:0" srcdoc="{html.escape(self._text, quote=True)}"></iframe>'
        )


def show(
    model: VisionTransformer | Captioner,
    pictures: Sequence[str | os.PathLike[str] | Image.Image],
    *,
    height: int = 900,
    **options: Any,
) -> ShownPage:
    """The page of `write_page`, for the last line of a notebook's cell.

    A notebook that is not trusted shows nothing in its place: draw a figure for its readers.

    Args:
        model: As in `write_page`, as are pictures, options and errors.
        pictures: Files or pictures.
        height: Height of the frame in pixels.
        options: Further arguments of `write_page`.
    """
    return ShownPage(page_text(model, pictures, **options), height)
