"""The commands of visualize.py and their flags.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from minivit.commands.explain_flags import add_explain
from minivit.commands.explore_flags import add_explore
from minivit.commands.inspect_flags import add_ablate, add_doctor
from minivit.commands.model_flags import add_model
from minivit.commands.score_flags import add_score
from minivit.commands.shared_flags import (
    add_figure_flags,
    add_model_flags,
    add_pictures,
    add_shape,
)
from minivit.commands.terminal import Parser, add_common_flags, program_name


def make_parser() -> Parser:
    """A parser of all commands and flags; its `command` is the name of the command."""
    parser = Parser(
        prog=program_name("visualize.py"),
        description="Pictures of what a Vision Transformer, or a captioner, looks at.",
        epilog="Without a command: attention, of the photos that are given, or of a built-in "
        "scene with the shipped weights.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_attention(commands)
    _add_positions(commands)
    _add_caption(commands)
    add_score(commands)
    add_explain(commands)
    add_explore(commands)
    add_model(commands)
    add_ablate(commands)
    add_doctor(commands)
    return parser


def with_command(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """The words, with `attention` before them where they begin with a photo, a folder or a flag.

    Args:
        words: Words of the command line.
        commands: Names of the commands; a folder that is called like one is `./model`.
    """
    first = words[0] if words else "-"
    if first in commands or first in ("-h", "--help", "--version"):
        return list(words)
    is_image = "." in first or os.sep in first or os.path.exists(first)
    return ["attention"] * (is_image or first.startswith("-")) + list(words)


# ---- commands ------------------------------------------------------------------------------------


def _add_attention(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "attention",
        help="where the class token, or any patch, looks",
        description="Writes DIR/<image stem>.png for each photo: the photo, the attention of the "
        "class token averaged over heads, and one panel a head. Blocks, heads, rows and cols are "
        "counted from 0.",
    )
    add_pictures(command)
    add_model_flags(command)
    command.add_argument(
        "--block",
        type=int,
        metavar="N",
        help="which block; negative numbers count from the last (default: the last; with --box or "
        "--mask the table is of all blocks, and the figure of the one whose head gives most)",
    )
    command.add_argument(
        "--heads",
        type=_heads,
        default="all",
        metavar="0,2|all",
        help="which heads get a panel; the average is always over all (default: %(default)s)",
    )
    command.add_argument(
        "--patch",
        "--query",  # the name before
        dest="patch",
        type=_patch,
        metavar="ROW,COL",
        help="the patch that looks (default: the class token)",
    )
    region = command.add_mutually_exclusive_group()
    region.add_argument(
        "--box",
        type=_box,
        metavar="X0,Y0,X1,Y1",
        help="a part of the photo in its pixels, upright, from the top left: outlined, with the "
        "share of each head inside it over its part of the picture; heads are ranked, ten printed "
        "and all written to DIR/<image stem>.csv",
    )
    region.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="the same for the object of a mask: a PNG of the photo's size, read as those of "
        "visualize.py score",
    )
    _add_shared_scale(command, "heads")
    add_shape(command)
    add_figure_flags(command)
    add_common_flags(command)


def _add_positions(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "positions",
        help="how similar the position embeddings are to one another",
        description="Writes DIR/positions.png: for each patch a small map of the cosine "
        "similarity between its position embedding and all others (the ViT paper's figure 7). Of a "
        "grid of more than 14 rows or columns it draws 14 of them, evenly spaced.",
    )
    add_model_flags(command)
    command.add_argument(
        "--all",
        action="store_true",
        help="draw the maps of every patch of a large grid, to be zoomed into",
    )
    add_figure_flags(command)
    add_common_flags(command)


def _add_caption(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "caption",
        help="a sentence, and where the captioner looked for each word",
        description="Writes DIR/<image stem>.png for each photo: the photo under its caption, and "
        "one panel a word with what the captioner looked at. Prints the captions. Blocks and heads "
        "are counted from 0.",
    )
    add_pictures(command)
    add_model_flags(command, "scenes_captioner", folder="caption")
    command.add_argument(
        "--text",
        metavar="SENTENCE",
        help="a sentence of your own instead of the captioner's: how likely it finds each word, "
        "and where it looks",
    )
    command.add_argument(
        "--beam-size",
        type=int,
        default=1,
        metavar="N",
        help="sentences followed at a time; 1 takes the likeliest word each time "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--sample",
        type=_seed,
        metavar="SEED",
        help="draw each word by chance instead: another seed, another sentence",
    )
    command.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="with --sample: below 1 likely words become likelier, above 1 less so (default: 1)",
    )
    command.add_argument(
        "--top-p",
        type=_probability,
        metavar="P",
        help="with --sample: draw from the fewest words that reach this probability together "
        "(default: 1, all words)",
    )
    command.add_argument(
        "--top-k",
        type=_positive,
        metavar="K",
        help="with --sample: draw from the K likeliest words (default: all)",
    )
    command.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="most word-pieces of a sentence, its start counted (default: what the weights allow)",
    )
    command.add_argument(
        "--block",
        "--layer",
        dest="block",
        type=int,
        metavar="N",
        help="which decoder block; negative numbers count from the last (default: block and head "
        "that point best by the scores stored with the weights, which the title says; without "
        "scores, or with --head, the last)",
    )
    command.add_argument(
        "--head",
        type=int,
        metavar="N",
        help="which of its heads (default: as for --block; with --block, the mean over all)",
    )
    _add_shared_scale(command, "words")
    command.add_argument(
        "--relative",
        action="store_true",
        help="divide each map by the mean over the words: what this word looks at more than others",
    )
    command.add_argument(
        "--align",
        choices=("predicts", "reads"),
        default="predicts",
        help="a word's map is that of the step that predicts it, or of the next step, which reads "
        "it (default: %(default)s)",
    )
    command.add_argument(
        "--layout",
        type=_layout,
        metavar="ROWSxCOLS",
        help="a page of so many places, such as 4x4 for the photo and 15 words; the figure names "
        "words that do not fit (default: as many as it takes)",
    )
    add_figure_flags(command)
    add_common_flags(command)


def _add_shared_scale(command: Parser, panels: str) -> None:
    command.add_argument(
        "--shared-scale",
        action="store_true",
        help=f"one scale of colours for all panels, so that {panels} can be compared by colour "
        "(default: each panel from 0 to its own maximum)",
    )


# ---- values of flags -----------------------------------------------------------------------------


def _heads(text: str) -> tuple[int, ...] | None:
    """ "0,2" -> (0, 2); "all" -> None."""
    if text == "all":
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected all, or head numbers from 0 such as 0,2; found {text!r}"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def _patch(text: str) -> tuple[int, int]:
    """ "3,5" -> (3, 5)."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected ROW,COL, both counted from 0, such as 3,5; found {text!r}"
        )
    return int(parts[0]), int(parts[1])


def _box(text: str) -> tuple[float, float, float, float]:
    """ "300,40,420,180" -> (300.0, 40.0, 420.0, 180.0)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 4 and all(part.isdecimal() for part in parts):
        left, top, right, bottom = map(float, parts)
        if left < right and top < bottom:
            return left, top, right, bottom
    raise argparse.ArgumentTypeError(
        "expected X0,Y0,X1,Y1 in pixels, from 0, with X0 < X1 and Y0 < Y1, such as 300,40,420,180; "
        f"found {text!r}"
    )


def _layout(text: str) -> tuple[int, int]:
    """ "4x5" -> (4, 5)."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 1 <= int(part) <= 20 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected ROWSxCOLS from 1x1 to 20x20, such as 4x4; found {text!r}"
        )
    return int(parts[0]), int(parts[1])


def _seed(text: str) -> int:
    return _whole_number(text, 0, 2**63 - 1)


def _positive(text: str) -> int:
    return _whole_number(text, 1, 2**31 - 1)


def _whole_number(text: str, lowest: int, highest: int) -> int:
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {lowest} to {highest}; found {text!r}"
        )
    return int(text)


def _temperature(text: str) -> float:
    return _number(text, 0.01, 100)  # a smaller one would make logits infinite


def _probability(text: str) -> float:
    return _number(text, 0.001, 1)


def _number(text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(
            f"expected a number from {lowest} to {highest}; found {text!r}"
        )
    return value
