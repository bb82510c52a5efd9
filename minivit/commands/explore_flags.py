"""The flags of visualize.py explore.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minivit.commands.outputs import add_overwrite
from minivit.commands.shared_flags import method_names
from minivit.commands.terminal import Parser, add_common_flags, at_least_one
from minivit.weights import SHIPPED, find_weights


def add_explore(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command and its flags."""
    command = commands.add_parser(
        "explore",
        help="one HTML page: attention to click through, and a small model that runs in it",
        description="Writes one page that works from disk, without a network: where each patch "
        "looks and who looks at it, in every block and head, maps of other methods, the "
        "prediction, the positions. A model of up to 4 M weights rides along and runs in the page: "
        "switch its heads off, take patches away. Of a larger one the page holds queries and keys. "
        "Of a captioner: its sentence, and for each word where it looked and what else was likely.",
        epilog="Example: visualize.py explore PHOTO.jpg --weights W --out page.html",
    )
    command.add_argument(
        "pictures",
        metavar="IMAGE",
        nargs="*",
        help="photos, or folders of them; none: built-in scenes",
    )
    command.add_argument(
        "--weights",
        type=find_weights,
        default=SHIPPED["scenes"],
        metavar="W",
        help="a minivit checkpoint of a Vision Transformer or a captioner, or the name of a "
        "shipped one (default: scenes)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("runs/visualize/explore.html"),
        metavar="PAGE",
        help="the page; folders above it are made (default: %(default)s)",
    )
    add_overwrite(command)
    command.add_argument(
        "--methods",
        type=method_names,
        metavar="A,B|all",
        help="methods of explanation whose maps the page holds beside attention (default: a few, "
        "of a large model rollout and value_norm)",
    )
    command.add_argument(
        "--scores",
        type=Path,
        metavar="CSV",
        help="scores.csv of visualize.py score for these weights: the figures stand beside the "
        "methods' names (default: of the shipped ViT those on scenes, which are known; else none)",
    )
    command.add_argument(
        "--whole",
        action="store_true",
        help="show the model the whole photo, on a grid that is not square, instead of the crop "
        "that it was trained on",
    )
    command.add_argument(
        "--beam-size",
        type=at_least_one,
        default=1,
        metavar="N",
        help="captioner: sentences followed at a time, which the page lists (default: %(default)s)",
    )
    command.add_argument(
        "--max-length",
        type=at_least_one,
        metavar="N",
        help="captioner: greatest number of tokens of a sentence, the start token counted "
        "(default: all that it has)",
    )
    command.add_argument(
        "--scenes",
        type=at_least_one,
        default=4,
        metavar="N",
        help="built-in scenes of a page without photos, from number --seed (default: %(default)s)",
    )
    add_common_flags(command)
