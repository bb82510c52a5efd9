"""The flags of visualize.py model.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse

from minivit.commands.shared_flags import add_figure_flags, add_model_flags
from minivit.commands.terminal import Parser, add_common_flags

NUM_SCENES = 32


def add_model(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command and its flags."""
    command = commands.add_parser(
        "model",
        help="what a model is like: its filters, its positions, how far its heads look",
        description="Writes DIR/model.png: the first principal components of the patch filters and "
        "the similarity of position embeddings (figure 7 of the ViT paper), the mean distance at "
        "which each head looks (figure 11) and the entropy of its attention. Prints the numbers of "
        "the last two, a line a block. Blocks and heads are counted from 0.",
    )
    command.add_argument(
        "pictures",
        metavar="IMAGE",
        nargs="*",
        help="photos, or folders of them, over which distance and entropy are averaged; all have "
        f"to be usable (default: {NUM_SCENES} built-in scenes that were held out from training, "
        "from number --seed on)",
    )
    add_model_flags(command)
    add_figure_flags(command)
    add_common_flags(command)
