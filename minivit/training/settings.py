"""How a model is trained: one flat set of values, checked when it is made.

The recipes (`minivit.training.recipes`) add to these fields what is trained, and on what. The
number of processes and `accumulate` only divide the work: a step always sees `batch_size` samples,
and its gradient is that of all of them together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from minivit.fields import is_number, renamed_fields, require, require_choice

Optimizer = Literal["sgd", "adam", "adamw", "muon"]
Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["fp32", "bf16"]
Trainable = Literal["all", "head"]

# Names that fields had before, which recipes and run folders may still use.
OLD_NAMES = {
    "warmup": "warmup_share",
    "clip": "grad_clip",
    "ema": "ema_decay",
    "train": "trainable",
}


@renamed_fields(OLD_NAMES)
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how weights move.

    Attributes:
        epochs: Passes over the training samples.
        steps: Number of steps after which a phase ends, though its epochs may not be over; 0: all
            steps of its epochs.
        batch_size: Samples a step, all processes together.
        accumulate: Parts that the samples of a step are computed in, one after the other: less
            memory, the same step.
        lr: Highest learning rate.
        optimizer: "sgd" with momentum, "adam" (decay added to the gradient), "adamw" (decoupled),
            or "muon" for the matrices inside the blocks and AdamW for the rest.
        momentum: Momentum of "sgd".
        beta2: How slowly the second moment of "adam" and "adamw" forgets.
        weight_decay: Decay of the weight matrices; norms, biases, tokens and positions have none.
        decay_all: Norms, biases, tokens and positions have the decay too (CATR, and plain torch).
        layer_decay: Factor of the rate from each block to the one before it; the head has the full
            rate, the embedding the lowest (BEiT, arXiv:2106.08254). 1: all alike.
        schedule: Rate after the warm-up: "cosine" to 0, "step": a tenth of it every `lr_drop`
            epochs, or "constant".
        warmup_share: Share of all steps in which the rate rises from 0.
        lr_drop: Epochs between two drops of the schedule "step".
        grad_clip: Longest gradient, all weights together; 0: any length.
        label_smoothing: Share of the target that is spread over all classes.
        ema_decay: Decay of the moving average of the weights, which is then validated and saved in
            their place; 0: none.
        trainable: "all", or "head": everything before the last layer stays as it is.
        patience: Epochs without a better result after which a phase ends; 0: it never ends early.
        precision: "bf16" computes matrix products in bfloat16 (autocast), "fp32" does not.
        compile: Let torch.compile make one program of the step; needs a C++ compiler on the CPU.
        gradient_checkpointing: Compute blocks again in the backward pass instead of keeping them.
        save_every: Steps between two savings of the state to resume from; it is also saved after
            each epoch.
        seed: Seed of weights, order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    steps: int = 0
    accumulate: int = 1
    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    decay_all: bool = False
    layer_decay: float = 1.0
    schedule: Schedule = "cosine"
    warmup_share: float = 0.0
    lr_drop: int = 20
    grad_clip: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    trainable: Trainable = "all"
    patience: int = 0
    precision: Precision = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "lr_drop", "save_every"):
            require(self, name, is_number(getattr(self, name), 1), "at least 1")
        for name in ("steps", "patience", "seed", "weight_decay", "grad_clip"):
            require(self, name, is_number(getattr(self, name), 0), "at least 0")
        for name in ("momentum", "beta2", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            require(self, name, is_number(value, 0) and value < 1, "at least 0 and below 1")
        require(self, "lr", is_number(self.lr) and self.lr > 0, "more than 0")
        require(self, "warmup_share", is_number(self.warmup_share, 0, 1), "a share, 0 to 1")
        decay = self.layer_decay
        require(self, "layer_decay", is_number(decay, 0, 1) and decay > 0, "above 0, at most 1")
        require_choice(self, "optimizer", Optimizer)
        require_choice(self, "schedule", Schedule)
        require_choice(self, "precision", Precision)
        require_choice(self, "trainable", Trainable)

    def num_steps(self, steps_per_epoch: int) -> int:
        """Number of steps of a phase with these settings.

        Args:
            steps_per_epoch: Steps of one epoch.
        """
        whole = self.epochs * steps_per_epoch
        return min(whole, self.steps or whole)


def lr_fraction(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The learning rate of a step as a fraction of the highest.

    Linear warm-up, then as `schedule` says; the cosine is that of Loshchilov & Hutter 2017
    (arXiv:1608.03983) without restarts.

    Args:
        step: Number of the step, from 0, counted over all epochs.
        steps_per_epoch: Steps of one epoch.
        settings: Source of epochs, steps, warm-up and schedule.
    """
    num_steps = settings.num_steps(steps_per_epoch)
    warmup = round(settings.warmup_share * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "step":
        return float(0.1 ** (step // steps_per_epoch // settings.lr_drop))
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
