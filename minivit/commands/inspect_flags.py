"""The flags of visualize.py ablate and doctor, which look into a model.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse

from minivit.commands.shared_flags import add_figure_flags, add_model_flags, add_pictures
from minivit.commands.terminal import Parser, add_common_flags


def add_ablate(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command that ranks parts of a model, and its flags."""
    command = commands.add_parser(
        "ablate",
        help="which heads and MLPs the class, or a word of the caption, depends on",
        description="Replaces each head and each MLP alone and asks for the log-probability of the "
        "class again; of a captioner, for that of its caption. Writes DIR/<image stem>.png, a grid "
        "of all parts, and DIR/<image stem>.csv; prints the ten strongest. Below 0: the class "
        "depends on the part. Parts that stand in for each other both look as if they did not "
        "matter.",
    )
    add_pictures(command)
    add_model_flags(command, kinds=" of a Vision Transformer or a captioner", folder="ablate")
    command.add_argument(
        "--target",
        type=_target,
        metavar="LABEL|NUMBER",
        help="the class, by label or number; of a captioner, a word of its caption or the word's "
        "place, counted from 0 (default: the predicted class, the whole caption)",
    )
    command.add_argument(
        "--parts",
        choices=("heads", "mlps", "all"),
        default="all",
        help="what is replaced (default: %(default)s)",
    )
    command.add_argument(
        "--replace",
        choices=("zero", "mean"),
        default="zero",
        help="what takes a part's place: zeros, or its mean over all tokens of the picture "
        "(default: %(default)s)",
    )
    add_figure_flags(command, colours=False)
    add_common_flags(command)


def add_doctor(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command that says why a map looks bad, and its flags."""
    command = commands.add_parser(
        "doctor",
        help="why a map looks bad, in one page",
        description="Writes DIR/<image stem>.png for each photo: what the model saw, the class "
        "token's map, the lengths of the tokens, and what is wrong with them; prints the same. "
        "Each finding has its number, the threshold and what to do. Where nothing is found, the "
        "numbers that were looked at are given.",
    )
    add_pictures(command)
    add_model_flags(command, folder="doctor")
    command.add_argument(
        "--dtype",
        choices=("stored", "bf16", "fp16"),
        default="stored",
        help="precision in which the class token's rows are computed once more, to be compared "
        "with float32 (default: that of the weights in the file; none for float32)",
    )
    add_figure_flags(command)
    add_common_flags(command)


def _target(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a label or a number; found nothing")
    return text
