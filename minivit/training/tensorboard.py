"""The curves of a run for TensorBoard, where that is installed (`pip install tensorboard`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from minivit.training.task import Epoch


class Events:
    """Writes event files into a folder; without the package it writes nothing.

    Args:
        folder: Folder of the files, usually `tensorboard/` of a run folder.
        done: Number of finished epochs; events of later epochs, which an interrupted run left, are
            hidden.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self._writer = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def add(self, epoch: Epoch) -> None:
        """Writes the figures of an epoch."""
        if self._writer is None:
            return
        for name, value in (
            ("loss/training", epoch.train_loss),
            ("loss/validation", epoch.val_loss),
            ("accuracy/validation", epoch.val_accuracy),
            ("learning rate", epoch.lr),
        ):
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()
