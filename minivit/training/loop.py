"""The training loop: order, loss, step, validation, and what is written down.

Loss: cross-entropy of the class; and, where the data says what each patch shows, cross-entropy of
every patch token too (token labelling: Jiang et al. 2021, arXiv:2104.10858, equation 2). The layer
that reads the patch tokens is thrown away after training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.training.muon import Muon
from minivit.training.settings import TrainingSettings
from minivit.vit import VisionTransformer


@dataclass(frozen=True)
class LabelledImages:
    """Samples held in memory.

    Attributes:
        images: (n, 3, height, width) uint8.
        labels: (n,) int64.
        patch_labels: (n, rows, cols) int64, what each patch shows; or None.
    """

    images: Tensor
    labels: Tensor
    patch_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Epoch:
    """The figures of one pass over the training samples.

    Attributes:
        epoch: Counted from 1.
        lr: Learning rate at its end.
        train_loss: Mean class loss while training.
        val_loss: Class loss on the validation samples.
        val_accuracy: Share of validation samples whose best class is right, 0 to 1.
        seconds: Since the start of training, validation included.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


def learning_rate(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then a cosine to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983).

    Args:
        step: From 0 to `num_steps` - 1.
        num_steps: Steps in all.
        settings: Gives the highest rate and the share of warm-up.
    """
    warmup = max(1, round(settings.warmup * num_steps))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))


def make_optimizers(model: nn.Module, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices inside the blocks, AdamW for everything else.

    Norms, biases, tokens and positions are not decayed.
    """
    matrices, decayed, free = [], [], []
    for name, parameter in model.named_parameters():
        if "blocks." in name and parameter.dim() == 2:
            matrices.append(parameter)
        elif name.endswith("weight") and parameter.dim() > 1:
            decayed.append(parameter)
        else:
            free.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return [
        Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99), fused=True),
    ]


def normalize(images: Tensor, model: VisionTransformer, device: torch.device) -> Tensor:
    """(B, 3, height, width) uint8 to the values that the model's `preprocess` gives."""
    return model.preprocess.normalize(images.to(device))


def turn(images: Tensor, grid: Tensor | None, which: int) -> tuple[Tensor, Tensor | None]:
    """One of the eight ways to lay a square picture, the same for pictures and patch labels.

    Args:
        images: (B, 3, side, side).
        grid: (B, rows, cols) or None.
        which: 0 to 7: quarter turns, and a mirror image from 4 on.
    """
    images = torch.rot90(images, which % 4, (2, 3))
    grid = None if grid is None else torch.rot90(grid, which % 4, (1, 2))
    if which >= 4:
        images, grid = images.flip(3), None if grid is None else grid.flip(2)
    return images, grid


@torch.no_grad()
def evaluate(
    model: VisionTransformer,
    data: LabelledImages,
    *,
    device: torch.device,
    batch_size: int = 250,
) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers; in fp32, so that it never depends on how.

    Args:
        model: Put into eval mode here.
        data: What to classify.
        device: Where.
        batch_size: Samples at once.

    Returns:
        (loss, accuracy from 0 to 1).
    """
    model.eval()
    loss, right = 0.0, 0
    for start in range(0, len(data), batch_size):
        part = slice(start, start + batch_size)
        logits = model(normalize(data.images[part], model, device))
        labels = data.labels[part].to(device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(dim=1) == labels).sum())
    return loss / len(data), right / len(data)


def train(
    model: VisionTransformer,
    data: LabelledImages,
    validation: LabelledImages,
    settings: TrainingSettings,
    *,
    device: torch.device,
    num_patch_classes: int = 0,
    symmetric: bool = False,
    on_step: Callable[[float], None] | None = None,
) -> Iterator[Epoch]:
    """Trains a classifier, giving the figures after each epoch.

    Args:
        model: Trained in place, on `device`.
        data: Training samples.
        validation: Samples that are only looked at.
        settings: How.
        device: Where.
        num_patch_classes: Classes of `data.patch_labels`.
        symmetric: Whether a picture keeps its label when it is turned or mirrored; each batch is
            then laid in one of eight ways.
        on_step: Called after each step with its class loss.

    Yields:
        One `Epoch` a pass.

    Raises:
        ValueError: The loss is not a finite number any more.
    """
    random = torch.Generator().manual_seed(settings.seed)
    patch_head = nn.Linear(model.config.dim, max(1, num_patch_classes)).to(device)
    whole = nn.ModuleDict({"model": model, "patch_head": patch_head})
    optimizers = make_optimizers(whole, settings)
    num_steps, step = settings.epochs * math.ceil(len(data) / settings.batch_size), 0
    start = time.perf_counter()

    for epoch in range(1, settings.epochs + 1):
        model.train()
        total = 0.0
        order = torch.randperm(len(data), generator=random)
        for first in range(0, len(data), settings.batch_size):
            chosen = order[first : first + settings.batch_size]
            rate = learning_rate(step, num_steps, settings)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            images, labels = data.images[chosen], data.labels[chosen].to(device)
            grid = None if data.patch_labels is None else data.patch_labels[chosen]
            if symmetric:
                which = int(torch.randint(8, (), generator=random))
                images, grid = turn(images, grid, which)

            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                tokens = model.encode(normalize(images, model, device))  # (B, N, D)
                class_loss = F.cross_entropy(
                    model.classify(tokens).float(),
                    labels,
                    label_smoothing=settings.label_smoothing,
                )
                loss = class_loss
                if settings.token_loss and grid is not None:
                    shown = patch_head(tokens[:, model.num_prefix_tokens :])  # (B, N, classes)
                    loss = loss + settings.token_loss * F.cross_entropy(
                        shown.float().flatten(0, 1), grid.to(device).flatten()
                    )
            if not torch.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss.item()} at step {step + 1} of {num_steps} with learning "
                    f"rate {rate:.2g}: start again with a lower --lr"
                )
            whole.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            total += class_loss.item() * len(chosen)
            step += 1
            if on_step is not None:
                on_step(class_loss.item())
        val_loss, val_accuracy = evaluate(model, validation, device=device)
        seconds = time.perf_counter() - start
        yield Epoch(epoch, rate, total / len(data), val_loss, val_accuracy, seconds)
