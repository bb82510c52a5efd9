"""visualize.py explore: from flags to one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minivit.commands.outputs import outputs_of, unwritable
from minivit.commands.pictures import complaint
from minivit.commands.score_words import read_scores
from minivit.commands.seen import check_cost, whole_photo
from minivit.commands.terminal import say
from minivit.weights import weights_title

if TYPE_CHECKING:
    from minivit.captioner import Captioner
    from minivit.explorer.gather import PagePicture
    from minivit.vit import VisionTransformer


def explore(model: VisionTransformer | Captioner, arguments: argparse.Namespace) -> int:
    """Writes the page; a photo that cannot be used is named and left out.

    Returns:
        The exit status.

    Raises:
        ValueError: No such method, a flag of the other kind of model, no photo can be used, the
            page would overwrite an input or another page, or --scores is no table of scores.
        OSError: The page cannot be written.
    """
    from minivit.explain import METHODS
    from minivit.explorer import write_page

    methods = arguments.methods
    if methods == ("all",):
        methods = tuple(name for name in METHODS if name != "attention")
    for name in methods or ():
        if name not in METHODS:
            raise ValueError(
                f"--methods {name}: no method is called so; choose from {', '.join(METHODS)}, or "
                "give all"
            )
    outputs = outputs_of(arguments)
    mark = outputs.mark(*arguments.pictures)
    outputs.claim({arguments.out: mark})
    options = _options(model, arguments)
    status, pictures = _pictures(model, arguments)
    if not pictures:
        raise ValueError("no photo can be used: see the lines above")
    try:
        write_page(
            model,
            pictures,
            arguments.out,
            methods=methods,
            name=weights_title(arguments.weights),
            mark=mark,
            **options,
        )
    except OSError as error:
        raise unwritable(arguments.out, error) from error
    say(arguments.out)
    return status


def _options(model: VisionTransformer | Captioner, arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `write_page` for this kind of model.

    Raises:
        ValueError: A flag of the other kind, or --scores is no table of scores.
    """
    from minivit.captioner import Captioner

    if isinstance(model, Captioner):
        for flag in ("methods", "scores", "whole"):
            if getattr(arguments, flag):
                raise ValueError(
                    f"--{flag}: only for a Vision Transformer, {arguments.weights} holds a "
                    "captioner; leave it out"
                )
        return {"beam_size": arguments.beam_size, "max_length": arguments.max_length}
    if arguments.beam_size != 1 or arguments.max_length is not None:
        raise ValueError(
            f"--beam-size, --max-length: only a captioner writes sentences, {arguments.weights} "
            "holds a Vision Transformer; leave them out"
        )
    return {
        "preprocess": whole_photo(model) if arguments.whole else None,
        "scores": read_scores(arguments.scores) if arguments.scores is not None else None,
    }


def _pictures(
    model: VisionTransformer | Captioner, arguments: argparse.Namespace
) -> tuple[int, list[PagePicture]]:
    """The exit status so far, and the pictures that can be used."""
    from minivit.captioner import Captioner
    from minivit.data.scenes.dataset import TEST_SEED, make_scene, scene_layers
    from minivit.explorer.gather import PagePicture
    from minivit.preprocess import BadImageError, open_image

    if not arguments.pictures:
        numbers = range(arguments.seed, arguments.seed + arguments.scenes)
        size = model.preprocess.image_size
        return 0, [
            PagePicture(
                f"scene {n}",
                make_scene(TEST_SEED, n, image_size=size).image,
                scene_layers(TEST_SEED, n, image_size=size),
            )
            for n in numbers
        ]
    status, pictures = 0, []
    for path in arguments.pictures:
        try:
            picture = PagePicture(Path(path).name, open_image(path))
            if isinstance(model, Captioner):
                model.preprocess.view_size(*picture.image.size)
            else:
                preprocess = whole_photo(model) if arguments.whole else model.preprocess
                check_cost(model, preprocess, picture.image, all_maps=True)
            pictures.append(picture)
        except BadImageError as error:
            if arguments.debug:
                raise
            print(complaint(path, error), file=sys.stderr)
            status = 2
    return status, pictures
