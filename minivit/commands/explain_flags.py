"""The flags of visualize.py explain.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse

from minivit.commands.shared_flags import (
    add_figure_flags,
    add_model_flags,
    add_pictures,
    add_shape,
    method_names,
)
from minivit.commands.terminal import Parser, add_common_flags, at_least_one

DEFAULT_METHODS = (
    "attention",
    "rollout",
    "relevance",
    "attention_gradient",
    "legrad",
    "integrated_gradients",
    "centre",
)


def add_explain(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command and its flags."""
    names = ", ".join(DEFAULT_METHODS)
    command = commands.add_parser(
        "explain",
        help="what a class depends on, by several methods side by side",
        description="Writes DIR/<image stem>.png for each photo: the photo, and one panel a method "
        "of explanation, each on the scale that its title gives. Where a method promises that its "
        "map sums to a difference of logits, the error of the sum is printed. `visualize.py score` "
        "says how far to trust which method.",
        epilog="Example: visualize.py explain PHOTO.jpg --methods attention,relevance,occlusion "
        "--target 'tabby, tabby cat' --weights W --out runs/explain",
    )
    add_pictures(command)
    add_model_flags(command, folder="explain")
    command.add_argument(
        "--methods",
        type=method_names,
        metavar="A,B|all",
        help=f"methods that get a panel, in this order (default: {names}; of these, and of all, "
        "those that the model has no use for are left out)",
    )
    command.add_argument(
        "--target",
        metavar="LABEL|NUMBER",
        help="the class to explain: its label as the weights have it, or its number from 0 "
        "(default: the predicted one)",
    )
    command.add_argument(
        "--steps",
        type=at_least_one,
        default=32,
        metavar="N",
        help="gradients that integrated_gradients adds up; the more, the smaller the error of its "
        "sum (default: %(default)s)",
    )
    add_shape(command)
    add_figure_flags(command)
    add_common_flags(command)
