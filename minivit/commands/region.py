"""--box and --mask of visualize.py attention: a part of the photo, and which heads look at it."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minivit.commands.pictures import Picture

if TYPE_CHECKING:
    from minivit.explain.region import HeadShare
    from minivit.viz.attention_figures import Region

    Box = tuple[float, float, float, float]

NUM_PRINTED = 10


def read_region(
    arguments: argparse.Namespace, picture: Picture, seen: Box, grid: tuple[int, int]
) -> Region | None:
    """The region of --box or --mask on a photo; None: neither was given.

    Args:
        arguments: Parsed flags.
        picture: The photo.
        seen: Part of the photo that the model sees, in its pixels.
        grid: (rows, cols) of patches there.

    Raises:
        minivit.BadImageError: The region does not lie on this photo, or on nothing that is seen.
    """
    from minivit.data.photos.masks import cell_shares, read_mask
    from minivit.explain.region import box_cells
    from minivit.preprocess import BadImageError
    from minivit.viz.attention_figures import Region

    width, height = picture.photo.size
    try:
        if arguments.mask is not None:
            mask = read_mask(arguments.mask, size=(width, height))
            share, known = cell_shares(mask, grid, box=seen)
            if not share.any():
                raise ValueError(f"--mask {arguments.mask}: marks nothing that the model sees")
            return Region(share * known, mask.object)
        if arguments.box is not None:
            shown = ",".join(f"{edge:g}" for edge in arguments.box)
            if arguments.box[2] > width or arguments.box[3] > height:
                raise ValueError(
                    f"--box {shown}: reaches beyond the photo, which is {width} pixels wide and "
                    f"{height} high"
                )
            return Region(box_cells(arguments.box, grid, within=seen), arguments.box)
    except ValueError as error:
        raise BadImageError(str(error)) from error
    return None


def share_lines(heads: Sequence[HeadShare], region: Region) -> list[str]:
    """The heads that give the region most, ten at most, a line each."""
    area = heads[0].area
    lines = [f"the {region.name} is {area:.1%} of what the model sees; of what a head gives to it:"]
    lines += [
        f"  {head.share:6.1%} = {head.ratio:5.2f} x its area  block {head.block}, head {head.head} "
        f"({head.on_patches:.0%} of its attention is on patches)"
        for head in heads[:NUM_PRINTED]
    ]
    return lines


def share_table(heads: Sequence[HeadShare]) -> str:
    """CSV with a row for each head, the one that gives the region most first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "block", "head", "share", "area", "ratio", "on_patches"))
    for rank, head in enumerate(heads, start=1):
        numbers = (head.share, head.area, head.ratio, head.on_patches)
        writer.writerow((rank, head.block, head.head, *(f"{number:.6f}" for number in numbers)))
    return text.getvalue()
