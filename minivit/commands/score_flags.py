"""The flags of visualize.py score.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minivit.commands.outputs import add_overwrite
from minivit.commands.shared_flags import add_figure_flags, method_names
from minivit.commands.terminal import Parser, add_common_flags, at_least_one
from minivit.weights import SHIPPED, find_weights


def add_score(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command and its flags."""
    command = commands.add_parser(
        "score",
        help="how far maps can be trusted: beside masks, by removed patches, by random weights",
        description="Writes DIR/scores.md and scores.csv, a row a method of explanation, and "
        "curves.png with its numbers in curves.csv. With masks, or on the built-in scenes: does "
        "the map point at the object, how much of it lies there, how good a mask is it, all beside "
        "chance and beside the same map of random weights. Without: does the predicted class go "
        "with the patches that the map ranks first, does the map go when blocks become random, "
        "which maps agree. A random map, a blob in the centre and edges are always scored too.",
        epilog="Example: visualize.py score --weights W --data PHOTOS --masks MASKS --heads "
        "--limit 50 --out runs/pets_score",
    )
    command.add_argument(
        "--weights",
        type=find_weights,
        default=SHIPPED["scenes"],
        metavar="W",
        help="a minivit checkpoint of a Vision Transformer, or the name of a shipped one (default: "
        "scenes)",
    )
    command.add_argument(
        "--data",
        default="scenes",
        metavar="DIR",
        help="folder of photos, or scenes: built-in ones that no training has seen, whose objects "
        "are known (default: %(default)s)",
    )
    command.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of PNG masks with the photos' names and sizes. Values of 1, 2 and 3 alone are "
        "a trimap as of Oxford-IIIT Pets: object, background, border (left out); 0 and 255 alone "
        "are black and white, the object is white; else the object is what is above 0, and 255 is "
        "left out",
    )
    command.add_argument(
        "--methods",
        type=method_names,
        metavar="A,B",
        help="methods to score (default: all that work for the model)",
    )
    command.add_argument(
        "--heads",
        type=int,
        nargs="?",
        const=-1,
        metavar="BLOCK",
        help="a row for each head of a block too, the last where no number is given; and one for "
        "the head that was chosen on the other half of the pictures",
    )
    command.add_argument(
        "--limit",
        type=at_least_one,
        metavar="N",
        help="N photos, evenly spaced, or the first N scenes (default: all photos, 100 scenes)",
    )
    command.add_argument(
        "--probes",
        type=at_least_one,
        default=16,
        metavar="N",
        help="pictures, evenly spaced, for what needs no masks: dozens of passes each (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--draws",
        type=at_least_one,
        default=3,
        metavar="N",
        help="draws of random weights (default: %(default)s)",
    )
    command.add_argument(
        "--crop-fraction",
        type=float,
        metavar="F",
        help="part of the resized photo that is kept, 1: the whole square (default: the model's)",
    )
    command.add_argument(
        "--batch-size",
        type=at_least_one,
        default=8,
        metavar="N",
        help="pictures computed together (default: %(default)s)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("runs/score"),
        metavar="DIR",
        help="folder of the four files; made when it is not there (default: %(default)s)",
    )
    add_overwrite(command)
    add_figure_flags(command, colours=False)
    add_common_flags(command)
