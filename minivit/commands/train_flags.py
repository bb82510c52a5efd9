"""The commands of train.py and their flags.

Nothing here imports torch, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from minivit.commands.outputs import add_overwrite
from minivit.commands.terminal import Parser, add_common_flags, program_name
from minivit.weights import find_weights

Commands = argparse._SubParsersAction


def make_parser(description: str) -> Parser:
    """All commands and flags; `command` of what it parses is the command's name."""
    parser = Parser(
        prog=program_name("train.py"),
        description=description,
        epilog="Without a command: classify, on the built-in scenes.",
    )
    commands = parser.add_subparsers(
        dest="command", title="commands", required=True, metavar="COMMAND"
    )
    _add_classify(commands)
    _add_caption(commands)
    _add_evaluate(commands)
    _add_preview(commands)
    _add_sweep(commands)
    _add_report(commands)
    _add_recipes(commands)
    _add_keys(commands)
    return parser


def given_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of a recipe that have a flag of their own and were given by it.

    The texts of --set, which can be any key, are left as they are in `arguments.settings`.
    """
    flags = {name: getattr(arguments, name) for name in arguments.recipe_keys}
    return {name: value for name, value in flags.items() if value is not None}


def _add_classify(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "classify",
        help="train a classifier (the default)",
        description="Trains a ViT on the built-in scenes, or on photos: one folder a class "
        "(train/CLASS/*.jpg and val/), files named by class (train/26_5064.jpg), Oxford-IIIT Pets "
        "as published, a CSV file (file,label), or the IDX files of Fashion-MNIST. What was "
        "recognised is printed.",
    )
    how = _add_recipe_flags(
        command,
        "a name inside the package or a TOML file (default: scenes; for photos with --weights "
        "pets_sgd, for IDX files fashion_mnist)",
    )
    _add_minutes(how)
    command.add_argument(
        "--strict",
        action="store_const",
        const=True,
        help="stop at the first photo that cannot be read, instead of leaving such photos out",
    )
    command.add_argument(
        "--labels",
        metavar="FILE",
        help='names of the classes, in JSON ({"29": "Samoyed"} or a list) or one a line '
        "(default: classes.json or classes.txt beside the photos, where there is one; folders: "
        "what folders or files say)",
    )
    _add_run_flags(command)
    _set_recipe_keys(command, "strict", "labels")
    add_common_flags(command, seed=None)


def _add_caption(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "caption",
        help="train a captioner",
        description="Trains a captioner on the built-in scenes, on COCO captions, Flickr8k, or a "
        "CSV file (file,caption). Weights: a captioner to train further, or the backbone of a new "
        "one, a ViT or a ResNet (default: for scenes the shipped ViT).",
    )
    how = _add_recipe_flags(
        command,
        "a name inside the package or a TOML file (default: scenes_captioner; for photos "
        "catr_coco)",
    )
    _add_minutes(how)
    command.add_argument("--vocab", metavar="FILE", help="word-pieces of a new captioner of photos")
    command.add_argument(
        "--skip-missing",
        action="store_const",
        const=True,
        help="leave out captions of photos that are not there, and say how many",
    )
    command.add_argument("--backbone-lr", type=float, metavar="RATE", help="0: it stays")
    command.add_argument("--label-smoothing", type=float, metavar="SHARE")
    _add_run_flags(command)
    _set_recipe_keys(command, "vocab", "skip_missing", "backbone_lr", "label_smoothing")
    add_common_flags(command, seed=None)


def _add_evaluate(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="accuracy of a classifier, and its answers as CSV",
        description="Prints accuracy, calibration and speed on scenes or labelled photos (test/ "
        "where there is one, else val/, else all). A folder of photos of any names has no labels: "
        "then only the CSV of --predictions is written. What can be opened is a photo, whatever "
        "its ending; what cannot is named, with exit status 2.",
    )
    command.add_argument(
        "--weights",
        type=find_weights,
        required=True,
        metavar="W",
        help=".safetensors, or the name of shipped weights",
    )
    _add_data(command)
    command.add_argument(
        "--labels",
        metavar="NAMES",
        help="what the outputs mean, where the weights do not say it: a file (a name a line, or "
        "JSON), a folder of class folders in torchvision's order (1, 10, 2), imagefolder (those "
        "of --data) or numbers (output n means class n)",
    )
    command.add_argument(
        "--split", choices=("train", "validation", "test"), help="default: the last there is"
    )
    command.add_argument(
        "--predictions",
        type=Path,
        metavar="OUT.csv",
        help="write filename,label, one row a photo, labels as the training photos had them (29); "
        "with --labels FILE the names in it (Samoyed)",
    )
    command.add_argument(
        "--batch-size", type=positive, default=8, metavar="N", help="default: %(default)s"
    )
    command.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        default="fp32",
        help="bf16 is two to three times as fast where the processor has it (default: %(default)s)",
    )
    command.add_argument(
        "--workers", type=count, default=2, metavar="N", help="processes that open photos or draw"
    )
    command.add_argument("--limit", type=positive, metavar="N", help="only the first N")
    command.add_argument(
        "--strict", action="store_true", help="stop at the first photo that cannot be read"
    )
    add_common_flags(command)


def _add_preview(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "preview",
        help="look at augmented photos before training on them",
        description="Writes one picture: a row for each of some training photos, first as it is "
        "used and then as it is augmented in some epochs.",
    )
    _add_recipe_flags(command, "the recipe that says how; as for classify")
    command.add_argument(
        "--out", type=Path, default=Path("preview.png"), metavar="FILE", help="default: %(default)s"
    )
    add_overwrite(command)
    command.add_argument(
        "--photos", type=positive, default=6, metavar="N", help="rows (default: %(default)s)"
    )
    _set_recipe_keys(command)
    add_common_flags(command, seed=None)


def _add_sweep(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "sweep",
        help="compare recipes or settings, in a table and in curves",
        description="Trains every combination, each in a folder of its own, and writes "
        "comparison.md and comparison.png beside them. With --resume, runs that are finished are "
        "not made again.",
        epilog="Example: train.py sweep --data PETS --weights W --recipe pets_sgd "
        "--vary lr=3e-4,3e-3 --vary image_size=224,384",
    )
    _add_recipe_flags(command, "one or several, separated by commas")
    command.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="any key of a recipe and the values to try; weights= stands for none",
    )
    _add_run_flags(command)
    _set_recipe_keys(command)
    add_common_flags(command, seed=None)


def _add_report(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "report",
        help="how a training went, also beside another one",
        description="Prints what report.md of a run folder says; of another run folder, if it is "
        "given, a table of both and the settings that differ.",
    )
    command.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as runs/scenes")
    command.add_argument(
        "other", type=Path, nargs="?", metavar="OTHER_RUN", help="a run folder to compare with"
    )
    add_common_flags(command, seed=None)


def _add_recipes(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "recipes",
        help="list the recipes of the package, or the keys of a recipe",
        description="Prints the name and the purpose of each recipe of the package; with --keys, "
        "what `train.py keys` prints.",
    )
    command.add_argument("--keys", action="store_true", help="list the keys instead")
    add_common_flags(command, seed=None)


def _add_keys(commands: Commands[Parser]) -> None:
    command = commands.add_parser(
        "keys",
        help="list the keys of a recipe",
        description="Prints each key that a recipe, --set or --vary can have: its type, unit, "
        "default and meaning, and the recipes of the package that give it.",
    )
    command.add_argument(
        "--markdown", action="store_true", help="as the page minivit/training/recipes/README.md"
    )
    add_common_flags(command, seed=None)


# ---- flags of several commands -------------------------------------------------------------------


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", default="scenes", metavar="DIR", help="scenes, or a folder (default: scenes)"
    )


def _add_recipe_flags(command: argparse.ArgumentParser, help_: str) -> argparse._ArgumentGroup:
    group = command.add_argument_group("what to train, on what, and how")
    group.add_argument("--recipe", metavar="NAME", help=help_)
    group.add_argument("--data", metavar="DIR", help="scenes, or where the photos are")
    group.add_argument("--weights", metavar="W", help="a checkpoint to start from")
    group.add_argument(
        "--epochs", type=int, metavar="N", help="default, here and below: the recipe's"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="all processes together")
    group.add_argument("--lr", type=float, metavar="RATE")
    group.add_argument("--precision", choices=("fp32", "bf16"))
    group.add_argument(
        "--limit", type=positive, metavar="N", help="only N training samples, for trying out"
    )
    group.add_argument("--workers", type=count, metavar="N", help="processes that open or draw")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="any other key of a recipe; `train.py keys` lists them",
    )
    return group


def _add_run_flags(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the run folder")
    group.add_argument(
        "--out",
        type=Path,
        metavar="RUN",
        help="new or empty folder, or that of a run; of a sweep the folder of its runs (default: "
        "runs/ and the recipe's name)",
    )
    either = group.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help="go on with the run that is there")
    either.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run that is there; no file is removed but those that it wrote",
    )


def _add_minutes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--minutes",
        type=minutes,
        metavar="N",
        help="as many steps as end, report included, in about N minutes on this machine, measured "
        "over the first steps: instead of --epochs, all phases by one factor; recipe.toml of the "
        "run has the result and repeats it exactly",
    )


def _set_recipe_keys(command: argparse.ArgumentParser, *more: str) -> None:
    """Keeps the names of those flags that are keys of a recipe."""
    common = ("data", "weights", "epochs", "batch_size", "lr", "precision", "limit", "workers")
    command.set_defaults(recipe_keys=(*common, "seed", *more), minutes=None)


def minutes(text: str) -> float:
    """A number of minutes."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of minutes above 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def count(text: str) -> int:
    """A whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value
