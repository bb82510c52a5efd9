"""Training a captioner: teacher forcing, loss, steps, validation.

The decoder reads the true words and is asked at each for the one after it; all words of a sentence
are asked at once, since none sees a later one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivit.captioner import Captioner
from minivit.data.captions import CaptionBatch
from minivit.resnet import ResNet
from minivit.training.muon import Muon

Batches = Callable[[int], Iterable[CaptionBatch]]
"""The batches of an epoch, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """Everything that decides how a captioner is trained.

    Attributes:
        epochs: Passes over the training captions.
        batch_size: Captions a step.
        lr: Highest learning rate.
        backbone_lr: Of the backbone; 0 leaves it as it is, and saves its backward pass.
        optimizer: "adamw", or "muon" for the matrices inside the blocks and AdamW for the rest.
        schedule: "cosine" to 0 after a warm-up, or "step": a tenth of it every `lr_drop` epochs.
        warmup: Share of all steps in which the rate rises from 0.
        lr_drop: See `schedule`.
        weight_decay: Of all weights with "adamw", as CATR; of matrices only with "muon".
        clip: Longest gradient, all weights together.
        label_smoothing: Share of the target that is spread over all words.
        precision: "bf16" computes matrix products in bfloat16 (autocast), "fp32" does not.
        seed: Of weights, order and augmentation.
    """

    epochs: int
    batch_size: int
    lr: float
    backbone_lr: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    schedule: Literal["cosine", "step"] = "cosine"
    warmup: float = 0.0
    lr_drop: int = 20
    weight_decay: float = 1e-4
    clip: float = 0.1
    label_smoothing: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr_drop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.lr <= 0 or self.backbone_lr < 0:
            raise ValueError(
                f"lr is {self.lr} and backbone_lr {self.backbone_lr}: expected above 0, and 0 or "
                "more"
            )
        for name, choices in (
            ("optimizer", ("adamw", "muon")),
            ("schedule", ("cosine", "step")),
            ("precision", ("fp32", "bf16")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose from {', '.join(choices)}"
                )


@dataclass(frozen=True)
class CaptionEpoch:
    """The figures of one pass over the training captions.

    Attributes:
        epoch: Counted from 1.
        lr: Learning rate at its end.
        train_loss: Mean loss a word while training.
        val_loss: Mean loss a word of the validation captions.
        val_accuracy: Share of their words that were the likeliest, given the true words before.
        seconds: Since the start of training, validation included.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


def caption_loss(
    logits: Tensor, targets: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy over the words that are there.

    CATR's own loss counts the padding as words to be learned, about 90 % of its 128 targets a
    caption: most of its gradient says that padding follows padding.

    Args:
        logits: (B, T, vocabulary).
        targets: (B, T), `pad_id` where there is no word.
        pad_id: The padding token.
        label_smoothing: Share of the target that is spread over all words.
    """
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=pad_id,
        label_smoothing=label_smoothing,
    )


def run_batch(
    captioner: Captioner, batch: CaptionBatch, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits (B, T, vocabulary) and targets (B, T) of a batch; uint8 pictures are normalised."""
    images, tokens = batch.images.to(device), batch.tokens.to(device)
    mask = batch.image_mask
    if images.dtype == torch.uint8:
        images = captioner.preprocess.normalize(images)
    mask = None if mask is None or bool(mask.all()) else mask.to(device)
    return captioner(images, tokens[:, :-1], mask), tokens[:, 1:]


@torch.no_grad()
def evaluate(
    captioner: Captioner, batches: Iterable[CaptionBatch], device: torch.device
) -> tuple[float, float]:
    """Loss a word and share of words that were the likeliest; in fp32, every word counted once.

    Args:
        captioner: Put into eval mode here.
        batches: Held-out pictures and captions.
        device: Where.

    Returns:
        (loss, accuracy from 0 to 1).
    """
    captioner.eval()
    loss, right, count = 0.0, 0, 0
    pad = captioner.tokenizer.pad_id
    for batch in batches:
        logits, targets = run_batch(captioner, batch, device)
        words = targets != pad
        number = int(words.sum())
        loss += caption_loss(logits, targets, pad).item() * number
        right += int(((logits.argmax(dim=-1) == targets) & words).sum())
        count += number
    return loss / max(1, count), right / max(1, count)


def make_optimizers(captioner: Captioner, settings: CaptionSettings) -> list[torch.optim.Optimizer]:
    """The backbone at its own rate, the rest at the other; norms and biases as settings say.

    The stem and the first stage of a ResNet stay as they are, as in DETR and CATR.
    """
    backbone, matrices, rest = [], [], []
    for name, parameter in captioner.named_parameters():
        parameter.requires_grad_(True)
        if name.startswith("backbone."):
            stem = isinstance(captioner.backbone, ResNet) and not name.startswith(
                ("backbone.layer2", "backbone.layer3", "backbone.layer4")
            )
            if stem or settings.backbone_lr == 0:
                parameter.requires_grad_(False)
            else:
                backbone.append(parameter)
        elif settings.optimizer == "muon" and parameter.dim() == 2 and "coder." in name:
            matrices.append(parameter)
        else:
            rest.append(parameter)
    groups = [{"params": rest, "lr": settings.lr, "weight_decay": settings.weight_decay}]
    if backbone:
        groups.append(
            {
                "params": backbone,
                "lr": settings.backbone_lr,
                "weight_decay": settings.weight_decay,
            }
        )
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, fused=True)]
    if matrices:
        optimizers.append(Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]
    return optimizers


def rate(step: int, steps_per_epoch: int, settings: CaptionSettings) -> float:
    """The learning rate of a step as a share of the highest."""
    num_steps = settings.epochs * steps_per_epoch
    warmup = round(settings.warmup * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "step":
        return float(0.1 ** (step // steps_per_epoch // settings.lr_drop))
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))


def train(
    captioner: Captioner,
    batches: Batches,
    validation: Batches,
    settings: CaptionSettings,
    *,
    steps_per_epoch: int,
    device: torch.device,
    on_step: Callable[[float], None] | None = None,
) -> Iterator[CaptionEpoch]:
    """Trains a captioner, giving the figures after each epoch.

    Args:
        captioner: Trained in place, on `device`.
        batches: Of each epoch, in its own order.
        validation: Looked at after each epoch, always as epoch 0.
        settings: How.
        steps_per_epoch: Number of batches.
        device: Where.
        on_step: Called after each step with its loss.

    Yields:
        One `CaptionEpoch` a pass.

    Raises:
        ValueError: The loss is not a finite number any more.
    """
    optimizers = make_optimizers(captioner, settings)
    trained = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    step, start, pad = 0, time.perf_counter(), captioner.tokenizer.pad_id
    for epoch in range(settings.epochs):
        captioner.train()
        if settings.backbone_lr == 0:
            captioner.backbone.eval()  # as it will be used: no dropout in it
        total, words = 0.0, 0
        for batch in batches(epoch):
            share = rate(step, steps_per_epoch, settings)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["highest_lr"] * share
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                logits, targets = run_batch(captioner, batch, device)
            loss = caption_loss(logits, targets, pad, settings.label_smoothing)
            if not torch.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss.item()} at step {step + 1} of "
                    f"{settings.epochs * steps_per_epoch} with learning rate "
                    f"{settings.lr * share:.2g}: start again with a lower --lr"
                )
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, settings.clip)
            for optimizer in optimizers:
                optimizer.step()
            number = int((targets != pad).sum())
            total, words, step = total + loss.item() * number, words + number, step + 1
            if on_step is not None:
                on_step(loss.item())
        val_loss, val_accuracy = evaluate(captioner, validation(0), device)
        seconds = time.perf_counter() - start
        yield CaptionEpoch(
            epoch + 1, settings.lr * share, total / max(1, words), val_loss, val_accuracy, seconds
        )
