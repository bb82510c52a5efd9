"""visualize.py doctor: from flags to a page, and lines, of each photo."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import Drawing, Picture, draw_pictures, heading
from minivit.commands.seen import shipped_remark
from minivit.weights import weights_title

if TYPE_CHECKING:
    import torch

    from minivit.vit import VisionTransformer


def doctor(model: VisionTransformer, arguments: argparse.Namespace) -> int:
    """Says of each photo why its map looks bad.

    Raises:
        ValueError: A model without a class token.
    """
    if not model.config.class_token:
        raise ValueError(
            f"{arguments.weights}: the model has no class token, whose map this page is about; "
            "look at a patch's: visualize.py attention --patch 0,0"
        )
    return draw_pictures(
        arguments.pictures,
        arguments.out,
        partial(_draw, model, arguments, _half_precision(arguments)),
        outputs=outputs_of(arguments),
        scene=arguments.seed,
        scene_size=model.preprocess.image_size,
        file_format=arguments.format,
        dpi=arguments.dpi,
        debug=arguments.debug,
    )


def _half_precision(arguments: argparse.Namespace) -> torch.dtype | None:
    """The precision of --dtype, or that of the weights in the file; None: not a half one."""
    import torch

    from minivit.checkpoint import load_model

    if arguments.dtype != "stored":
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[arguments.dtype]
    stored = load_model(arguments.weights, dtype=None)  # mapped, not read
    dtypes = {weight.dtype for weight in stored.parameters()}
    smallest = min(dtypes, key=lambda dtype: dtype.itemsize)
    return smallest if smallest.itemsize < 4 else None


def _draw(
    model: VisionTransformer,
    arguments: argparse.Namespace,
    half: torch.dtype | None,
    picture: Picture,
) -> Drawing:
    import torch

    from minivit.attention import AttentionRows
    from minivit.explain import class_attention, outlier_tokens
    from minivit.explain.describe.doctor import examine, longest_tokens_block
    from minivit.viz import doctor_figure
    from minivit.viz.doctor_figures import symptom_lines

    images = model.preprocess(picture.seen)[None].to(next(model.parameters()).device)
    symptoms = examine(model, images, photo_size=picture.seen.size, half=half)
    block = longest_tokens_block(model, images)
    with torch.inference_mode():
        rows = AttentionRows(blocks=[-1], queries=[0])
        attention = class_attention(model(images, return_attention=rows)[1])[0]  # (rows, cols)
    figure = doctor_figure(
        model.preprocess.view(picture.seen),
        attention,
        outlier_tokens(model, images, block=block).norms[0],
        symptoms,
        block=block,
        colour_map=arguments.colour_map,
        heading=heading(
            arguments,
            f"{picture.name}: what may be wrong with its maps\n"
            f"weights: {weights_title(arguments.weights)}",
        ),
    )
    lines = []
    for title, text in symptom_lines(symptoms):
        lines += [title, f"  {text}"] if text else [title]
    return Drawing(figure, shipped_remark(arguments.weights), lines=lines)
