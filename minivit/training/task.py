"""What the training loop needs to know of a task, and nothing else.

A loss is a sum over terms (pictures or words), divided by their number. Tasks give the sums and the
loop divides, so that a step is the same however its samples are split: into parts or among
processes, also when these are of different size.

Next: `minivit/training/classify/task.py`, a classifier's answers.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from minivit.preprocess import Preprocess
from minivit.progress import Bar as Bar
from minivit.training.data_digest import DataDigest
from minivit.training.settings import Settings


class Piece(NamedTuple):
    """Samples that are computed together.

    Attributes:
        step: Number of the step in the whole training, from 0; a chance that all samples of a
            step have in common is drawn from it.
        indices: Numbers of the samples.
        counted: Whether the loss is part of the step.
    """

    step: int
    indices: list[int]
    counted: bool = True


class Data(Protocol):
    """Samples, and how to get some of them."""

    def __len__(self) -> int: ...

    def load(self, epoch: int, pieces: Sequence[Piece]) -> Iterator[Any]:
        """The batches of these pieces, in order; a sample depends on (seed, epoch, index) only."""


class Task(nn.Module, ABC):
    """A model and its loss.

    Attributes:
        model: Model to train and to save.
        best_by: Figure by which the best epoch is chosen: the lowest validation loss or the highest
            accuracy.
    """

    model: nn.Module
    best_by: Literal["loss", "accuracy"]

    @abstractmethod
    def forward(self, batch: Any, settings: Settings) -> Tensor:
        """(2,): the loss that is minimised and the one that is reported, each summed over terms."""

    @abstractmethod
    def count(self, batch: Any) -> int:
        """Number of terms of a batch."""

    @abstractmethod
    def measure(self, model: nn.Module, batch: Any) -> Tensor:
        """(3,) float64: summed loss, right answers, terms; of the model or its moving average."""

    def lr_scale(self, name: str, settings: Settings) -> float:
        """Factor of the learning rate for a parameter of this task; 0: the parameter stays."""
        return 1.0

    def prepare(self, settings: Settings) -> None:
        """Called before each phase: tells the parts of the model how they are to be trained."""
        part: Any
        for part in self.modules():
            if hasattr(part, "gradient_checkpointing"):
                part.gradient_checkpointing = settings.gradient_checkpointing

    def set_mode(self, settings: Settings) -> None:
        """Called before each step: train mode, except for parts that stay as they will be used."""
        self.train()


@dataclass(frozen=True)
class Plan:
    """A run before it begins: what is trained, on what, and how it will be judged.

    Attributes:
        task: The model and its loss.
        train: Training samples.
        validation: Samples that only measure the model.
        digest: Digest of both, by which a resumed run recognises its data.
        lines: Lines for the user: the data and the model.
        axes: Titles of the two curves, loss and accuracy.
        report: Function that gets the run folder, in which the best checkpoint is, and the device;
            it writes figures into that folder and returns the results.
        evaluation_batch: Validation samples at once.
        chance: Accuracy of guessing, where that is known.
        report_seconds: Estimate of the seconds of the report that depend on no model.
        report_validations: Estimate of the others, in validations.
    """

    task: Task
    train: Data
    validation: Data
    digest: DataDigest
    lines: Sequence[str]
    axes: tuple[str, str]
    report: Callable[[Path, torch.device], Report]
    evaluation_batch: int = 250
    chance: float | None = None
    report_seconds: float = 0.0
    report_validations: float = 1.0


class Report(NamedTuple):
    """Results of a run.

    Attributes:
        lines: Lines for the user.
        more: Rest of report.md, as markdown.
    """

    lines: list[str]
    more: str = ""


@dataclass(frozen=True)
class Epoch:
    """The figures of one pass over the training samples.

    Attributes:
        epoch: Number of the epoch, from 1, counted through all phases.
        lr: Learning rate at its end.
        train_loss: Mean loss a term while training.
        val_loss: Mean loss a term on the validation samples.
        val_accuracy: Share of terms whose best answer is right, 0 to 1.
        seconds: Seconds since the start of training, validation included.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


def normalized(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Pictures as a model takes them: bytes are normalised, floats are so already.

    Args:
        images: (B, 3, height, width), uint8 or normalised floats.
        preprocess: Preprocessing of the model.
    """
    return preprocess.normalize(images) if images.dtype == torch.uint8 else images


def epoch_order(seed: int, epoch: int, length: int) -> list[int]:
    """The order of the samples in an epoch."""
    random = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order: list[int] = torch.randperm(length, generator=random).tolist()
    return order


def consecutive(indices: Sequence[int], batch_size: int) -> list[Piece]:
    """Samples in order, `batch_size` at a time, to measure a model and not to train it."""
    edges = range(0, len(indices), batch_size)
    return [Piece(0, list(indices[at : at + batch_size])) for at in edges]


def divide(indices: Sequence[int], parts: int) -> list[list[int]]:
    """Consecutive parts of nearly equal length; some are empty where there are too few indices."""
    edges = [len(indices) * part // parts for part in range(parts + 1)]
    return [list(indices[a:b]) for a, b in itertools.pairwise(edges)]
