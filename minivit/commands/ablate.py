"""visualize.py ablate: from flags to a figure, a table and the strongest parts of each photo."""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from minivit.commands.outputs import outputs_of
from minivit.commands.pictures import Drawing, Picture, draw_pictures, heading
from minivit.commands.seen import shipped_remark
from minivit.commands.target import class_number, word_number
from minivit.plain_text import cell
from minivit.progress import Bar, progress_bars
from minivit.weights import weights_title

if TYPE_CHECKING:
    from minivit.captioner import Captioner
    from minivit.explain.inside.word_ranking import RankedBlock
    from minivit.vit import VisionTransformer
    from minivit.viz.ablation_figures import AblatedBlock
    from minivit.word_maps import Caption

NUM_PRINTED = 10


class Change(NamedTuple):
    """What the loss of a part does to a target.

    Attributes:
        where: Kind of block: "block", of a captioner as `RankedBlock.where`.
        block: Number of the block.
        head: Number of the head; None: the MLP.
        target: Class or word.
        before: Its log-probability for the whole model.
        change: Log-probability without the part minus that.
    """

    where: str
    block: int
    head: int | None
    target: str
    before: float
    change: float

    @property
    def part(self) -> str:
        """Name of the part in a line."""
        part = "MLP" if self.head is None else f"head {self.head}"
        return f"{self.where} {self.block}, {part}"


def ablate(model: VisionTransformer | Captioner, arguments: argparse.Namespace) -> int:
    """Ranks the parts of a model for each photo.

    Raises:
        ValueError: No such class; or a model without a head.
    """
    from minivit.vit import VisionTransformer

    with progress_bars() as bar:
        if isinstance(model, VisionTransformer):
            if not model.config.num_classes:
                raise ValueError(
                    f"{arguments.weights}: the model has no head, so there is no class that could "
                    "depend on a part; give weights with a head, such as those of train.py classify"
                )
            target = None if arguments.target is None else class_number(model, arguments.target)
            draw = partial(_draw_class, model, arguments, target, bar)
        else:
            draw = partial(_draw_words, model, arguments, bar)
        return draw_pictures(
            arguments.pictures,
            arguments.out,
            draw,
            outputs=outputs_of(arguments),
            scene=arguments.seed,
            scene_size=model.preprocess.image_size,
            with_tables=True,
            file_format=arguments.format,
            dpi=arguments.dpi,
            debug=arguments.debug,
        )


def _draw_class(
    model: VisionTransformer,
    arguments: argparse.Namespace,
    target: int | None,
    bar: Bar,
    picture: Picture,
) -> Drawing:
    import torch

    from minivit.explain import rank_parts
    from minivit.viz.ablation_figures import AblatedBlock

    images = model.preprocess(picture.seen)[None].to(next(model.parameters()).device)
    if target is None:
        with torch.inference_mode():
            number = int(model(images).argmax())
    else:
        number = target
    label = model.labels[number] if model.labels else f"class {number}"
    ranking = rank_parts(
        model, images, number, parts=arguments.parts, replace=arguments.replace, bar=bar
    )
    mlps = ranking.mlps.tolist() or [None] * model.config.depth
    blocks = [
        AblatedBlock(f"block {block}", heads, mlp)
        for block, (heads, mlp) in enumerate(zip(ranking.heads.tolist(), mlps, strict=True))
    ]
    before = float(ranking.log_probability[0])
    changes = [
        Change("block", number, head, label, before, change)
        for number, block in enumerate(blocks)
        for head, change in _parts(block.heads, block.mlp)
    ]
    kind = "predicted class" if target is None else "class"
    return _drawing(picture, model, arguments, blocks, changes, f"{kind}: {label}")


def _draw_words(
    captioner: Captioner, arguments: argparse.Namespace, bar: Bar, picture: Picture
) -> Drawing:
    from minivit.explain.inside.word_ranking import rank_word_parts
    from minivit.preprocess import BadImageError
    from minivit.viz.ablation_figures import AblatedBlock
    from minivit.word_maps import decoder_input

    (caption,) = captioner.caption([picture.seen])
    ids = list(caption.token_ids)
    if caption.end_log_prob is not None:
        ids.append(captioner.tokenizer.end_id)
    try:
        wanted = None if arguments.target is None else word_number(caption, arguments.target)
    except ValueError as error:
        raise BadImageError(str(error)) from None
    if not ids:
        raise BadImageError("the caption has no word that could depend on a part")
    device = captioner.pos_embed.device
    ranking = rank_word_parts(
        captioner,
        captioner.preprocess(picture.seen)[None].to(device),
        decoder_input([ids], captioner.tokenizer).to(device),
        parts=arguments.parts,
        replace=arguments.replace,
        bar=bar,
    )
    targets = _targets(caption, len(ids))
    changes = [
        Change(block.where, block.block, head, name, float(before), float(change))
        for block in ranking.blocks
        for name, tokens in targets.items()
        for before in [ranking.log_probabilities[tokens].sum()]
        for head, change in _parts(*_sums(block, tokens))
    ]
    chosen = list(targets)[0 if wanted is None else 1 + wanted]
    blocks = [
        AblatedBlock(f"{block.where} {block.block}", *_sums(block, targets[chosen]))
        for block in ranking.blocks
    ]
    changes.sort(key=lambda change: change.target != chosen)  # the chosen target comes first
    sentence = f"“{caption.text}”"
    if wanted is not None:
        sentence = f"the word {caption.words[wanted].text!r}, place {wanted} in {sentence}"
    return _drawing(picture, captioner, arguments, blocks, changes, sentence)


def _targets(caption: Caption, count: int) -> dict[str, list[int]]:
    """The tokens of the caption, of each of its words, and of its end."""
    targets = {"caption": list(range(count))}
    for number, word in enumerate(caption.words):
        targets[f"{number} {word.text}"] = list(word.tokens)
    if caption.end_log_prob is not None:
        targets["end"] = [count - 1]
    return targets


def _sums(block: RankedBlock, tokens: Sequence[int]) -> tuple[list[float], float | None]:
    """Changes of some words together, for each head and for the MLP."""
    heads = block.heads[:, tokens].sum(dim=1).tolist()  # (H, words) -> (H,)
    return heads, None if block.mlp is None else float(block.mlp[tokens].sum())


def _parts(heads: Sequence[float], mlp: float | None) -> list[tuple[int | None, float]]:
    """Changes with the number of their head, None for the MLP's."""
    return [*enumerate(heads), *([] if mlp is None else [(None, mlp)])]


def _drawing(
    picture: Picture,
    model: VisionTransformer | Captioner,
    arguments: argparse.Namespace,
    blocks: Sequence[AblatedBlock],
    changes: Sequence[Change],
    target: str,
) -> Drawing:
    """The figure of a target, and the table of all; the first change is one of the target's."""
    from minivit.viz import ablation_figure

    before = changes[0].before
    replacement = "zeros" if arguments.replace == "zero" else "its mean over tokens"
    figure = ablation_figure(
        picture.photo,
        picture.in_photo(model.preprocess.crop_box(*picture.seen.size)),
        blocks,
        heading=heading(
            arguments,
            f"Change of a log-probability when a part is replaced by {replacement}\n"
            f"weights: {weights_title(arguments.weights)}",
        ),
        photo_title=f"{picture.name}\n{target}\n"
        f"log-probability {before:.4f}, probability {math.exp(before):.3g}",
    )
    own = [change for change in changes if change.target == changes[0].target]
    strongest = sorted(own, key=lambda change: -abs(change.change))[:NUM_PRINTED]
    lines = [f"{target}: log-probability {before:.4f}"]
    lines += [f"  {change.change:+.4f}  {change.part}" for change in strongest]
    remark = shipped_remark(arguments.weights)
    return Drawing(figure, remark, table=_table(changes), lines=lines)


def _table(changes: Sequence[Change]) -> str:
    """CSV with a row for each part and target."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("where", "block", "part", "head", "target", "log_probability", "without", "change")
    )
    for change in changes:
        part, head = ("mlp", "") if change.head is None else ("head", str(change.head))
        numbers = (change.before, change.before + change.change, change.change)
        row = (change.where, change.block, part, head, cell(change.target))
        writer.writerow((*row, *(f"{number:.6f}" for number in numbers)))
    return text.getvalue()
