"""visualize.py explain: from flags to a figure a photo, a panel a method."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from minivit.commands.explain_flags import DEFAULT_METHODS
from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import Drawing, Picture, draw_pictures, heading
from minivit.commands.seen import check_cost, predicted_label, shipped_remark, whole_photo
from minivit.commands.target import class_number
from minivit.commands.terminal import one_line
from minivit.weights import weights_title

if TYPE_CHECKING:
    from torch import Tensor

    from minivit.explain.methods.integrated_gradients import Integral
    from minivit.vit import VisionTransformer

_INEXACT = 0.05  # completeness error as a part of the difference above which the figure says so


def explain(model: VisionTransformer, arguments: argparse.Namespace) -> int:
    """Writes a figure for each photo.

    Returns:
        The exit status.

    Raises:
        ValueError: No such method or class, a method that is named does not work for the model, or
            a figure would overwrite a photo.
        OSError: A figure cannot be written.
    """
    target = None if arguments.target is None else class_number(model, arguments.target)
    methods = _choose_methods(model, arguments)
    return draw_pictures(
        arguments.pictures,
        arguments.out,
        partial(_draw, model, arguments, methods, target),
        outputs=outputs_of(arguments),
        scene=arguments.seed,
        scene_size=model.preprocess.image_size,
        file_format=arguments.format,
        dpi=arguments.dpi,
        debug=arguments.debug,
    )


# ---- what the flags choose -----------------------------------------------------------------------


def _choose_methods(model: VisionTransformer, arguments: argparse.Namespace) -> list[str]:
    """The methods of --methods; of those that were not named, the ones that work for the model.

    Raises:
        ValueError: A method that is named does not exist, or does not work for the model.
    """
    from minivit.explain import METHODS

    given: Sequence[str] = arguments.methods or DEFAULT_METHODS
    named = arguments.methods not in (None, ("all",))
    names = list(METHODS) if given == ("all",) else list(given)
    for name in names:
        if name not in METHODS:
            raise ValueError(
                f"--methods {name}: no method is called so; choose from {', '.join(METHODS)}, or "
                "give all"
            )
    usable, refusals = _try_methods(model, names)
    for name, reason in refusals.items():
        line = one_line(ValueError(reason)).removeprefix("error: ")
        if named:
            raise ValueError(f"--methods {name}: {arguments.weights}: {line}; leave it out")
        print(f"left out: {name} ({line})", file=sys.stderr)
    return usable


def _try_methods(
    model: VisionTransformer, names: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Which methods work for a model, tried on a picture of two by two patches: that takes no time.

    Returns:
        Those that work; and the name of each other one, with the reason that it gave.
    """
    import torch

    from minivit.explain import METHODS, Example
    from minivit.explain.scoring.score import usable_methods

    height, width = model.config.patch_size
    picture = torch.zeros(model.config.in_channels, 2 * height, 2 * width)
    methods = {name: METHODS[name] for name in names}
    usable, refusals = usable_methods(model, Example(picture), methods)
    return list(usable), refusals


# ---- a photo -------------------------------------------------------------------------------------


def _draw(
    model: VisionTransformer,
    arguments: argparse.Namespace,
    methods: Sequence[str],
    target: int | None,
    picture: Picture,
) -> Drawing:
    """Makes the maps of a picture and draws them.

    Raises:
        minivit.BadImageError: The picture cannot be used.
    """
    from tqdm import tqdm

    from minivit.explain.conditions import class_numbers, fixed
    from minivit.explain.methods.table import COMPLETE, FOR_A_CLASS, METHODS, SIGNED
    from minivit.explain.scoring.batching import Batch, maps_of
    from minivit.viz import methods_figure

    preprocess = whole_photo(model) if arguments.whole else model.preprocess
    check_cost(model, preprocess, picture.seen)
    images = preprocess(picture.seen)[None].to(next(model.parameters()).device)  # (1, C, H, W)
    classes = None
    label, explained = "", "No class is explained: the model has no head"
    if model.config.num_classes:
        with fixed(model):
            logits = model(images)
        classes = class_numbers(model, target, logits)
        label = predicted_label(model, logits[0])
        explained = _describe_class(model, logits[0], target)

    maps: dict[str, Tensor] = {}
    remarks = []
    # disable=None: a bar on a terminal only, as for photos.
    for name in tqdm(methods, unit="method", disable=None, leave=False):
        if name in COMPLETE:
            integral = COMPLETE[name](model, images, classes, steps=arguments.steps)
            maps[name] = integral.maps[0].cpu()
            remarks.append(f"{name}: {_completeness(integral)}")
        else:
            batch = Batch([0], images, None)
            maps[name] = maps_of(METHODS[name], model, batch, classes, arguments.seed)[0]
    lines = [f"{picture.name}: {remark}" for remark in remarks]
    others = [name for name in maps if name not in FOR_A_CLASS]
    if others and classes is not None:
        remarks.append(f"the same for every class: {', '.join(others)}")
    figure = methods_figure(
        picture.photo,
        picture.in_photo(preprocess.crop_box(*picture.seen.size)),
        maps,
        signed=SIGNED,
        smooth=arguments.smooth,
        colour_map=arguments.colour_map,
        heading=heading(arguments, f"{explained}\nweights: {weights_title(arguments.weights)}"),
        photo_title=picture.name + label,
        notes="\n".join(remarks),
    )
    return Drawing(figure, shipped_remark(arguments.weights), lines=lines)


def _describe_class(model: VisionTransformer, logits: Tensor, target: int | None) -> str:
    """The explained class by number and label, its probability, and why it is the one."""
    odds = logits.float().softmax(dim=-1)
    number = int(odds.argmax()) if target is None else target
    label = f" {model.labels[number]}" if model.labels else ""
    why = "the predicted one" if target is None else "given by --target"
    return f"Explained: class {number}{label} ({float(odds[number]):.1%}), {why}"


def _completeness(integral: Integral) -> str:
    """What the parts sum to, what they should, and how far off they are, for one picture."""
    difference, error = float(integral.difference), float(integral.error)
    share = abs(error / difference) if difference else math.inf
    advice = "" if share <= _INEXACT else "; not to be trusted, give more --steps"
    return (
        f"the parts sum to {difference + error:.4g}, the logit minus that of the mean colour is "
        f"{difference:.4g}: completeness error {abs(error):.2g} ({share:.1%}){advice}"
    )
