"""A step of train.py beside a plain loop around timm's model, in a process each, in turns.

    python -m benchmarks.training_speed [--rounds N]

Needs timm (the `parity` extra). The same ViT-S/16 weights and pictures: uint8 on one side, which
minivit normalises itself, normalised floats on the other. Both shorten the gradient to length 1. As
`train.py` does, the process of minivit keeps freed memory; the one of timm is left as it is.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import platform
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeAlias

import timm
import torch
import torch.nn.functional as F
from torch import nn

import minivit
from benchmarks.turns import take_turns
from minivit.training.classify.data import ImageBatch, LabelledImages
from minivit.training.classify.task import ClassificationTask
from minivit.training.distributed import Processes
from minivit.training.loop import Trainer
from minivit.training.memory import keep_freed_memory
from minivit.training.settings import Settings
from minivit.training.task import Piece

MakeStep: TypeAlias = Callable[..., Callable[[], None]]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds\n"
    )
    print("| ViT-S/16, a training step | batch | timm, ms | minivit / timm | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for pixels, batch, optimizer, precision in (
        (224, 8, "sgd", "fp32"),
        (224, 8, "adamw", "fp32"),
        (224, 8, "adamw", "bf16"),
        (384, 4, "sgd", "fp32"),
        (384, 4, "sgd", "bf16"),
    ):
        measure(pixels, batch, optimizer, precision, arguments.rounds)


def measure(pixels: int, batch: int, optimizer: str, precision: str, rounds: int) -> None:
    """One comparison."""
    options = (pixels, batch, optimizer, precision)
    with own_process() as theirs, own_process() as ours:
        cases = {
            "timm": lambda: theirs.submit(do_step, plain_step, *options).result(),
            "minivit": lambda: ours.submit(do_step, train_step, *options).result(),
        }
        times = take_turns(cases, rounds)
    ratios = [a / b for a, b in zip(times["minivit"], times["timm"], strict=True)]
    print(
        f"| {pixels} px, {optimizer}, {precision} | {batch} | "
        f"{1e3 * statistics.median(times['timm']):.0f} | **{statistics.median(ratios):.2f}** | "
        f"{min(ratios):.2f} | {max(ratios):.2f} |",
        flush=True,
    )


def own_process() -> ProcessPoolExecutor:
    """A process that shares nothing with this one, as a user's is."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def do_step(make: MakeStep, *options: Any) -> None:
    """A step, in a process of its own; the first one makes it, before the measured turns."""
    made(make, *options)()


@functools.cache
def made(make: MakeStep, *options: Any) -> Callable[[], None]:
    """What a process keeps from step to step."""
    return make(*options)


def same_start(pixels: int, batch: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """timm's model, pictures and labels, the same each time."""
    torch.manual_seed(0)
    model = timm.create_model(f"vit_small_patch16_{pixels}", pretrained=False).train()
    images = torch.randint(0, 256, (batch, 3, pixels, pixels), dtype=torch.uint8)
    return model, images, torch.randint(1000, (batch,))


def train_step(pixels: int, batch: int, optimizer: str, precision: str) -> Callable[[], None]:
    """A step of train.py, in a process that is prepared as `train.py` prepares its own."""
    keep_freed_memory()
    theirs, images, labels = same_start(pixels, batch)
    model = minivit.VisionTransformer(minivit.ViTConfig.from_name(f"small_patch16_{pixels}"))
    model.load_state_dict(theirs.state_dict())
    settings = Settings(
        epochs=1000,
        batch_size=batch,
        lr=1e-4,
        optimizer=optimizer,
        grad_clip=1.0,
        precision=precision,
    )
    data = LabelledImages(images, labels)
    alone = Processes(0, 1, torch.device("cpu"))
    trainer = Trainer(ClassificationTask(model), data, data, [settings], processes=alone)

    def step() -> None:
        piece = Piece(trainer.step, list(range(batch)))
        trainer._run_step([(piece, ImageBatch(images, labels))])

    return step


def plain_step(pixels: int, batch: int, optimizer: str, precision: str) -> Callable[[], None]:
    """Forward, backward, clipping and optimizer, as a loop around timm's model has them."""
    model, pictures, labels = same_start(pixels, batch)
    images = pictures / 127.5 - 1
    made: torch.optim.Optimizer
    if optimizer == "sgd":
        made = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)
    else:
        made = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(images), labels)
        made.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        made.step()
        loss.item()

    return step


if __name__ == "__main__":
    main()
