"""What a training run is told, and the folder that it leaves behind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything that decides how a model is trained.

    Attributes:
        epochs: Passes over the training samples.
        batch_size: Samples a step.
        lr: Highest learning rate, reached after the warm-up; it then falls to 0 as a cosine.
        warmup: Share of all steps in which the rate rises from 0.
        weight_decay: Of the weight matrices; norms, biases, tokens and positions have none.
        token_loss: Weight of the loss that asks every patch token what it shows (token labelling,
            arXiv:2104.10858); 0 leaves it out.
        label_smoothing: Share of the target that is spread over all classes.
        precision: "bf16" computes matrix products in bfloat16 (autocast), "fp32" does not.
        seed: Of weights, order and augmentation.
    """

    epochs: int
    batch_size: int
    lr: float
    warmup: float = 0.05
    weight_decay: float = 0.05
    token_loss: float = 0.0
    label_smoothing: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.lr > 0:
            raise ValueError(f"lr is {self.lr}, expected more than 0")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}: choose fp32 or bf16")

    def to_dict(self) -> dict[str, int | float | str]:
        """The fields as plain values."""
        return dataclasses.asdict(self)
