"""Flags, and values of flags, that several commands of visualize.py share.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minivit.commands.outputs import add_overwrite
from minivit.files import FIGURE_FORMATS
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
    command: argparse.ArgumentParser, weights: str = "scenes", *, kinds: str = "", folder: str = ""
) -> None:
    """Adds --weights, with shipped ones as the default, --out and --overwrite.

    Args:
        command: Parser that gets the flags.
        weights: Name of the shipped weights.
        kinds: Words that say which models the command takes, where there are several.
        folder: Folder below runs/visualize for a command whose figures are called like those of
            `attention`, so that none is in another's way.
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
        default=Path("runs/visualize", folder),
        metavar="DIR",
        help="folder of the files, made when it is not there; or the name of a figure, where there "
        "is one alone, whose ending says the format: FILE.pdf, .svg or .png (default: %(default)s)",
    )
    add_overwrite(command)


def add_figure_flags(command: argparse.ArgumentParser, *, colours: bool = True) -> None:
    """Adds --format, --dpi and --no-heading, for figures that go into a text; and --cmap.

    Args:
        command: Parser that gets the flags.
        colours: Whether there are maps whose colours can be chosen.
    """
    group = command.add_argument_group("figures for a text")
    group.add_argument(
        "--format",
        choices=FIGURE_FORMATS,
        help="pdf and svg keep words as text; fonts are in the pdf (default: the ending of --out "
        "FILE, else png)",
    )
    group.add_argument(
        "--dpi",
        type=_dpi,
        metavar="N",
        help="dots per inch, of a pdf or svg those of photos and maps (default: png 140, pdf and "
        "svg 300)",
    )
    group.add_argument(
        "--no-heading",
        action="store_true",
        help="leave out the lines above the figure, which the caption in a text says anyway",
    )
    if colours:
        group.add_argument(
            "--cmap",
            dest="colour_map",
            type=_colour_map,
            default="viridis",
            metavar="NAME",
            help="matplotlib's colour map for values without a middle, such as magma or Greys "
            "(default: %(default)s)",
        )


def _dpi(text: str) -> int:
    if not text.isdecimal() or not 20 <= int(text) <= 1200:
        raise argparse.ArgumentTypeError(f"expected a whole number from 20 to 1200; found {text!r}")
    return int(text)


def _colour_map(name: str) -> str:
    """The name of a colour map that matplotlib has, which is imported for a name that is given."""
    if name == "viridis":
        return name
    import difflib

    from matplotlib import colormaps

    if name not in colormaps:
        near = ", ".join(difflib.get_close_matches(name, list(colormaps), cutoff=0.5))
        raise argparse.ArgumentTypeError(
            f"matplotlib has no colour map {name!r}; "
            + (f"did you mean one of {near}?" if near else "take one such as magma or Greys")
        )
    return name


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
