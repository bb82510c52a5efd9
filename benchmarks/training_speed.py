"""A step of train.py beside a plain loop around timm's model, in one process, in turns.

    python -m benchmarks.training_speed [--rounds N]

Needs timm (the `parity` extra). The same ViT-S/16 weights and pictures: uint8 on one side, which
minivit normalises itself, normalised floats on the other. Both shorten the gradient to length 1.
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
from minivit.training.classification import ClassificationTask, ImageBatch, LabelledImages
from minivit.training.distributed import Processes
from minivit.training.loop import Trainer
from minivit.training.settings import Settings
from minivit.training.task import Piece


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
    torch.manual_seed(0)
    theirs = timm.create_model(f"vit_small_patch16_{pixels}", pretrained=False).train()
    ours = minivit.VisionTransformer(minivit.ViTConfig.from_name(f"small_patch16_{pixels}"))
    ours.load_state_dict(theirs.state_dict())
    images = torch.randint(0, 256, (batch, 3, pixels, pixels), dtype=torch.uint8)
    labels = torch.randint(1000, (batch,))

    settings = Settings(
        epochs=1000, batch_size=batch, lr=1e-4, optimizer=optimizer, clip=1.0, precision=precision
    )
    data = LabelledImages(images, labels)
    alone = Processes(0, 1, torch.device("cpu"))
    trainer = Trainer(ClassificationTask(ours), data, data, [settings], processes=alone)

    def step() -> None:
        piece = Piece(trainer.step, list(range(batch)))
        trainer._run_step([(piece, ImageBatch(images, labels))])

    inputs = ours.preprocess.normalize(images)
    cases = {"timm": plain_step(theirs, inputs, labels, optimizer, precision), "minivit": step}
    times = take_turns(cases, rounds)
    ratios = [a / b for a, b in zip(times["minivit"], times["timm"], strict=True)]
    print(
        f"| {pixels} px, {optimizer}, {precision} | {batch} | "
        f"{1e3 * statistics.median(times['timm']):.0f} | **{statistics.median(ratios):.2f}** | "
        f"{min(ratios):.2f} | {max(ratios):.2f} |",
        flush=True,
    )


def plain_step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, optimizer: str, precision: str
) -> Callable[[], None]:
    """Forward, backward, clipping and optimizer, as a loop around timm's model has them."""
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
