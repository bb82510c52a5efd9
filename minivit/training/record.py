"""The files that follow a training: checkpoints, metrics, curves and events after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from minivit.checkpoint import save_model
from minivit.files import save_figure
from minivit.training.loop import Trainer
from minivit.training.run_folder import RunFolder
from minivit.training.task import Epoch, Plan
from minivit.training.tensorboard import Events
from minivit.viz import curves_figure

if TYPE_CHECKING:
    from minivit.captioner import Captioner
    from minivit.vit import VisionTransformer


class Record:
    """Writes the results so far into a run folder.

    Args:
        folder: Run folder.
        plan: Plan of the run, with the titles of the curves.
        trainer: Trainer of the run, already in the state from which it goes on.
    """

    def __init__(self, folder: RunFolder, plan: Plan, trainer: Trainer) -> None:
        self.folder, self.plan, self.trainer = folder, plan, trainer
        before = folder.event_files()
        self.events = Events(folder.path / "tensorboard", len(trainer.epochs))
        folder.add_files(folder.event_files() - before)

    def write(self) -> None:
        """Writes everything that is known after an epoch; the model also as the best, if it is."""
        save_model(self._model(), self.folder.last)
        if self.trainer.is_best():
            save_model(self._model(), self.folder.best)
        self._write_figures(self.trainer.epochs)
        self.events.add(self.trainer.epochs[-1])

    def write_stopped(self) -> None:
        """Writes what a training that was stopped has learned.

        The best checkpoint stays that of the finished epochs where there are any, so that a run
        that goes on ends with the same files as one that was not stopped.
        """
        save_model(self._model(), self.folder.last)
        if not self.trainer.epochs:
            save_model(self._model(), self.folder.best)
        self._write_figures(self.trainer.epochs_so_far())

    def _model(self) -> VisionTransformer | Captioner:
        return cast("VisionTransformer | Captioner", self.trainer.model)

    def _write_figures(self, epochs: Sequence[Epoch]) -> None:
        loss, accuracy = self.plan.axes
        self.folder.write_metrics(epochs)
        curves = curves_figure(
            epochs,
            chance=self.plan.chance,
            best_by=self.trainer.task.best_by,
            loss=loss,
            accuracy=accuracy,
            heading=f"run: {self.folder.path.absolute().name}",
        )
        save_figure(curves, self.folder.path / "curves.png")
