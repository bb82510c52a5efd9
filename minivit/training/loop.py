"""The training loop: order, step, validation, and a state from which it goes on bit by bit.

::

    for phase in phases:                       (usually one; "Adam, then SGD" are two)
        for epoch in phase:
            for step in epoch:                 batch_size samples, divided among processes and parts
                loss.backward(); optimizer.step()
            validate

All chance comes from numbers that are known beforehand: the order of an epoch from (seed, epoch), a
sample's augmentation from (seed, epoch, index), dropout from (seed, step, process). There is no
hidden state of a generator to lose, so that a run that was killed and resumed ends with the same
bits as one that was not.

Next: `minivit/training/optimizers.py`, how a step moves the weights.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from minivit.data.seeds import mix_seed
from minivit.training.distributed import Processes
from minivit.training.evaluation import evaluate
from minivit.training.optimizers import make_optimizers, set_rates
from minivit.training.settings import Settings, lr_fraction
from minivit.training.state_file import StateError
from minivit.training.task import Data, Epoch, Piece, Task, divide, epoch_order


class NotFiniteError(ValueError):
    """The loss or the gradient is not a number any more."""


class Trainer:
    """Trains a task, epoch by epoch.

    Args:
        task: Task, trained in place, on the device of `processes`.
        data: Training samples.
        validation: Samples that only measure the model.
        phases: Settings of the phases, one after the other.
        processes: This process and the others.
        evaluation_batch: Validation samples at once.
        on_step: Function that is called after each step with its loss.
        save: Function that is called with the state (see `state`) every `save_every` steps and
            after each epoch, in the first process only.

    Attributes:
        epochs: Figures of the finished epochs.
        average: Moving average of the model, or None.
        stopped: Whether `run` ended early because of `stop`.
    """

    def __init__(
        self,
        task: Task,
        data: Data,
        validation: Data,
        phases: Sequence[Settings],
        *,
        processes: Processes,
        evaluation_batch: int = 250,
        on_step: Callable[[float], object] | None = None,
        save: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.task, self.data, self.validation, self.phases = task, data, validation, list(phases)
        self.processes, self.evaluation_batch = processes, evaluation_batch
        self.on_step = on_step or (lambda _loss: None)
        self.save = save or (lambda _state: None)
        self.epochs: list[Epoch] = []
        self.average: nn.Module | None = None
        self.stopped = False
        self._is_stopping = False
        self._phase = 0  # phases that are finished
        self._epoch = 0  # epochs of this phase that are finished
        self._step = 0  # steps of this epoch that are done
        self._all_steps = 0  # steps of all phases that are done
        self._sums = torch.zeros(2, dtype=torch.float64)  # reported loss and terms of this epoch
        self._earlier = 0.0  # seconds of the runs before this one
        self._start = time.perf_counter()
        self._prepare()

    @property
    def model(self) -> nn.Module:
        """The model to validate and to save: the moving average where there is one."""
        return self.average or self.task.model

    @property
    def num_steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.num_steps(self._steps_per_epoch(phase)) for phase in self.phases)

    @property
    def step(self) -> int:
        """Steps done, of all phases."""
        return self._all_steps

    def _steps_per_epoch(self, settings: Settings) -> int:
        return math.ceil(len(self.data) / settings.batch_size)

    def _steps_of_epoch(self) -> int:
        """Steps of the present epoch, which is shorter where its phase ends within it."""
        per_epoch = self._steps_per_epoch(self.settings)
        return min(per_epoch, self.settings.num_steps(per_epoch) - self._epoch * per_epoch)

    def _prepare(self) -> None:
        """Optimizers and the module that is called, for the present phase."""
        self.settings = settings = self.phases[self._phase]
        self.optimizers = make_optimizers(
            self.task, settings, lambda name: self.task.lr_scale(name, settings)
        )
        self._trained = [each for each in self.task.parameters() if each.requires_grad]
        self.task.prepare(settings)
        if settings.ema_decay and self.average is None:
            self.average = copy.deepcopy(self.task.model).requires_grad_(False)
        elif not settings.ema_decay:
            self.average = None
        called: Any = torch.compile(self.task) if settings.compile else self.task
        self._called = DistributedDataParallel(called) if self.processes.count > 1 else called

    # ---- epochs ----------------------------------------------------------------------------------

    def run(self) -> Iterator[Epoch]:
        """Trains to the end; the state is saved when the caller asks for the next epoch.

        Yields:
            The figures of each epoch that was finished.

        Raises:
            NotFiniteError: The loss or the gradient is not finite; the message names the step and
                the learning rate.
        """
        while self._phase < len(self.phases):
            while self._steps_of_epoch() > 0 and not self._out_of_patience():
                self._run_steps()
                if self._step < self._steps_of_epoch():
                    self.stopped = True
                    self._save_state()
                    return
                yield self._finish_epoch()
                self._save_state()
            self._phase, self._epoch = self._phase + 1, 0
            if self._phase < len(self.phases):
                self._prepare()

    def stop(self) -> None:
        """Has `run` end before its next step, with the state saved; no step is left half-done."""
        self._is_stopping = True

    def is_best(self) -> bool:
        """Whether the last epoch is the best so far, or as good as the best."""
        scores = self._scores()
        return scores[-1] == max(scores)

    def _scores(self) -> list[float]:
        """How good each epoch was; higher is better."""
        by_loss = self.task.best_by == "loss"
        return [-each.val_loss if by_loss else each.val_accuracy for each in self.epochs]

    def _out_of_patience(self) -> bool:
        """Whether this phase has gone on for long enough without a better epoch."""
        scores = self._scores()[len(self.epochs) - self._epoch :]
        if self.settings.patience == 0 or not scores:
            return False
        waited = len(scores) - 1 - scores.index(max(scores))  # epochs since the first best one
        return waited >= self.settings.patience

    def _run_steps(self) -> None:
        """The steps of an epoch that are still to do, or those before `stop`."""
        settings, epoch = self.settings, len(self.epochs)
        pieces = self._pieces(epoch_order(settings.seed, epoch, len(self.data)))
        loaded = self.data.load(epoch, pieces)
        for _, parts in itertools.groupby(pieces, lambda piece: piece.step):
            if self._is_stopping:
                return
            self._run_step([(piece, next(loaded)) for piece in parts])
            if self._step % settings.save_every == 0:
                self._save_state()

    def _finish_epoch(self) -> Epoch:
        """The figures of an epoch whose steps are done; the next one begins."""
        done = self._figures()
        self.epochs.append(done)
        self._step, self._epoch, self._sums = 0, self._epoch + 1, torch.zeros_like(self._sums)
        return done

    def _figures(self) -> Epoch:
        """The figures of the present epoch, with a validation."""
        loss, accuracy = self._validate()
        return Epoch(
            epoch=len(self.epochs) + 1,
            lr=self.settings.lr * self._lr_fraction(self._step - 1),
            train_loss=(self._sums[0] / self._sums[1]).item(),
            val_loss=loss,
            val_accuracy=accuracy,
            seconds=self._seconds(),
        )

    def epochs_so_far(self) -> list[Epoch]:
        """The finished epochs, and the one that `stop` cut short, validated as it is."""
        return [*self.epochs, self._figures()] if self._step else self.epochs

    def _pieces(self, order: Sequence[int]) -> list[Piece]:
        """The samples of this process in the steps of an epoch that are still to do."""
        size, first, pieces = self.settings.batch_size, self._all_steps - self._step, []
        for step in range(self._step, self._steps_of_epoch()):
            together = order[step * size : (step + 1) * size]
            own = divide(together, self.processes.count)[self.processes.rank]
            parts = [part for part in divide(own, self.settings.accumulate) if part]
            pieces += [Piece(first + step, part) for part in parts]
            if not parts:  # a process must take part in every step; its loss is left out
                pieces.append(Piece(first + step, [together[0]], counted=False))
        return pieces

    def _run_step(self, batches: list[tuple[Piece, Any]]) -> None:
        """One step of the optimizers, for all the samples of all processes."""
        settings, device = self.settings, self.processes.device
        set_rates(self.optimizers, self._lr_fraction(self._step))
        counts = [self.task.count(batch) * piece.counted for piece, batch in batches]
        terms = self.processes.total(torch.tensor(float(sum(counts)))).item()
        self.task.set_mode(settings)
        torch.manual_seed(mix_seed(settings.seed, self._all_steps, self.processes.rank))
        sums = torch.zeros(2, dtype=torch.float64)
        bf16 = settings.precision == "bf16"
        for number, (piece, batch) in enumerate(batches, start=1):
            alone = number == len(batches) or self.processes.count == 1
            with nullcontext() if alone else self._called.no_sync():
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    losses = self._called(batch, settings) * piece.counted
                # Processes average their gradients; the step is the sum of all, over `terms`.
                (losses[0] * (self.processes.count / terms)).backward()
            sums += losses.detach().cpu()
        loss, reported = (self.processes.total(sums) / terms).tolist()
        gradients = [each.grad for each in self._trained if each.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        for name, value in (("loss", loss), ("gradient", norm.item())):
            if not math.isfinite(value):
                raise NotFiniteError(
                    f"the {name} is {value} at step {self.step + 1} of {self.num_steps} with "
                    f"learning rate {settings.lr * self._lr_fraction(self._step):.2g}: start again "
                    "with a lower --lr"
                )
        if settings.grad_clip:
            nn.utils.clip_grads_with_norm_(self._trained, settings.grad_clip, norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._step, self._all_steps = self._step + 1, self._all_steps + 1
        self._follow()
        self._sums += torch.tensor([reported * terms, terms], dtype=torch.float64)
        self.on_step(reported)

    def _lr_fraction(self, step: int) -> float:
        """The learning rate at a step of this epoch, as a fraction of the highest."""
        per_epoch = self._steps_per_epoch(self.settings)
        return lr_fraction(self._epoch * per_epoch + step, per_epoch, self.settings)

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average towards the weights, faster at first: it starts from untrained ones."""
        if self.average is None:
            return
        decay = min(self.settings.ema_decay, (1 + self._all_steps) / (10 + self._all_steps))
        pairs = zip(self.average.parameters(), self.task.model.parameters(), strict=True)
        averages, weights = (list(each) for each in zip(*pairs, strict=True))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def _validate(self) -> tuple[float, float]:
        """(loss a term, accuracy) on the validation samples, all processes together."""
        return evaluate(
            self.task,
            self.model,
            self.validation,
            processes=self.processes,
            batch_size=self.evaluation_batch,
        )

    # ---- the state -------------------------------------------------------------------------------

    def _save_state(self) -> None:
        if self.processes.is_first:
            self.save(self.state())

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on: tensors, numbers, lists, dicts."""
        return {
            "task": self.task.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "place": [self._phase, self._epoch, self._step, self._all_steps],
            "sums": self._sums,
            "epochs": [dataclasses.astuple(epoch) for epoch in self.epochs],
            "seconds": self._seconds(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state; the trainer must have the arguments of the one that saved it.

        Args:
            state: Result of `state`.

        Raises:
            StateError: It is none, or that of another model or of other phases.
        """
        try:
            self._load_state(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            if isinstance(error, KeyError):
                reason = f"{reason} is missing"
            if len(reason) > 200:  # torch lists every tensor
                reason = f"{reason[:200]} …"
            raise StateError(f"is no state of this model and recipe ({reason})") from error

    def _load_state(self, state: dict[str, Any]) -> None:
        phase, epoch, step, all_steps = state["place"]
        for name, value, most in (
            ("phase", phase, len(self.phases) - 1),
            ("step", all_steps, self.num_steps),
            ("epoch", epoch, all_steps),
            ("step of its epoch", step, all_steps),
        ):
            if type(value) is not int or not 0 <= value <= most:
                raise ValueError(f"{name} {value!r}, expected 0 to {most}")
        if state["sums"].shape != self._sums.shape:
            raise ValueError(f"sums of shape {tuple(state['sums'].shape)}, expected (2,)")
        self._phase, self._epoch, self._step, self._all_steps = state["place"]
        self.epochs = [Epoch(*values) for values in state["epochs"]]
        self._sums, self._earlier = state["sums"], state["seconds"]
        self._start = time.perf_counter()
        self._prepare()
        self.task.load_state_dict(state["task"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._start
