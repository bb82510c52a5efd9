"""How a model is trained: one flat set of values, checked when it is made.

What is trained and on what is said by the recipes (`minivit.training.recipes`), which add to these
fields. The number of processes and `accumulate` only divide the work: a step always sees
`batch_size` samples, and its gradient is that of all of them together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Optimizer = Literal["sgd", "adam", "adamw", "muon"]
Schedule = Literal["cosine", "step", "constant"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how weights move.

    Attributes:
        epochs: Passes over the training samples.
        batch_size: Samples a step, all processes together.
        accumulate: Parts that the samples of a step are computed in, one after the other: less
            memory, the same step.
        lr: Highest learning rate.
        optimizer: "sgd" with momentum, "adam" (decay added to the gradient), "adamw" (decoupled),
            or "muon" for the matrices inside the blocks and AdamW for the rest.
        momentum: Of "sgd".
        beta2: Of "adam" and "adamw": how slowly the second moment forgets.
        weight_decay: Of the weight matrices; norms, biases, tokens and positions have none.
        decay_all: Norms, biases, tokens and positions have it too (CATR, and plain torch).
        layer_decay: Factor of the rate from each block to the one before it; the head has the full
            rate, the embedding the lowest (BEiT, arXiv:2106.08254). 1: all alike.
        schedule: After the warm-up: "cosine" to 0, "step": a tenth of it every `lr_drop` epochs,
            or "constant".
        warmup: Share of all steps in which the rate rises from 0.
        lr_drop: See `schedule`.
        clip: Longest gradient, all weights together; 0: any length.
        label_smoothing: Share of the target that is spread over all classes.
        ema: Decay of the moving average of the weights, which is then validated and saved in their
            place; 0: none.
        train: "all", or "head": everything before the last layer stays as it is.
        patience: End after so many epochs without a better result; 0: never before the last.
        precision: "bf16" computes matrix products in bfloat16 (autocast), "fp32" does not.
        compile: Let torch.compile make one program of the step; needs a C++ compiler on the CPU.
        gradient_checkpointing: Compute blocks again in the backward pass instead of keeping them.
        save_every: Steps between two savings of the state to resume from; it is also saved after
            each epoch.
        seed: Of weights, order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    accumulate: int = 1
    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    decay_all: bool = False
    layer_decay: float = 1.0
    schedule: Schedule = "cosine"
    warmup: float = 0.0
    lr_drop: int = 20
    clip: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    train: Literal["all", "head"] = "all"
    patience: int = 0
    precision: Precision = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "lr_drop", "save_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("patience", "seed"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("lr", 0 < self.lr < math.inf, "more than 0")
        for name in ("weight_decay", "clip"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        for name in ("momentum", "beta2", "label_smoothing", "ema"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("warmup", 0 <= self.warmup <= 1, "a share, 0 to 1")
        self._require("layer_decay", 0 < self.layer_decay <= 1, "above 0, at most 1")
        for name, kind in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
            ("train", Literal["all", "head"]),
        ):
            if getattr(self, name) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose from {choices}")

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"{name} is {getattr(self, name)}, expected {expected}")


def rate_share(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The learning rate of a step, as a share of the highest.

    Linear warm-up, then as `schedule` says; the cosine is that of Loshchilov & Hutter 2017
    (arXiv:1608.03983) without restarts.

    Args:
        step: From 0, counted over all epochs.
        steps_per_epoch: Steps of one of them.
        settings: Give epochs, warm-up and schedule.
    """
    num_steps = settings.epochs * steps_per_epoch
    warmup = round(settings.warmup * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "step":
        return float(0.1 ** (step // steps_per_epoch // settings.lr_drop))
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))
