"""Samples on their way into a training run: batch by batch with helping processes, or all at once.

torch's DataLoader turns the error of a sample into a report of many lines, traceback included. It
raises the death of a worker wherever the program just is, and it draws from the global random
numbers whenever a pass begins. The functions here do none of this.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

Item = TypeVar("Item")


def load_batches(
    dataset: Dataset[Item],
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    collate: Callable[[list[Item]], Any] | None = None,
) -> Generator[Any, None, None]:
    """The batches of one pass over a data set, in the order of `batches`.

    The worker processes start with the pass and end with it, also when it is given up half-way
    (close the iterator, or let go of it). Each computes with one thread, and Ctrl-C is left to
    this process. Two batches a worker are made ahead. The global random numbers stay untouched.

    Args:
        dataset: Data set whose items depend on nothing but their index and the data set; with
            workers on systems that do not fork, it has to survive pickling.
        batches: Indices of the items of each batch.
        workers: Number of processes that make the batches; 0: this one.
        collate: Called with a list of items to make a batch; None: torch's `default_collate`, which
            stacks.

    Yields:
        The batches as `collate` returns them. Tensors made by a worker live in shared memory and
        hold a file descriptor each: keep a clone of what outlives the pass.

    Raises:
        Exception: The error of a sample or of `collate`, with its type and message, wherever it
            was raised; its traceback in the worker, as text, is the cause. An error that cannot be
            sent comes as a RuntimeError that gives its type.
        OSError: A worker died.
    """
    join: Callable[[list[Item]], Any] = collate or default_collate
    if workers < 1 or not batches:
        for batch in batches:
            yield join([dataset[index] for index in batch])
        return
    loader = DataLoader(
        _Batches(dataset, batches, join),
        batch_size=None,  # an item of _Batches is a batch
        num_workers=min(workers, len(batches)),
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts,
        generator=torch.Generator(),  # instead of the global one
    )
    iterator = _start(loader)
    try:
        for _ in batches:
            result = _next(iterator)
            if isinstance(result, _Failure):
                raise result.error from _WorkerError(result.trace)
            yield result
            del result  # the memory of a batch is given back before the next one is waited for
    finally:
        del iterator  # the last reference: ends the processes


def load_all(
    dataset: Dataset[tuple[torch.Tensor, ...]],
    *,
    workers: int = 0,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Every sample of a data set, stacked: drawn once instead of once an epoch.

    Args:
        dataset: Data set whose items are tuples of tensors of one shape each.
        workers: Number of processes that make the samples; 0: this one.
        on_batch: Called with the number of samples that have come in.

    Returns:
        One tensor (n, …) for each entry of an item.

    Raises:
        Exception: As `load_batches`.
    """
    indices = range(len(dataset))  # type: ignore[arg-type]
    chunks = [indices[start : start + 256] for start in range(0, len(indices), 256)]
    batches: list[list[torch.Tensor]] = []
    for batch in load_batches(dataset, chunks, workers=workers):
        batches.append([part.clone() for part in batch])  # out of the worker's shared memory
        if on_batch is not None:
            on_batch(len(batch[0]))
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


# ---- in the workers ------------------------------------------------------------------------------


class _Batches(Dataset[Any]):
    """Whole batches as items, errors as values."""

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: Sequence[Sequence[int]],
        join: Callable[[list[Any]], Any],
    ) -> None:
        self.dataset, self.batches, self.join = dataset, batches, join

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.join([self.dataset[item] for item in self.batches[index]])
        except Exception as error:
            return _Failure(_that_travels(error), traceback.format_exc())


class _Failure(NamedTuple):
    """An error on its way to the main process; pickling would lose its traceback."""

    error: Exception
    trace: str


class _WorkerError(Exception):
    """The traceback in a worker, as text, for --debug."""


def _that_travels(error: Exception) -> Exception:
    """The error, or where pickling changes or refuses it, a RuntimeError that says the same."""
    with contextlib.suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _as_it_is(batch: Any) -> Any:
    """The batch as it is; torch would convert what is in it."""
    return batch


def _leave_interrupts(_worker: int) -> None:
    """Leaves Ctrl-C to the main process, and hides the error of a batch that it fetches no more.

    A thread of multiprocessing hands the batches over; the hook gets the errors of that thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _unless_hung_up


def _unless_hung_up(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Reports an error as usual, unless the main process has closed the connection."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


# ---- in the main process -------------------------------------------------------------------------


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Starts the workers; a Ctrl-C waits until they are all there and ignore it.

    torch sets a signal handler that raises when a worker dies, in the middle of a training step. It
    is removed again: `_next` notices a death within five seconds of waiting.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone meets signals
        return iter(loader)
    death = getattr(signal, "SIGCHLD", None)  # not on Windows
    on_death = signal.getsignal(death) if death else None
    if str(getattr(on_death, "__module__", "")).startswith("torch."):
        on_death = None  # of a DataLoader that was used before
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        return iter(loader)
    finally:
        if death:
            signal.signal(death, on_death or signal.SIG_DFL)
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _next(iterator: Iterator[Any]) -> Any:
    """The next batch, or a `_Failure`; the death of a worker is returned too.

    Raised from here, it would keep the iterator in its traceback and with it the other workers.
    """
    try:
        return next(iterator)
    except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: died while sending
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
    problem = f"a process that loads data died ({reason})"
    advice = "memory may have run out: use fewer workers or smaller batches"
    return _Failure(OSError(f"{problem}; {advice}"), reason)
