"""What all commands share: common flags, exit statuses, one line for bad input.

Exit status 0: done; 2: bad input, named in one line on standard error; 130: Ctrl-C. Nothing here
imports torch before it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import torch


def add_common_flags(parser: argparse.ArgumentParser, *, seed: int | None = 0) -> None:
    """Adds --seed, --device and --debug.

    Args:
        parser: Parser that gets them.
        seed: Default of --seed; None: the recipe's.
    """
    group = parser.add_argument_group("common options")
    default = "the recipe's, 0" if seed is None else str(seed)
    group.add_argument("--seed", type=int, default=seed, metavar="N", help=f"default: {default}")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute; auto takes a GPU when there is one (default: %(default)s)",
    )
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2 and the message alone."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(command: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Calls a command and turns its result, or its error, into an exit status.

    Args:
        command: Function of the parsed arguments; returns the exit status, None meaning 0.
        arguments: Parsed arguments, with a `debug` field.

    Returns:
        The exit status.
    """
    try:
        status = command(arguments) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        if arguments.debug:
            raise
        print(one_line(error), file=sys.stderr)
        return 2


def keep_freed_memory() -> None:
    """Has the C library keep freed memory for the next tensor, up to 2 GiB of it.

    As it is, glibc gives the end of the heap back to the system, which clears every page that it
    hands out again: 8 to 28 % of the time of a training step (and none of a pass without gradients,
    which frees little). See mallopt(3); other C libraries, which have none, stay as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)  # the highest that glibc takes


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; for a system error its file and reason."""
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        return f"error: {file}{error.strerror}"
    return "error: " + " ".join(str(error).split())


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], object]]]:
    """Progress bars that vanish when they are full, and with the block that they are used in.

    Of several processes of one training only the first shows them.

    Yields:
        A function of a title and a total that gives a function: told how many more have been done.
    """
    from tqdm import tqdm

    hidden = os.environ.get("RANK", "0") != "0"
    with contextlib.ExitStack() as open_bars:

        def bar(title: str, total: int) -> Callable[[int], object]:
            made = tqdm(total=total, desc=title, leave=False, disable=hidden)
            open_bars.callback(made.close)

            def update(number: int) -> None:
                made.update(number)
                if made.n >= total:
                    made.close()

            return update

        yield bar


def pick_device(name: str) -> torch.device:
    """The device that --device names.

    Args:
        name: Name of a device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: The device is not there.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise ValueError(f"--device {name}: this machine has no {name} device; use --device cpu")
    return torch.device(name)
