"""Batches from worker processes: in order, errors in one line, nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from minivit.data.loading import load_all, load_batches
from minivit.preprocess import BadImageError

BATCHES = [[3, 1], [0], [5, 4, 2], [7, 6], [8]]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Numbers(Dataset[tuple[Tensor, int]]):
    """Item i is (i, threads); `errors` says what is raised instead."""

    def __init__(self, **errors: Exception) -> None:
        self.errors = {int(name[1:]): error for name, error in errors.items()}

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in self.errors:
            raise self.errors[index]
        if index == 3:
            time.sleep(0.2)  # the other worker is ready first
        return torch.tensor(index), torch.get_num_threads()


class Fatal(Numbers):
    """Item 4 ends the process, as the system does when memory runs out."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 4:
            time.sleep(0.5)  # the batch before has been taken: it is sent on demand
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Awkward(ValueError):
    """An error that cannot be sent to another process."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def no_workers_left() -> bool:
    """Whether all processes end within a moment."""
    deadline = time.monotonic() + 5
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_batches_come_in_order_whatever_makes_them(workers: int) -> None:
    found = [batch[0].tolist() for batch in load_batches(Numbers(), BATCHES, workers=workers)]
    assert found == BATCHES
    assert list(load_batches(Numbers(), [], workers=workers)) == []
    sums = load_batches(Numbers(), BATCHES, workers=workers, collate=len)
    assert list(sums) == [2, 1, 3, 2, 1]
    assert no_workers_left()


def test_a_worker_computes_with_one_thread() -> None:
    for _, threads in load_batches(Numbers(), BATCHES, workers=2):
        assert set(threads.tolist()) == {1}


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_numbers_stay_untouched(workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    list(load_batches(Numbers(), BATCHES, workers=workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    "error",
    [
        BadImageError("a.jpg: the file is empty (0 bytes); copy or download it again"),
        ValueError("expected two"),
        FileNotFoundError(2, "No such file or directory", "b.jpg"),
    ],
)
def test_an_error_arrives_as_it_was_raised(workers: int, error: Exception) -> None:
    batches = load_batches(Numbers(_4=error), BATCHES, workers=workers)
    assert next(batches)[0].tolist() == [3, 1]
    assert next(batches)[0].tolist() == [0]
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    if isinstance(error, OSError):
        assert caught.value.filename == "b.jpg"
    if workers:  # where it happened is not lost
        assert "in __getitem__\n    raise self.errors[index]" in str(caught.value.__cause__)
    assert list(batches) == []
    assert no_workers_left()


def test_an_error_of_collate_arrives_too() -> None:
    def collate(items: list[object]) -> object:
        raise ValueError(f"{len(items)} items of several sizes")

    with pytest.raises(ValueError, match=r"^2 items of several sizes$"):
        next(load_batches(Numbers(), BATCHES, workers=1, collate=collate))


class Altered(ValueError):
    """An error that another process receives with other words."""

    def __init__(self, word: str) -> None:
        super().__init__(f"the word is {word}")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyError("bug"), KeyError, "'bug'"),
        (
            RuntimeError("a DataLoader worker is no topic"),
            RuntimeError,
            "a DataLoader worker is no topic",
        ),
        (Awkward("two", "words"), RuntimeError, "Awkward: two words"),
        (Altered("this"), RuntimeError, "Altered: the word is this"),
    ],
)
def test_other_errors_come_as_one_line_too(
    error: Exception, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        list(load_batches(Numbers(_3=error), BATCHES, workers=2))
    assert type(caught.value) is kind and str(caught.value) == words
    assert "raise self.errors[index]" in str(caught.value.__cause__)
    assert no_workers_left()


def test_a_worker_that_dies_is_an_error_in_one_line() -> None:
    with pytest.raises(OSError, match="a process that loads data died") as caught:
        list(load_batches(Fatal(), BATCHES, workers=2))
    assert "\n" not in str(caught.value)
    assert "fewer workers or smaller batches" in str(caught.value)
    assert no_workers_left()


def test_a_death_does_not_disturb_what_is_computed_meanwhile() -> None:
    """Also where a DataLoader of somebody else has been at work before in this process."""
    list(DataLoader(Numbers(), sampler=[0], num_workers=1))
    batches = load_batches(Fatal(), BATCHES, workers=2)
    assert next(batches)[0].tolist() == [3, 1]
    end = time.monotonic() + 1.0  # item 4 is made ahead
    while time.monotonic() < end:
        time.sleep(0.01)
    assert next(batches)[0].tolist() == [0]
    with pytest.raises(OSError, match="a process that loads data died"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_samples_are_stacked_in_order(workers: int) -> None:
    class Pairs(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return 600

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return torch.tensor(index), torch.full((2, 3), index)

    random, told = torch.get_rng_state(), []
    numbers, tables = load_all(Pairs(), workers=workers, on_batch=told.append)
    assert numbers.tolist() == list(range(600))
    assert tables.shape == (600, 2, 3) and torch.equal(tables[:, 1, 2], numbers)
    assert told == [256, 256, 88]
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("how", ["close", "forget", "error of the consumer"])
def test_a_pass_that_is_given_up_leaves_no_process(how: str) -> None:
    batches = load_batches(Numbers(), BATCHES * 20, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    if how == "close":
        batches.close()
    elif how == "forget":
        del batches
    else:
        with pytest.raises(ZeroDivisionError):
            for _ in batches:
                _ = 1 // 0
        del batches
    assert no_workers_left()


INTERRUPTED = """
import sys, time
from torch.utils.data import Dataset
from minivit.data.loading import load_batches

class Slow(Dataset):
    def __getitem__(self, index):
        time.sleep(0.01)
        return index

try:
    print("begun", flush=True)
    for _ in load_batches(Slow(), [[i, i] for i in range(10_000)], workers=2):
        pass
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are a matter of Unix")
@pytest.mark.parametrize("wait", [0.0, 0.03, 0.1, 0.5])
def test_ctrl_c_reaches_this_process_alone(wait: float) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: all processes of the group
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")
    with pytest.raises(ProcessLookupError):  # the group is empty
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)


HUNG_UP = """
import multiprocessing.connection, time
from minivit.data.loading import load_batches

def interrupted(connection, key):
    connection.close()
    time.sleep(0.5)
    raise KeyboardInterrupt

batches = load_batches(list(range(100)), [[i, i] for i in range(100)], workers=2)
next(batches)
multiprocessing.connection.deliver_challenge = interrupted
try:
    for _ in batches:  # the second may be there already
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers send by other means")
def test_ctrl_c_while_a_batch_is_fetched_is_no_error_of_the_worker() -> None:
    """The worker is in the middle of handing over the batch's file descriptor."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", HUNG_UP], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_what_is_drawn_into_memory_keeps_no_descriptors() -> None:
    """Shared memory is one each, and a process may have 1,024."""
    samples = TensorDataset(torch.arange(256 * 24), torch.arange(256 * 24))
    descriptors: list[int] = []
    first, second = load_all(
        samples,
        workers=1,
        on_batch=lambda _: descriptors.append(len(os.listdir("/proc/self/fd"))),
    )
    assert torch.equal(first, samples.tensors[0]) and torch.equal(second, first)
    assert max(descriptors[12:]) <= max(descriptors[:12]) + 2
