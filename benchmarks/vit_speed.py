"""ViT-S/16: minivit beside timm, in one process, in turns.

    python -m benchmarks.vit_speed [--rounds N]

Needs timm (the `parity` extra). Every round runs every case once; a ratio is taken within a round,
where both sides meet the same machine, and the median over rounds is printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import nn

import minivit
from benchmarks.turns import take_turns


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds\n"
    )
    print("| ViT-S/16, fp32 | batch | base, ms | ratio | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for pixels, batch in ((224, 1), (224, 8), (384, 1), (384, 4)):
        measure(pixels, batch, arguments.rounds)


def measure(pixels: int, batch: int, rounds: int) -> None:
    """All comparisons at one size."""
    torch.manual_seed(0)
    theirs = timm.create_model(f"vit_small_patch16_{pixels}", pretrained=False)
    ours = minivit.VisionTransformer(minivit.ViTConfig.from_name(f"small_patch16_{pixels}"))
    ours.load_state_dict(theirs.state_dict())
    images, labels = torch.randn(batch, 3, pixels, pixels), torch.randint(1000, (batch,))

    row = minivit.AttentionRows(blocks=[-1], queries=[0])
    every_row = minivit.AttentionRows(blocks=range(12), queries=[0])
    cases: dict[str, Callable[[], object]] = {
        "timm": lambda: theirs(images),
        "plain": lambda: ours(images),
        "row": lambda: ours(images, return_attention=row),
        "rows": lambda: ours(images, return_attention=every_row),
        "all": lambda: ours(images, return_attention=True),
    }
    with torch.no_grad():
        theirs.eval(), ours.eval()
        torch.testing.assert_close(theirs(images), ours(images), atol=1e-4, rtol=0)
        times = take_turns(cases, rounds)
    where = f"{pixels} px"
    show(f"forward, {where}: minivit / timm", batch, times["plain"], times["timm"])
    show(
        f"class token's row of the last block, {where}: / plain",
        batch,
        times["row"],
        times["plain"],
    )
    show(
        f"class token's rows of all blocks, {where}: / plain", batch, times["rows"], times["plain"]
    )
    show(f"all attention of all blocks, {where}: / plain", batch, times["all"], times["plain"])

    theirs.train(), ours.train()
    steps = {
        "timm": training_step(theirs, images, labels),
        "ours": training_step(ours, images, labels),
    }
    times = take_turns(steps, max(3, rounds // 2))
    show(f"training step, {where}: minivit / timm", batch, times["ours"], times["timm"])


def training_step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> Callable[[], object]:
    """Forward, backward and an SGD step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def show(title: str, batch: int, measured: list[float], base: list[float]) -> None:
    """One row of the table."""
    ratios = sorted(a / b for a, b in zip(measured, base, strict=True))
    print(
        f"| {title} | {batch} | {1000 * statistics.median(base):.0f} | "
        f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f} | {ratios[-1]:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
