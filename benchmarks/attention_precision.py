"""What half precision, and storing, do to the attention weights of a trained model.

    python -m benchmarks.attention_precision --weights W --photos DIR [--limit N] [--rounds N]

Everything is compared with the weights that the model gives in float32. Prints Markdown tables: by
block the largest difference of a weight for bfloat16 and for autocast, the same of the class
token's row alone, and how often its strongest cell is another; what storing queries and keys costs
in bytes and in precision; and, in turns, the time of passes that give weights.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import minivit
from benchmarks.turns import take_turns
from minivit.attention import attention_weights, plain_attention
from minivit.explain import store_queries_keys
from minivit.vit import VisionTransformer

MODES = ("model.bfloat16()", "autocast")
ROUNDED, PRODUCTS = "Q, K, scores and weights rounded", "Q and K rounded, the rest in float32"
MAPS, ROWS = "minivit, all maps", "minivit, rows beside the kernel"
WAYS = (ROUNDED, PRODUCTS, MAPS, ROWS)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="a Vision Transformer")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, help="number of photos, evenly spaced (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="of timing (default: %(default)s)")
    arguments = parser.parse_args()
    model = cast(VisionTransformer, minivit.load_model(arguments.weights))
    paths = sorted(arguments.photos.iterdir())
    paths = paths[:: max(1, len(paths) // (arguments.limit or len(paths)))][: arguments.limit]
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, "
        f"{len(paths)} photos\n",
        flush=True,
    )
    pictures = [model.preprocess(minivit.open_image(path))[None] for path in paths]
    print_errors(model, pictures)
    print_stored(model, pictures)
    print_times(model, torch.cat(pictures[:8]), arguments.rounds)


def in_mode(mode: str) -> AbstractContextManager[object]:
    """The context in which a model of that mode runs."""
    return torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()


# ---- half precision ------------------------------------------------------------------------------


def print_errors(model: VisionTransformer, pictures: Sequence[Tensor]) -> None:
    """Three tables by block: single weights, the class token's row, its strongest cell."""
    depth, half = len(model.blocks), copy.deepcopy(model).bfloat16()
    cases = list(itertools.product(MODES, WAYS))
    largest = {case: torch.zeros(depth) for case in cases}
    largest_of_class = {case: torch.zeros(depth) for case in cases}
    moved = {case: torch.zeros(depth) for case in cases}
    for images in pictures:
        _, expected = model(images, return_attention=True)
        for mode, way in cases:
            with in_mode(mode):
                if mode == "autocast":
                    maps = list(maps_by(way, model, images))
                else:
                    maps = list(maps_by(way, half, images.bfloat16()))
            for block, (weights, exact) in enumerate(zip(maps, expected, strict=True)):
                weights, exact = weights.float(), exact[:, :, : weights.shape[2]]
                difference = (weights - exact).abs()
                case = mode, way
                largest[case][block] = max(largest[case][block], difference.max())
                of_class = max(largest_of_class[case][block], difference[:, :, 0].max())
                largest_of_class[case][block] = of_class
                moved[case][block] += strongest(weights, model) != strongest(exact, model)
    print_by_block("largest difference of a weight", {c: largest[c] for c in cases if c[1] != ROWS})
    print_by_block("largest difference in the class token's row", largest_of_class)
    percent = {case: 100 * count / len(pictures) for case, count in moved.items()}
    print_by_block("photos where its strongest cell is another, %", percent, digits=1)


def maps_by(way: str, model: VisionTransformer, images: Tensor) -> Iterator[Tensor]:
    """The weights of each block: (B, H, N, N), or (B, H, 1, N) of the class token alone."""
    every = range(len(model.blocks))
    if way == MAPS:
        yield from model(images, return_attention=True)[1]
    elif way == ROWS:
        yield from model(images, return_attention=minivit.AttentionRows(every, [0]))[1]
    else:
        tokens = model.embed(images)
        for block in model.blocks:
            q, k, v = block.attn._project(block.before(block.norm1, tokens), None, None, None)
            yield attention_weights(q, k) if way == PRODUCTS else plain_attention(q, k, v)[1]
            tokens, _ = block(tokens)


def strongest(weights: Tensor, model: VisionTransformer) -> int:
    """Number of the patch that the class token looks at most, in the mean over heads."""
    return int(weights[0, :, 0, model.num_prefix_tokens :].mean(dim=0).argmax())


def print_by_block(
    title: str, values: Mapping[tuple[str, str], Tensor], *, digits: int = 3
) -> None:
    """A table with a column for each block."""
    depth = len(next(iter(values.values())))
    print(f"| {title}; block | | {' | '.join(map(str, range(depth)))} |")
    print(f"| --- | --- {'| --- ' * depth}|")
    for (mode, way), numbers in values.items():
        print(f"| {mode} | {way} | {' | '.join(f'{x:.{digits}f}' for x in numbers.tolist())} |")
    print(flush=True)


# ---- stored --------------------------------------------------------------------------------------


def print_stored(model: VisionTransformer, pictures: Sequence[Tensor]) -> None:
    """One table: ways to store queries and keys, their bytes and the largest differences."""
    cases = list(itertools.product((torch.float16, torch.int8, torch.int16), (False, True)))
    largest, largest_of_class, size = dict.fromkeys(cases, 0.0), dict.fromkeys(cases, 0.0), {}
    for images in pictures:
        stored = store_queries_keys(model, images)
        tokens = model.embed(images)
        for index, block in enumerate(model.blocks):
            query, key = block.attn.queries_and_keys(block.before(block.norm1, tokens))
            exact = attention_weights(query, key)
            centred = key - key.mean(dim=-2, keepdim=True)
            for dtype, takes_off in cases:
                if dtype == torch.int16 and takes_off:
                    weights = stored.weights(index)
                else:
                    kept = centred if takes_off else key
                    weights = attention_weights(rounded(query, dtype), rounded(kept, dtype))
                difference, case = (weights - exact).abs(), (dtype, takes_off)
                largest[case] = max(largest[case], float(difference.max()))
                of_class = float(difference[:, :, 0].max())
                largest_of_class[case] = max(largest_of_class[case], of_class)
            tokens, _ = block(tokens)
    numbers, scales = 2 * stored.queries.numel(), 2 * stored.query_scales.numel()
    size = {torch.float16: 2 * numbers, torch.int8: numbers + 4 * scales}
    size[torch.int16] = stored.nbytes
    print("| queries and keys of all blocks stored as | MB a photo | largest | in class rows |")
    print("| --- | --- | --- | --- |")
    for dtype, takes_off in cases:
        name = str(dtype).removeprefix("torch.") + (
            "" if dtype.is_floating_point else ", scaled by row"
        )
        name += ", without the mean key" if takes_off else ""
        name += ": `store_queries_keys`" if takes_off and dtype == torch.int16 else ""
        errors = f"{largest[dtype, takes_off]:.1e} | {largest_of_class[dtype, takes_off]:.1e}"
        print(f"| {name} | {size[dtype] / 1e6:.1f} | {errors} |")
    maps = 4 * sum(each.numel() for each in model(pictures[0], return_attention=True)[1])
    print(f"| the maps themselves, float32 | {maps / 1e6:.1f} | 0 | 0 |\n", flush=True)


def rounded(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Vectors that have been stored in half precision, or as whole multiples of a scale each."""
    if dtype.is_floating_point:
        return vectors.to(dtype).float()
    scale = vectors.abs().amax(dim=-1, keepdim=True) / torch.iinfo(dtype).max
    return (vectors / scale).round() * scale


# ---- time ----------------------------------------------------------------------------------------


def print_times(model: VisionTransformer, images: Tensor, rounds: int) -> None:
    """One table: passes that give weights beside a pass that does not."""
    half, every = copy.deepcopy(model).bfloat16(), range(len(model.blocks))
    wanted: dict[str, bool | Sequence[int] | minivit.AttentionRows] = {
        "plain": False,
        "class token's row of the last block": minivit.AttentionRows([-1], [0]),
        "class token's rows of all blocks": minivit.AttentionRows(every, [0]),
        "all attention of the last block": [-1],
        "all attention of all blocks": True,
    }

    def case(mode: str, way: str) -> Callable[[], object]:
        def run() -> None:
            with in_mode(mode):
                if mode == "model.bfloat16()":
                    half(images.bfloat16(), return_attention=wanted[way])
                else:
                    model(images, return_attention=wanted[way])

        return run

    modes = ("float32", *MODES)
    cases = {f"{mode} | {way}": case(mode, way) for mode in modes for way in wanted}
    times = take_turns(cases, rounds)
    print(f"| batch {len(images)} | | ms | / plain |\n| --- | --- | --- | --- |")
    for name, seconds in times.items():
        plain = times[f"{name.split(' | ')[0]} | plain"]
        ratio = statistics.median(a / b for a, b in zip(seconds, plain, strict=True))
        print(f"| {name} | {1000 * statistics.median(seconds):.0f} | **{ratio:.2f}** |")


if __name__ == "__main__":
    with torch.no_grad():
        main()
