"""Flags, and values of flags, that several commands of visualize.py share.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minivit.commands.outputs import add_overwrite
from minivit.weights import SHIPPED, find_weights


def add_pictures(command: argparse.ArgumentParser) -> None:
    """Adds IMAGE…, photos that get a figure each."""
    command.add_argument(
        "pictures",
        metavar="IMAGE",
        nargs="*",
        help="photos, or folders, which stand for the photos in them (those of folders inside are "
        "left out); none: a built-in scene that was held out from training, number --seed",
    )


def add_model_flags(
    command: argparse.ArgumentParser, weights: str = "scenes", *, kinds: str = ""
) -> None:
    """Adds --weights, with shipped ones as the default, --out and --overwrite.

    Args:
        command: Parser that gets the flags.
        weights: Name of the shipped weights.
        kinds: Words that say which models the command takes, where there are several.
    """
    command.add_argument(
        "--weights",
        type=find_weights,
        default=SHIPPED[weights],
        metavar="W",
        help=f"a minivit checkpoint{kinds}, or the name of a shipped one, trained on the built-in "
        f"scenes (default: {weights})",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("runs/visualize"),
        metavar="DIR",
        help="folder of the files; made when it is not there (default: %(default)s)",
    )
    add_overwrite(command)


def add_shape(command: argparse.ArgumentParser) -> None:
    """Adds --whole, and --cells or --smooth."""
    command.add_argument(
        "--whole",
        action="store_true",
        help="show the model the whole photo, on a grid that is not square, instead of the crop "
        "that it was trained on",
    )
    shape = command.add_mutually_exclusive_group()
    shape.add_argument(
        "--cells",
        dest="smooth",
        action="store_false",
        help="draw each patch as one rectangle of one colour (the default)",
    )
    shape.add_argument(
        "--smooth",
        action="store_true",
        help="interpolate between the middles of the patches",
    )
    command.set_defaults(smooth=False)


def method_names(text: str) -> tuple[str, ...]:
    """ "attention, input-gradient" -> ("attention", "input_gradient")."""
    names = [name.strip().lower().replace("-", "_") for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"expected names of methods, such as attention,rollout; found {text!r}"
        )
    return tuple(dict.fromkeys(names))
