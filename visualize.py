"""Pictures of what a Vision Transformer looks at.

    python visualize.py                                           # a built-in scene
    python visualize.py attention IMAGE… [--weights W] [--out DIR]
    python visualize.py positions [--weights W] [--out DIR]

Every picture that was written is named on standard output. Exit status: 0 all done, 2 bad input
(one line each on standard error; good pictures beside bad ones still come out), 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import minivit
from minivit.command_line import Parser, add_common_flags, one_line, pick_device, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

SHIPPED_WEIGHTS = Path(minivit.__file__).parent / "weights" / "scenes.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; `argv` without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(words or ["attention"])
    return run(arguments.command, arguments)


# ---- attention --------------------------------------------------------------------------------


def attention(arguments: argparse.Namespace) -> int:
    """One figure a photo: the photo, the average over heads, each head."""
    from tqdm import tqdm

    model = load(arguments)
    check_choice(model, arguments)
    if not arguments.images:
        picture = built_in_scene(model, arguments.seed)
        write(draw_attention(model, picture, arguments), arguments.out / "scene.png")
        return 0

    targets = name_targets(arguments.images, arguments.out)
    pairs = list(zip(arguments.images, targets, strict=True))
    bad = 0
    # disable=None: a bar on a terminal only; a log gets nothing but the lines that matter.
    quiet = True if len(pairs) < 2 else None
    for path, target in tqdm(pairs, unit="picture", disable=quiet, leave=False):
        try:
            photo = minivit.open_image(path)
            picture = Picture(Path(path).name, photo, photo)
            figure = draw_attention(model, picture, arguments)
        except minivit.BadImageError as error:
            if arguments.debug:
                raise
            message = one_line(error)
            if path not in message:
                message = one_line(ValueError(f"{path}: {error}"))
            tqdm.write(message, file=sys.stderr)
            bad += 1
        else:
            write(figure, target)
    return 2 if bad else 0


@dataclass(frozen=True)
class Picture:
    """What a figure is made from.

    Attributes:
        name: Stands above the photo.
        photo: What is shown.
        seen: What the model gets; the same as `photo`, or the same in another size.
    """

    name: str
    photo: Image.Image
    seen: Image.Image


def draw_attention(
    model: minivit.VisionTransformer, picture: Picture, arguments: argparse.Namespace
) -> Figure:
    """Runs the model on a picture and draws where one query of one block looks.

    Raises:
        minivit.BadImageError: The picture cannot be used, or has no patch --query.
    """
    import torch

    from minivit.explain import query_attention
    from minivit.viz import attention_figure

    preprocess = model.preprocess
    if arguments.whole:
        preprocess = whole_photo(model)
    image = preprocess(picture.seen)[None].to(next(model.parameters()).device)  # (1, 3, H, W)
    grid = model.patch_embed.grid_size(*image.shape[-2:])
    check_query(arguments.query, grid)

    token, looks = 0, "the class token"
    if arguments.query:
        row, col = arguments.query
        token, looks = model.num_prefix_tokens + row * grid[1] + col, f"patch row {row}, col {col}"
    rows = minivit.AttentionRows(blocks=[arguments.block], queries=[token])
    with torch.inference_mode():
        logits, attentions = model(image, return_attention=rows)
    maps = query_attention(attentions[0], model, grid_size=grid)[0]  # (H, rows, cols)

    # A scene is shown larger than the model saw it: the region in pixels of what is shown.
    scale = picture.photo.width / picture.seen.width
    left, top, right, bottom = preprocess.crop_box(*picture.seen.size)
    prediction = ""
    if model.labels:
        probability, best = logits[0].float().softmax(dim=-1).max(dim=-1)
        prediction = f"\npredicted: {model.labels[int(best)]} ({float(probability):.1%})"
    last = model.config.depth - 1
    return attention_figure(
        picture.photo,
        (left * scale, top * scale, right * scale, bottom * scale),
        maps,
        num_tokens=attentions[0].shape[-1],
        heads=arguments.heads,
        query=arguments.query,
        smooth=arguments.smooth,
        heading=f"Attention of {looks} in block {arguments.block % (last + 1)} (of 0–{last})\n"
        f"weights: {arguments.weights.name}",
        photo_title=picture.name + prediction,
    )


def whole_photo(model: minivit.VisionTransformer) -> minivit.Preprocess:
    """The model's transform without its crop: as many patches as the photo's shape asks for."""
    import math

    return replace(
        model.preprocess,
        mode="fit_shortest",
        crop_fraction=1.0,
        multiple_of=math.lcm(*model.config.patch_size),
    )


def built_in_scene(model: minivit.VisionTransformer, number: int) -> Picture:
    """A scene that no training has seen: drawn for the model, and once more in larger for us."""
    from minivit.data.scenes import TEST_SEED, make_scene

    if number < 0:
        raise ValueError(f"--seed {number}: the scenes are numbered from 0")
    height, width = model.preprocess.image_size
    factor = -(-512 // max(height, width))
    seen = make_scene(TEST_SEED, number, image_size=(height, width))
    shown = make_scene(TEST_SEED, number, image_size=(factor * height, factor * width))
    main_object = seen.objects[0]
    name = f"built-in scene {number}: {main_object.colour} {main_object.shape}"
    return Picture(name, shown.image, seen.image)


def name_targets(images: Sequence[str], folder: Path) -> list[Path]:
    """DIR/<stem>.png for each picture; of equal stems the later ones get -2, -3, …

    Raises:
        ValueError: A picture would be overwritten by a figure.
    """
    inputs = {Path(image).resolve() for image in images}
    taken: set[str] = set()
    targets = []
    for image in images:
        stem = name = Path(image).stem
        number = 1
        while name.casefold() in taken:  # folders of some systems do not tell A.png from a.png
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        target = folder / f"{name}.png"
        if target.resolve() in inputs:
            raise ValueError(
                f"{target}: is an input and would be overwritten; choose another --out"
            )
        targets.append(target)
    return targets


# ---- positions --------------------------------------------------------------------------------


def positions(arguments: argparse.Namespace) -> None:
    """One figure: how similar the position embeddings are to one another."""
    from minivit.explain import position_similarity
    from minivit.viz import positions_figure

    model = load(arguments)
    rows, cols = model.grid_size
    figure = positions_figure(
        position_similarity(model),
        heading=f"Position embeddings, {rows} × {cols} patches\nweights: {arguments.weights.name}",
    )
    write(figure, arguments.out / "positions.png")


# ---- what both need ---------------------------------------------------------------------------


def load(arguments: argparse.Namespace) -> minivit.VisionTransformer:
    """The model that --weights and --device ask for."""
    return minivit.load_model(arguments.weights, device=pick_device(arguments.device))


def check_choice(model: minivit.VisionTransformer, arguments: argparse.Namespace) -> None:
    """Compares --block, --heads and --query with the model, before any photo is opened.

    Raises:
        ValueError: Names the flag and what there is to choose from.
    """
    depth, num_heads = model.config.depth, model.config.num_heads
    if not -depth <= arguments.block < depth:
        raise ValueError(
            f"--block {arguments.block}: {arguments.weights} has blocks 0 to {depth - 1}, or "
            f"-{depth} to -1 counted from the last"
        )
    for head in arguments.heads or ():
        if head >= num_heads:
            raise ValueError(
                f"--heads {head}: {arguments.weights} has heads 0 to {num_heads - 1} in a block"
            )
    if arguments.query is None and not model.config.class_token:
        raise ValueError(
            f"{arguments.weights}: the model has no class token; choose a patch that looks, for "
            "example --query 0,0"
        )
    if not arguments.whole and model.preprocess.mode in ("crop", "squash"):
        check_query(arguments.query, model.patch_embed.grid_size(*model.preprocess.image_size))


def check_query(query: tuple[int, int] | None, grid: tuple[int, int]) -> None:
    """Raises a BadImageError when a grid of (rows, cols) has no such patch."""
    if query and (query[0] >= grid[0] or query[1] >= grid[1]):
        raise minivit.BadImageError(
            f"--query {query[0]},{query[1]}: the patches are a grid of {grid[0]} rows x {grid[1]} "
            f"cols; choose from 0,0 to {grid[0] - 1},{grid[1] - 1}"
        )


def write(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, completely or not at all, and says where."""
    import warnings

    from tqdm import tqdm

    from minivit.files import replacing

    try:
        with replacing(path) as temporary, warnings.catch_warnings():
            # A file name in letters that matplotlib's font does not have is drawn as boxes.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(temporary, format="png")
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path}: cannot be written ({reason}); choose another --out") from error
    shown = str(path)
    tqdm.write(shown if shown.isprintable() else repr(shown))


# ---- the command line -------------------------------------------------------------------------


def make_parser() -> Parser:
    """All commands and flags."""
    parser = Parser(
        description="Pictures of what a Vision Transformer looks at.",
        epilog="Without arguments: attention on a built-in scene, with the shipped weights.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "attention",
        help="where the class token, or any patch, looks",
        description="Writes DIR/<image stem>.png for each photo: the photo, the attention of the "
        "class token averaged over heads, and one panel a head. Blocks, heads, rows and cols are "
        "counted from 0.",
    )
    command.set_defaults(command=attention)
    command.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*",
        help="photos; none: a built-in scene that was held out from training, number --seed",
    )
    _add_model_flags(command)
    command.add_argument(
        "--block",
        type=int,
        default=-1,
        metavar="N",
        help="which block; negative numbers count from the last (default: %(default)s)",
    )
    command.add_argument(
        "--heads",
        type=_heads,
        default="all",
        metavar="0,2|all",
        help="which heads get a panel; the average is always over all (default: %(default)s)",
    )
    command.add_argument(
        "--query",
        type=_query,
        metavar="ROW,COL",
        help="the patch that looks (default: the class token)",
    )
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
    add_common_flags(command)

    command = commands.add_parser(
        "positions",
        help="how similar the position embeddings are to one another",
        description="Writes DIR/positions.png: for each patch a small map of the cosine "
        "similarity between its position embedding and all others (the ViT paper's figure 7).",
    )
    command.set_defaults(command=positions)
    _add_model_flags(command)
    add_common_flags(command)
    return parser


def _add_model_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights",
        type=Path,
        default=SHIPPED_WEIGHTS,
        metavar="W",
        help="a minivit checkpoint (default: the shipped one, trained on the built-in scenes)",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("runs/visualize"),
        metavar="DIR",
        help="folder of the pictures; made when it is not there (default: %(default)s)",
    )


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


def _query(text: str) -> tuple[int, int]:
    """ "3,5" -> (3, 5)."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected ROW,COL, both counted from 0, such as 3,5; found {text!r}"
        )
    return int(parts[0]), int(parts[1])


if __name__ == "__main__":
    sys.exit(main())
