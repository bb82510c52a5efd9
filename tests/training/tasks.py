"""A small task for the tests of training: where is the bright patch?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from minivit.config import ViTConfig
from minivit.training.classify.data import LabelledImages
from minivit.training.classify.task import ClassificationTask
from minivit.training.distributed import Processes
from minivit.training.loop import Trainer
from minivit.training.settings import Settings
from minivit.vit import VisionTransformer

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
SETTINGS = Settings(
    epochs=3, batch_size=16, lr=4e-3, optimizer="muon", warmup_share=0.1, grad_clip=1.0
)


def small_model(seed: int = 0, **changes: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(ViTConfig.from_name("debug_patch8_32", num_classes=2, **changes))


def bright_side(length: int, seed: int) -> LabelledImages:
    """Label 0: a bright patch in the upper half; 1: in the lower. Patch labels: where it is."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (length, 3, 32, 32), generator=generator).to(torch.uint8)
    rows, cols = torch.randint(4, (2, length), generator=generator)
    grid = torch.zeros(length, 4, 4, dtype=torch.int64)
    for image, cells, row, col in zip(images, grid, rows.tolist(), cols.tolist(), strict=True):
        image[:, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] += 120
        cells[row, col] = 1
    return LabelledImages(images, (rows >= 2).long(), grid)


def trainer(
    *phases: Settings,
    model: VisionTransformer | None = None,
    samples: int = 72,
    patches: bool = True,
    **more: Any,
) -> Trainer:
    """A trainer of a small model on few samples."""
    data = bright_side(samples, seed=1)
    task = ClassificationTask(model or small_model(), num_patch_classes=2 * patches)
    return Trainer(
        task, data, bright_side(37, seed=2), phases or (SETTINGS,), processes=ALONE, **more
    )


def weights(trained: Trainer) -> torch.Tensor:
    """All weights of the task, one after the other."""
    return torch.cat([each.detach().flatten() for each in trained.task.parameters()])


def run(trained: Trainer) -> Sequence[Any]:
    """All epochs."""
    return list(trained.run())
