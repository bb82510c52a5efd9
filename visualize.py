"""Pictures of what a Vision Transformer, or a captioner, looks at.

    python visualize.py                                           # a built-in scene
    python visualize.py IMAGE…                                    # attention, of photos or folders
    python visualize.py attention IMAGE… [--weights W] [--out DIR]
    python visualize.py positions [--weights W] [--out DIR]
    python visualize.py caption IMAGE… [--weights W] [--out DIR]
    python visualize.py score [--data scenes|DIR] [--masks DIR] [--weights W] [--out DIR]
    python visualize.py explain IMAGE… [--methods A,B|all] [--target LABEL|NUMBER] [--weights W]
    python visualize.py explore [IMAGE…] [--weights W] [--out PAGE.html]
    python visualize.py model [IMAGE…] [--weights W] [--out DIR]
    python visualize.py ablate IMAGE… [--target LABEL|NUMBER] [--weights W] [--out DIR]
    python visualize.py doctor IMAGE… [--weights W] [--out DIR]

Every file that was written is named on standard output. A file that is there is drawn anew where it
is the same drawing, by the same flags; any other is kept unless --overwrite is given.

Exit status: 0 all done, 2 bad input (one line each on standard error; good pictures beside bad ones
still come out), 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import minivit
from minivit.commands.inputs import check_inputs
from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import (
    Drawing,
    Picture,
    draw_pictures,
    figure_path,
    heading,
    write_figure,
)
from minivit.commands.region import read_region, share_lines, share_table
from minivit.commands.seen import check_cost, predicted_label, shipped_remark, whole_photo
from minivit.commands.terminal import pick_device, run
from minivit.commands.visualize_flags import make_parser, with_command
from minivit.weights import weights_title

if TYPE_CHECKING:
    from minivit.captioner import Captioner

Model = TypeVar("Model")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; `argv` without the program's name."""
    commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "attention": attention,
        "positions": positions,
        "caption": caption,
        "score": score,
        "explain": explain,
        "explore": explore,
        "model": describe,
        "ablate": ablate,
        "doctor": doctor,
    }
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(with_command(words, commands))

    def command(arguments: argparse.Namespace) -> int | None:
        check_inputs(arguments)  # before torch is imported
        return commands[arguments.command](arguments)

    return run(command, arguments)


# ---- attention --------------------------------------------------------------------------------


def attention(arguments: argparse.Namespace) -> int:
    """One figure a photo: the photo, the average over heads, each head."""
    model = load(arguments, minivit.VisionTransformer)
    check_attention_flags(model, arguments)
    return draw_pictures(
        arguments.pictures,
        arguments.out,
        partial(draw_attention, model, arguments),
        outputs=outputs_of(arguments),
        with_tables=bool(arguments.box or arguments.mask),
        scene=arguments.seed,
        scene_size=model.preprocess.image_size,
        file_format=arguments.format,
        dpi=arguments.dpi,
        debug=arguments.debug,
    )


def draw_attention(
    model: minivit.VisionTransformer, arguments: argparse.Namespace, picture: Picture
) -> Drawing:
    """Runs the model on a picture and draws where one token looks in one block.

    With a box or a mask the block is, unless one was chosen, that of the head that gives it most.

    Raises:
        minivit.BadImageError: The picture cannot be used, or has no such patch, box or mask.
    """
    import torch

    from minivit.explain import heads_inside, query_attention
    from minivit.viz import attention_figure

    preprocess = whole_photo(model) if arguments.whole else model.preprocess
    check_cost(model, preprocess, picture.seen)
    images = preprocess(picture.seen)[None].to(next(model.parameters()).device)  # (1, 3, H, W)
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    check_patch(arguments.patch, grid)

    token, name = 0, "the class token"
    if arguments.patch:
        row, col = arguments.patch
        token, name = model.num_prefix_tokens + row * grid[1] + col, f"patch row {row}, col {col}"
    seen = picture.in_photo(preprocess.crop_box(*picture.seen.size))
    region = read_region(arguments, picture, seen, grid)
    last = model.config.depth - 1
    blocks = [last] if arguments.block is None else [arguments.block]
    if region and arguments.block is None:
        blocks = list(range(last + 1))
    rows = minivit.AttentionRows(blocks=blocks, queries=[token])
    with torch.inference_mode():
        logits, attentions = model(images, return_attention=rows)
    shares = heads_inside(attentions, region.cells, patch=arguments.patch) if region else []
    block = shares[0].block if shares else attentions.blocks[0]
    maps = query_attention(attentions, token=token, block=attentions.blocks.index(block))[0]

    best = f"; head {shares[0].head} gives the {region.name} most" if region else ""
    figure = attention_figure(
        picture.photo,
        seen,
        maps,
        num_tokens=attentions[0].shape[-1],
        heads=arguments.heads,
        patch=arguments.patch,
        region=region,
        shared_scale=arguments.shared_scale,
        smooth=arguments.smooth,
        colour_map=arguments.colour_map,
        heading=heading(
            arguments,
            f"Attention of {name} in block {block} (of 0–{last}){best}\n"
            f"weights: {weights_title(arguments.weights)}",
        ),
        photo_title=picture.name + predicted_label(model, logits[0]),
    )
    remark = shipped_remark(arguments.weights)
    if region is None:
        return Drawing(figure, remark)
    return Drawing(figure, remark, table=share_table(shares), lines=share_lines(shares, region))


def check_attention_flags(model: minivit.VisionTransformer, arguments: argparse.Namespace) -> None:
    """Compares --block, --heads and --patch with the model, before any photo is opened.

    Raises:
        ValueError: Names the flag and what there is to choose from.
    """
    depth, num_heads = model.config.depth, model.config.num_heads
    if arguments.block is not None and not -depth <= arguments.block < depth:
        raise ValueError(
            f"--block {arguments.block}: {arguments.weights} has blocks 0 to {depth - 1}, or "
            f"-{depth} to -1 counted from the last"
        )
    if arguments.mask is not None and len(arguments.pictures) > 1:
        raise ValueError(
            f"--mask {arguments.mask}: belongs to one photo, and {len(arguments.pictures)} were "
            "given; draw them one by one"
        )
    for head in arguments.heads or ():
        if head >= num_heads:
            raise ValueError(
                f"--heads {head}: {arguments.weights} has heads 0 to {num_heads - 1} in a block"
            )
    if arguments.patch is None and not model.config.class_token:
        raise ValueError(
            f"{arguments.weights}: the model has no class token; choose a patch that looks, for "
            "example --patch 0,0"
        )
    if not arguments.whole and model.preprocess.mode in ("crop", "squash"):
        check_patch(arguments.patch, model.patch_embed.grid_for(*model.preprocess.image_size))


def check_patch(patch: tuple[int, int] | None, grid: tuple[int, int]) -> None:
    """Raises a BadImageError when a grid of (rows, cols) has no such patch."""
    if patch and (patch[0] >= grid[0] or patch[1] >= grid[1]):
        raise minivit.BadImageError(
            f"--patch {patch[0]},{patch[1]}: the patches are a grid of {grid[0]} rows x {grid[1]} "
            f"cols; choose from 0,0 to {grid[0] - 1},{grid[1] - 1}"
        )


# ---- positions --------------------------------------------------------------------------------


def positions(arguments: argparse.Namespace) -> int:
    """One figure: how similar the position embeddings are to one another."""
    from minivit.explain import position_scores, position_similarity
    from minivit.viz import positions_figure

    model = load(arguments, minivit.VisionTransformer)
    target = figure_path(arguments.out, "positions", arguments.format)
    outputs = outputs_of(arguments)
    outputs.claim({target: outputs.mark()})
    rows, cols = model.grid_size
    similarity = position_similarity(model)
    figure = positions_figure(
        similarity,
        colour_map=arguments.colour_map,
        heading=heading(
            arguments,
            f"Position embeddings, {rows} × {cols} patches\n"
            f"weights: {weights_title(arguments.weights)}",
        ),
        all_patches=arguments.all,
    )
    remark = shipped_remark(arguments.weights)
    write_figure(figure, target, remark, mark=outputs.mark(), dpi=arguments.dpi)
    if min(rows, cols) > 1:
        print(position_scores(similarity))
    return 0


# ---- caption ----------------------------------------------------------------------------------


def caption(arguments: argparse.Namespace) -> int:
    """One figure a photo: the photo under its caption, and each word's map."""
    drawing = sampling_options(arguments)

    from minivit.captioner import Captioner

    captioner = load(arguments, Captioner)
    check_caption_flags(captioner, arguments)
    return draw_pictures(
        arguments.pictures,
        arguments.out,
        partial(draw_caption, captioner, arguments, drawing),
        outputs=outputs_of(arguments),
        scene=arguments.seed,
        scene_size=captioner.preprocess.image_size,
        file_format=arguments.format,
        dpi=arguments.dpi,
        debug=arguments.debug,
    )


def draw_caption(
    captioner: Captioner,
    arguments: argparse.Namespace,
    drawing: dict[str, Any],
    picture: Picture,
) -> Drawing:
    """Captions a picture and draws where the captioner looked for each word.

    Args:
        captioner: The captioner.
        arguments: Parsed flags.
        drawing: Options for words drawn by chance; none: the likeliest sentence.
        picture: The picture.

    Raises:
        minivit.BadImageError: The picture cannot be used.
    """
    from minivit.viz import caption_figure

    block, head, why = choose_map(captioner, arguments)
    if arguments.text is not None:
        (sentence,) = captioner.caption_text(
            [picture.seen], arguments.text, align=arguments.align, block=block, head=head
        )
    else:
        (sentence,) = captioner.caption(
            [picture.seen],
            beam_size=arguments.beam_size,
            max_length=arguments.max_length,
            align=arguments.align,
            block=block,
            head=head,
            **drawing,
        )
    depth = captioner.config.decoder_depth
    heads = "mean over heads" if head is None else f"head {head}"
    how = "; --text" if arguments.text is not None else ""
    how += "".join(f", {name.replace('_', '-')} {value}" for name, value in drawing.items())
    figure = caption_figure(
        picture.photo,
        replace(sentence, box=picture.in_photo(sentence.box)),
        layout=arguments.layout,
        relative=arguments.relative,
        shared_scale=arguments.shared_scale,
        colour_map=arguments.colour_map,
        heading=heading(
            arguments,
            f"{picture.name}; weights: {weights_title(arguments.weights)}{how}\n"
            f"block {block % depth} (of 0–{depth - 1}), {heads}{why}, the step that "
            f"{arguments.align} the word",
        ),
    )
    return Drawing(figure, sentence.text or "(no word)")


def choose_map(captioner: Captioner, arguments: argparse.Namespace) -> tuple[int, int | None, str]:
    """The block and head of the maps, and why them: the flags, or what the weights' scores say."""
    if arguments.block is not None or arguments.head is not None:
        return -1 if arguments.block is None else arguments.block, arguments.head, ""
    best = captioner.best_map(arguments.align)
    if best is None:
        return -1, None, " (no scores stored)"
    return best.block, best.head, f" (its best: {best.hits:.0%} of words hit)"


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags that draw words by chance, as `Captioner.caption` takes them.

    Raises:
        ValueError: --sample beside a search with beams, or one of the others without --sample.
    """
    restrictions = {name: getattr(arguments, name) for name in ("temperature", "top_p", "top_k")}
    given = {name: value for name, value in restrictions.items() if value is not None}
    if arguments.text is not None and (
        given
        or arguments.sample is not None
        or (arguments.beam_size, arguments.max_length) != (1, None)
    ):
        raise ValueError(
            f"--text {arguments.text!r}: the sentence is given, so --beam-size, --max-length, "
            "--sample and what belongs to it have no use; leave them out"
        )
    if arguments.sample is None:
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags}: only where words are drawn by chance; add --sample SEED")
        return {}
    if arguments.beam_size > 1:
        raise ValueError(
            f"--sample {arguments.sample} --beam-size {arguments.beam_size}: a sentence is either "
            "drawn by chance or searched for with beams; leave out one of the two"
        )
    return {"sample": arguments.sample, **given}


def check_caption_flags(captioner: Captioner, arguments: argparse.Namespace) -> None:
    """Compares the numbers in the flags with the captioner, before any photo is opened.

    Raises:
        ValueError: Names the flag and its range.
    """
    config = captioner.config
    if arguments.text is not None:
        captioner.known_words(arguments.text)
    for flag, value, lowest, highest in (
        ("--block", arguments.block, -config.decoder_depth, config.decoder_depth - 1),
        ("--head", arguments.head, 0, config.num_heads - 1),
        ("--beam-size", arguments.beam_size, 1, config.vocabulary_size // 2),
        ("--max-length", arguments.max_length, 2, config.max_length),
    ):
        if value is not None and not lowest <= value <= highest:
            raise ValueError(
                f"{flag} {value}: {arguments.weights} takes numbers from {lowest} to {highest}"
            )


# ---- score ------------------------------------------------------------------------------------


def score(arguments: argparse.Namespace) -> None:
    """Tables and curves: how far the maps of each method can be trusted."""
    from minivit.commands import score as scoring

    scoring.check_folders(arguments)
    scoring.score(load(arguments, minivit.VisionTransformer), arguments)


# ---- explain ----------------------------------------------------------------------------------


def explain(arguments: argparse.Namespace) -> int:
    """One figure a photo: the photo, and the map of each method for one class."""
    from minivit.commands import explain as explaining

    return explaining.explain(load(arguments, minivit.VisionTransformer), arguments)


# ---- explore ----------------------------------------------------------------------------------


def explore(arguments: argparse.Namespace) -> int:
    """One page: attention to click through, and a small model that runs in it."""
    from minivit.captioner import Captioner
    from minivit.commands import explore as exploring

    model = load(arguments, minivit.VisionTransformer, Captioner)
    return exploring.explore(cast("minivit.VisionTransformer | Captioner", model), arguments)


# ---- model ------------------------------------------------------------------------------------


def describe(arguments: argparse.Namespace) -> None:
    """One figure: filters, positions, and how far and how broadly each head looks."""
    from minivit.commands import model as describing

    describing.describe(load(arguments, minivit.VisionTransformer), arguments)


# ---- ablate and doctor ------------------------------------------------------------------------


def ablate(arguments: argparse.Namespace) -> int:
    """A grid and a table a photo: what the loss of each head and MLP does to class or caption."""
    from minivit.captioner import Captioner
    from minivit.commands import ablate as ablation

    model = load(arguments, minivit.VisionTransformer, Captioner)
    return ablation.ablate(cast("minivit.VisionTransformer | Captioner", model), arguments)


def doctor(arguments: argparse.Namespace) -> int:
    """A page a photo: why its map looks bad."""
    from minivit.commands import doctor as diagnosis

    return diagnosis.doctor(load(arguments, minivit.VisionTransformer), arguments)


# ---- all commands -----------------------------------------------------------------------------


def load(arguments: argparse.Namespace, *kinds: type[Model]) -> Model:
    """The model of --weights, on the device of --device.

    Raises:
        ValueError: It is of another kind than the command draws; says which command does.
    """
    device = pick_device(arguments.device, arguments.threads)
    model = minivit.load_model(arguments.weights, device=device)
    if not isinstance(model, kinds):
        name = type(model).__name__
        drawn = "attention, explain, explore, ablate, doctor, positions or model"
        commands = {"VisionTransformer": drawn, "Captioner": "caption, explore or ablate"}
        advice = f"use visualize.py {commands[name]}" if name in commands else "give other weights"
        needed = " or a ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{arguments.weights}: holds a {name}, {arguments.command} needs a {needed}; {advice}"
        )
    return model


if __name__ == "__main__":
    sys.exit(main())
