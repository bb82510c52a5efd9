"""Methods of explanation beside a plain forward pass of the same model: time, and peak memory.

    python -m benchmarks.explain_speed [--rounds N] [--pixels N] [--cases NAME…]

ViT-S/16 at 384 pixels, one picture, random weights: they change no time. Ratios of time are taken
within a round, in one process. Peak memory is that of a process for each case, beyond what a plain
forward pass takes in it; there every tensor has pages of its own, so that what the C library keeps
is not counted.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

import minivit
from benchmarks.peak_memory import growth, of_own_process
from benchmarks.turns import take_turns
from minivit.attention import AttentionRows
from minivit.explain import METHODS, rollout
from minivit.explain.scoring.removal import removal

MODULE = "benchmarks.explain_speed"
Case = Callable[[minivit.VisionTransformer, Tensor], object]


def plain(model: minivit.VisionTransformer, images: Tensor) -> Tensor:
    """What all cases are compared with."""
    with torch.no_grad():
        return model(images)


def class_rows(model: minivit.VisionTransformer, images: Tensor) -> object:
    """The class token's rows of all blocks."""
    rows = AttentionRows(blocks=range(len(model.blocks)), queries=[0])
    with torch.no_grad():
        return model(images, return_attention=rows)


def whole_rollout(model: minivit.VisionTransformer, images: Tensor) -> Tensor:
    """Rollout as a matrix of all tokens."""
    with torch.no_grad():
        return rollout(model(images, return_attention=True)[1])


def deletion(model: minivit.VisionTransformer, images: Tensor) -> object:
    """Curves of deletion and of insertion, of 20 steps each: twice a deletion curve."""
    rows, cols = model.patch_embed.grid_for(*images.shape[-2:])
    ranking = torch.arange(rows * cols, dtype=torch.float32).view(1, rows, cols)
    return removal(model, images, ranking, torch.zeros(1, dtype=torch.long), points=20)


def integration_step(model: minivit.VisionTransformer, images: Tensor) -> object:
    """What integrated gradients compute a step: a gradient by the pixels."""
    return METHODS["input_gradient"](model, images)


CASES: dict[str, Case] = {
    "class token's rows, all blocks": class_rows,
    "rollout, whole matrix": whole_rollout,
    "a step of integrated gradients": integration_step,
    "deletion and insertion, 20 steps each": deletion,
    "relevance, maps kept": lambda *given: METHODS["relevance"](*given, keep="maps"),
    "relevance, inputs kept": lambda *given: METHODS["relevance"](*given, keep="inputs"),
} | {name: method for name, method in METHODS.items() if name != "relevance"}


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--pixels", type=int, default=384, help="default: %(default)s")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="NAME", help="default: all")
    parser.add_argument("--memory-of", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model, images = make(arguments.pixels)
    if arguments.memory_of:
        case = CASES[arguments.memory_of]
        print(growth(lambda: plain(model, images), lambda: case(model, images)))
        return
    names = arguments.cases or list(CASES)
    cases: dict[str, Callable[[], object]] = {"plain": lambda: plain(model, images)}
    for name in names:
        cases[name] = lambda case=CASES[name]: case(model, images)  # type: ignore[misc]
    times = take_turns(cases, arguments.rounds)
    length = (arguments.pixels // 16) ** 2 + 1
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds; plain: "
        f"{1e3 * statistics.median(times['plain']):.0f} ms; weights of a block: "
        f"{6 * length**2 * 4 / 2**20:.1f} MiB\n"
    )
    print(f"| ViT-S/16, {arguments.pixels} px | / plain | lowest | highest | MiB above plain |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        ratios = [a / b for a, b in zip(times[name], times["plain"], strict=True)]
        memory = of_own_process([MODULE, "--pixels", str(arguments.pixels), "--memory-of", name])
        print(
            f"| {name} | **{statistics.median(ratios):.2f}** | {min(ratios):.2f} | "
            f"{max(ratios):.2f} | {memory:.1f} |",
            flush=True,
        )


def make(pixels: int) -> tuple[minivit.VisionTransformer, Tensor]:
    """The model and its picture."""
    torch.manual_seed(0)
    config = minivit.ViTConfig.from_name(f"small_patch16_{pixels}")
    model = minivit.VisionTransformer(config).eval()
    nn.init.normal_(model.head.weight, std=0.02)  # zeros before training: no gradients to fold
    return model, torch.randn(1, 3, pixels, pixels)


if __name__ == "__main__":
    main()
