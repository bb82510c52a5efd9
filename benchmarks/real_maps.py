"""Which map to trust: the maps of one model on photos, held against masks of what is on them.

    python -m benchmarks.real_maps --photos DIR --masks DIR [--weights W] [--limit N] [--out DIR]

Any folder of photos with PNG masks of the same stems (`minivit/data/photos/masks.py`) and any
Vision Transformer with a class token will do, also one that was fine-tuned (`--weights
RUN/best.safetensors`).
It prints a Markdown table; `--out` writes it as table.md, with table.csv beside it.

The model sees the centre square of a photo, resized by its own filter, and masks are cut likewise.
Two figures for each map: pointing (arXiv:1608.00507), the fraction of photos whose strongest cell
lies on the object, which is at least half of what is known of the cell; and mass, the share of the
map that lies on it. How each map is made stands in `maps_of`, and below the table.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.score_table import Line, csv_text, markdown
from minivit.attention import AttentionRows, attention_weights
from minivit.checkpoint import load_model
from minivit.commands.terminal import Parser, add_common_flags, pick_device, run
from minivit.data.photos.masks import MaskedPhoto, cell_shares, masked_photos, read_mask
from minivit.explain import rollout
from minivit.explain.pointing import pointing_game
from minivit.explain.scoring.bootstrap import RESAMPLES, bootstrap
from minivit.explain.scoring.score import chosen_on_the_other_half
from minivit.explain.scoring.untrained import before_training
from minivit.files import replacing
from minivit.preprocess import Preprocess, open_image
from minivit.progress import progress_bars
from minivit.vit import VisionTransformer
from minivit.weights import find_weights
from weights_convert import real

HEAD = "class token, last block, head "

NOTES = """\
- **Photos**: centre square, {size} pixels, {rows} x {cols} cells. A cell is on the object when the
  object is at least half of what the mask knows of it; a cell of which nothing is known is not.
- **Pointing**: part of the photos whose strongest cell, of equal ones the first, is on the object.
  **Mass**: part of the map on the object, each cell counted by its share of object; prefix tokens
  are left out and the map divided by its sum.
- **In parentheses**: 95 % of {resamples:,} bootstrap resamples of the photos, and of the draws
  where there are several (percentiles).
- **The head chosen on the other half**: the photos are halved by the seed; the head of most mass on
  one half is scored on the other, and the other way round: {chosen}.
- **Rollout** (arXiv:2005.00928): row of the class token. Half of each block is the residual
  connection. Discarded are the smallest 90 % of each block's N x N entries after the heads were
  fused, ties with the smallest that stays stay, no token is spared; then rows are divided by their
  sum.
- **Weighted by the values' norm**: weight x length of the head's value, mean over heads.
- **Cosine, first principal component**: of the tokens after the last norm, the component among the
  patches of one photo. Its sign is that with which the class token's output lies on the positive
  side, which no mask decides. Both are moved so that the lowest cell is 0.
- **Blob**: a Gaussian in the centre, sigma a quarter of the grid. **Random**: means over {draws}
  draws of weights as they are before training (arXiv:1810.03292).
- **Pointing of single draws**: {spread}."""


class Scores(NamedTuple):
    """Figures of a map, each (photos, draws): one draw where nothing is drawn."""

    hits: Tensor
    mass: Tensor


def main(words: Sequence[str] | None = None) -> int:
    """Parses the command line, scores, prints and writes."""
    parser = Parser(prog="real_maps", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--photos", type=Path, required=True, metavar="DIR", help="folder of photos"
    )
    parser.add_argument("--masks", type=Path, required=True, metavar="DIR", help="PNG, same stems")
    parser.add_argument(
        "--weights",
        default=real.path(),
        metavar="W",
        help="checkpoint of minivit (default: what make real made)",
    )
    parser.add_argument(
        "--size", type=int, default=224, help="pixels a side (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--draws", type=int, default=5, metavar="N", help="random weights, how often"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="N photos, evenly spaced")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for table.md and table.csv")
    add_common_flags(parser)
    return run(_score, parser.parse_args(words))


@torch.inference_mode()
def _score(arguments: argparse.Namespace) -> None:
    if arguments.weights is None:
        raise ValueError("no trained weights here: run 'make real', or give --weights W")
    device = pick_device(arguments.device, arguments.threads)
    for name in ("batch_size", "draws"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is below 1")
    model = load_model(arguments.weights)
    if not isinstance(model, VisionTransformer) or not model.config.class_token:
        raise ValueError(f"{arguments.weights}: no Vision Transformer with a class token")
    size = (arguments.size, arguments.size)
    preprocess = replace(model.preprocess, image_size=size, mode="crop", crop_fraction=1.0)
    grid = model.patch_embed.grid_for(*size)
    pairs = masked_photos(arguments.photos, arguments.masks)
    if 0 < arguments.limit < len(pairs):
        pairs = [pairs[i * len(pairs) // arguments.limit] for i in range(arguments.limit)]
    untrained = [
        before_training(model, arguments.seed + i).to(device) for i in range(arguments.draws)
    ]
    model.to(device)

    scores: dict[str, list[Scores]] = {}
    objects: list[Tensor] = []
    with progress_bars() as bar:
        report = bar("photos", len(pairs))
        for images, shares in _batches(pairs, preprocess, grid, arguments.batch_size):
            objects.append(shares)
            maps = maps_of(model, images.to(device), untrained, seed=arguments.seed)
            for name, values in maps.items():
                scores.setdefault(name, []).append(score(values.cpu(), shares))
            report(len(images))
    results = {
        name: Scores(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
        for name, batches in scores.items()
    }
    lines, chosen = make_table(results, torch.cat(objects), arguments.seed)
    notes = NOTES.format(
        size=arguments.size,
        rows=grid[0],
        cols=grid[1],
        resamples=RESAMPLES,
        chosen=chosen,
        draws=arguments.draws,
        spread=_spread(results),
    )
    heading = _heading(arguments, model, len(pairs))
    text = "\n\n".join([heading, markdown(lines), notes]) + "\n"
    print(text, end="")
    if arguments.out:
        for name, content in (("table.md", text), ("table.csv", csv_text(lines))):
            with replacing(arguments.out / name) as path:
                path.write_text(content, encoding="utf-8", newline="")


def _batches(
    pairs: Sequence[MaskedPhoto], preprocess: Preprocess, grid: tuple[int, int], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, C, height, width), and the share of object of their cells (B, rows, cols)."""
    for start in range(0, len(pairs), batch_size):
        images, shares = [], []
        for pair in pairs[start : start + batch_size]:
            photo = open_image(pair.photo)
            side = min(photo.size)
            left, top = (photo.width - side) // 2, (photo.height - side) // 2
            square = (left, top, left + side, top + side)
            images.append(preprocess(photo.crop(square)))
            shares.append(
                cell_shares(read_mask(pair.mask, size=photo.size), grid, box=square).share
            )
        yield torch.stack(images), torch.stack(shares)


# ---- maps ----------------------------------------------------------------------------------------


def maps_of(
    model: VisionTransformer, images: Tensor, untrained: Sequence[VisionTransformer], *, seed: int
) -> dict[str, Tensor]:
    """All maps of the table by name, in its order, each (B, draws, rows, cols)."""
    grid = model.patch_embed.grid_for(*images.shape[-2:])
    prefix = model.num_prefix_tokens
    block = model.blocks[-1].attn
    seen: list[Tensor] = []
    hook = block.qkv.register_forward_hook(lambda _, given, result: seen.extend((*given, result)))
    try:
        tokens, attentions = model.encode(images, return_attention=True)
    finally:
        hook.remove()
    normed, projected = seen
    value = _heads(projected, block.num_heads, 3)[2]

    last = attentions[-1][:, :, 0]  # (B, H, N, N) -> (B, H, N)
    maps = {"class token, last block, mean of heads": last.mean(dim=1)}
    maps |= {f"{HEAD}{head}": last[:, head] for head in range(last.shape[1])}
    for number, attention in enumerate(attentions[:-1]):
        maps[f"class token, block {number}, mean of heads"] = attention[:, :, 0].mean(dim=1)
    maps["rollout, ½ residual, mean of heads"] = rollout(attentions)[:, 0]
    strong = rollout(attentions, fusion="max", discard=0.9)
    maps["rollout, ½ residual, maximum of heads, 90 % discarded"] = strong[:, 0]
    maps["class token weighted by the values' norm"] = (last * value.norm(dim=-1)).mean(dim=1)
    cosine = F.cosine_similarity(tokens[:, :1], tokens, dim=-1)  # (B, N, D) -> (B, N)
    maps["cosine of class and patch outputs"] = _from_zero(cosine, prefix)
    maps["first principal component of patch outputs"] = _from_zero(
        _first_component(tokens, prefix), prefix
    )
    maps["a blob in the centre"] = F.pad(_blob(grid).to(last), (prefix, 0)).expand_as(cosine)
    maps["class token, q and k of the last block random"] = torch.stack(
        [_random_row(normed, block.num_heads, seed + draw) for draw in range(len(untrained))], dim=1
    )
    first_row = AttentionRows(blocks=[-1], queries=[0])
    maps["class token, last block, all weights random"] = torch.stack(
        [other.encode(images, return_attention=first_row)[1][0][:, :, 0].mean(dim=1)
         for other in untrained],
        dim=1,
    )  # fmt: skip
    return {
        name: rearrange(row[..., prefix:], "b ... (rows cols) -> b (...) rows cols", rows=grid[0])
        for name, row in maps.items()
    }


def _heads(projected: Tensor, num_heads: int, parts: int) -> Tensor:
    """Projections side by side, (B, N, parts·D), to (parts, B, H, N, d)."""
    return rearrange(projected, "b n (parts h d) -> parts b h n d", parts=parts, h=num_heads)


def _from_zero(values: Tensor, prefix: int) -> Tensor:
    """(B, N), moved so that the lowest patch of each is 0."""
    return values - values[:, prefix:].amin(dim=1, keepdim=True)


def _first_component(tokens: Tensor, prefix: int) -> Tensor:
    """(B, N): the tokens along the direction in which the patches of a photo differ most."""
    patches = tokens[:, prefix:]
    centred = patches - patches.mean(dim=1, keepdim=True)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]  # (B, M, D) -> (B, D)
    along = torch.einsum("bnd,bd->bn", tokens, direction)
    return torch.where(along[:, :1] < 0, -along, along)


def _blob(grid: tuple[int, int]) -> Tensor:
    """(rows·cols,): a Gaussian whose sigma is a quarter of each side."""
    sides = [torch.arange(count) - (count - 1) / 2 for count in grid]
    row, col = (torch.exp(-((place / (len(place) / 4)) ** 2) / 2) for place in sides)
    return (row[:, None] * col).flatten()  # (rows, cols) -> (rows·cols,)


def _random_row(normed: Tensor, num_heads: int, seed: int) -> Tensor:
    """(B, N): the class token's row, mean over heads, with starting weights for q and k."""
    dim = normed.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    weights = [nn.init.xavier_uniform_(torch.empty(dim, dim), generator=generator) for _ in "qk"]
    projected = normed @ torch.cat(weights).T.to(normed)  # (B, N, D) -> (B, N, 2·D)
    query, key = _heads(projected, num_heads, 2)
    return attention_weights(query[:, :, :1], key)[:, :, 0].mean(dim=1)  # (B, H, 1, N) -> (B, N)


# ---- scores --------------------------------------------------------------------------------------


def score(maps: Tensor, shares: Tensor) -> Scores:
    """Pointing and mass of maps (B, draws, rows, cols) of photos (B, rows, cols)."""
    total = maps.sum(dim=(-2, -1), keepdim=True)
    uniform = 1 / (maps.shape[-2] * maps.shape[-1])
    game = pointing_game(
        torch.where(total > 0, maps / total, uniform), shares[:, None], rule="half"
    )
    return Scores(game.hits.double(), game.mass.double())


def make_table(results: dict[str, Scores], shares: Tensor, seed: int) -> tuple[list[Line], str]:
    """The lines, and a remark on which heads were chosen."""
    interval = bootstrap(len(shares), seed)
    lines = []
    for name, (hits, mass) in results.items():
        lines.append(Line(name, interval(hits), interval(mass)))
    heads = [values for name, values in results.items() if name.startswith(HEAD)]
    best, chosen = _chosen_on_the_other_half(heads, seed)
    after_heads = 1 + len(heads)
    title = "class token, last block, the head chosen on the other half"
    lines.insert(after_heads, Line(title, interval(best.hits), interval(best.mass)))
    on_object = (shares >= 0.5).double().mean(dim=(1, 2))[:, None]
    area = shares.double().mean(dim=(1, 2))[:, None]
    lines.append(Line("chance: any cell; a uniform map", interval(on_object), interval(area)))
    return lines, chosen


def _chosen_on_the_other_half(heads: Sequence[Scores], seed: int) -> tuple[Scores, str]:
    """Figures (photos, 1) of the head that has the most mass on the half that a photo is not of."""
    hits = torch.cat([head.hits for head in heads], dim=1)  # (photos, H)
    mass = torch.cat([head.mass for head in heads], dim=1)  # (photos, H)
    choice, chosen = chosen_on_the_other_half(mass, seed)
    best = Scores(hits.gather(1, choice[:, None]), mass.gather(1, choice[:, None]))
    return best, "head " + " and head ".join(map(str, chosen))


def _spread(results: dict[str, Scores]) -> str:
    """The pointing of each draw of random weights, lowest first, for the notes."""
    parts = []
    for name, scores in results.items():
        if "random" in name:
            draws = sorted((100 * scores.hits.mean(dim=0)).tolist())
            parts.append(f"{name}, {', '.join(f'{draw:.1f}' for draw in draws)} %")
    return ";\n  ".join(parts)


# ---- text ----------------------------------------------------------------------------------------


def _heading(arguments: argparse.Namespace, model: VisionTransformer, count: int) -> str:
    config = model.config
    file = find_weights(arguments.weights)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]
    options = [
        part
        for name, default in (("size", 224), ("draws", 5), ("seed", 0), ("limit", 0))
        if (value := getattr(arguments, name)) != default
        for part in (f"--{name}", str(value))
    ]
    weights = Path(arguments.weights).name
    command = ["--photos", "PHOTOS", "--masks", "MASKS", "--weights", weights, *options]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pillow")]
    return (
        f"{count} photos. Model: `{weights}` (SHA-256 {digest}…), {config.depth} blocks of "
        f"{config.num_heads} heads, width {config.dim}, patches of {config.patch_size[0]} x "
        f"{config.patch_size[1]}, fp32.\n"
        f"torch {torch.__version__}, {', '.join(versions)}, Python {platform.python_version()}; "
        f"{_processor()}, {torch.get_num_threads()} threads.\n\n"
        f"    python -m benchmarks.real_maps {shlex.join(command)}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    sys.exit(main())
