"""softmax(QKᵀ/√d)V on the CPU: fused, with one row of weights, with all of them.

    python -m benchmarks.attention_speed [--rounds N]

577 tokens are ViT/16 at 384 pixels. The textbook's way makes three fresh tensors of (heads, 577,
577); the memory that the system must hand out for them costs more than the arithmetic. On a CPU
minivit holds scores and weights in one.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.turns import take_turns
from minivit.attention import scaled_dot_product_attention


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="default: %(default)s")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds\n"
    )
    print("| 577 tokens, d = 64, fp32 | heads | ms | ratio to fused |")
    print("| --- | --- | --- | --- |")
    for num_heads in (6, 12):
        measure(num_heads, arguments.rounds)


def measure(num_heads: int, rounds: int) -> None:
    """One table section."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, num_heads, 577, 64) for _ in range(3))
    kept: list[Tensor] = []

    def textbook() -> None:
        weights = (query @ key.transpose(-2, -1) / math.sqrt(64)).softmax(dim=-1)
        kept[:] = [weights, weights @ value]

    def minivit(**options: object) -> Callable[[], object]:
        def run() -> None:
            kept[:] = scaled_dot_product_attention(query, key, value, **options)  # type: ignore

        return run

    cases = {
        "fused": minivit(),
        "fused, and one row": minivit(rows=[0]),
        "explicit, scores and weights in one piece of memory": minivit(need_weights=True),
        "textbook, three fresh tensors": textbook,
    }
    times = take_turns(cases, rounds)
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["fused"], strict=True)]
        print(
            f"| {name} | {num_heads} | {1000 * statistics.median(seconds):.2f} | "
            f"{statistics.median(ratios):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    with torch.no_grad():
        main()
