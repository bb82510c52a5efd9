"""The picture that stands for a page where none can run: its first view, as a figure.

A notebook that is not trusted shows neither frames nor scripts, but it shows pictures.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from minivit.attention import AttentionRows
from minivit.captioner import Captioner
from minivit.explain import query_attention
from minivit.explorer.gather import PagePicture
from minivit.preprocess import Preprocess
from minivit.vit import VisionTransformer
from minivit.viz import attention_figure, caption_figure

MOST_BYTES = 300_000
"""Size below which a still stays: it lies in the notebook beside the page."""

_WIDEST = 990  # pixels; about as wide as a notebook's column
_NARROWEST = 330  # letters cannot be read any more, but the maps can be seen


def still(
    model: VisionTransformer | Captioner,
    picture: PagePicture,
    *,
    name: str = "",
    preprocess: Preprocess | None = None,
    beam_size: int = 1,
    max_length: int | None = None,
    **_: Any,
) -> bytes:
    """A JPEG of what the page shows first, smaller than `MOST_BYTES`.

    Args:
        model: Model in eval mode.
        picture: First picture of the page.
        name: As in `write_page`, as are the others; those that it does not draw are left alone.
        preprocess: Transform of the picture; None: the model's.
        beam_size: Sentences that a captioner follows at a time.
        max_length: Greatest number of tokens of a caption.
    """
    if isinstance(model, Captioner):
        (caption,) = model.caption([picture.image], beam_size=beam_size, max_length=max_length)
        figure = caption_figure(picture.image, caption, heading=_heading(picture.name, name))
    else:
        figure = _first_view(model, picture, name, preprocess or model.preprocess)
    return _jpeg(figure)


@torch.inference_mode()
def _first_view(
    model: VisionTransformer, picture: PagePicture, name: str, preprocess: Preprocess
) -> Figure:
    """The picture, and where the first token looks in the last block, the mean over heads."""
    images = preprocess(picture.image)[None].to(next(model.parameters()).device)  # (1, C, H, W)
    rows = AttentionRows(blocks=[-1], queries=[0])
    logits, attentions = model(images, return_attention=rows)
    is_patch = model.num_prefix_tokens == 0
    if model.config.class_token:
        token = "the class token"
    else:
        token = "the first patch" if is_patch else "register 0"
    title = picture.name
    if model.labels:
        probability, best = logits[0].float().softmax(dim=-1).max(dim=-1)
        title += f"\npredicted: {model.labels[int(best)]} ({float(probability):.1%})"
    return attention_figure(
        picture.image,
        preprocess.crop_box(*picture.image.size),
        query_attention(attentions, token=0)[0],  # (1, H, rows, cols) -> (H, rows, cols)
        num_tokens=attentions[0].shape[-1],
        heads=(),
        patch=(0, 0) if is_patch else None,
        heading=_heading(f"Attention of {token} in the last block", name),
        photo_title=title,
    )


def _heading(line: str, name: str) -> str:
    return f"{line}\nweights: {name}" if name else line


def _jpeg(figure: Figure) -> bytes:
    """The figure, as wide as fits into the bytes."""
    width = _WIDEST
    while True:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=width / figure.get_figwidth())
        file = io.BytesIO()
        Image.open(drawn).convert("RGB").save(
            file, "JPEG", quality=90, subsampling=0, optimize=True
        )
        if file.tell() < MOST_BYTES or width <= _NARROWEST:
            return file.getvalue()
        width = max(_NARROWEST, width * 3 // 4)
