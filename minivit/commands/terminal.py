"""What all commands share: common flags, exit statuses, one line for bad input.

Exit status 0: done; 2: bad input, named in one line on standard error; 130: Ctrl-C. Nothing here
imports torch before it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

from minivit.plain_text import visible

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
    group.add_argument(
        "--threads",
        type=at_least_one,
        metavar="N",
        help="threads of the CPU; the last bits of a result depend on it (default: what torch "
        "takes, one a core)",
    )
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2 and the message alone."""
        self.exit(2, visible(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


def run(command: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Calls a command and turns its result, or its error, into an exit status.

    Args:
        command: Function of the parsed arguments; returns the exit status, None meaning 0.
        arguments: Parsed arguments, with a `debug` field.

    Returns:
        The exit status.
    """
    _interrupted.clear()
    is_usual = _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _interrupt)
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
        if _interrupted.is_set():  # torch made an error of its own of the KeyboardInterrupt
            print("interrupted", file=sys.stderr)
            return 130
        if arguments.debug:
            raise
        print(one_line(error), file=sys.stderr)
        return 2
    finally:
        if is_usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_interrupted = threading.Event()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C as usual, and remembered.

    Where torch asks a Python object for its length or its items, and Ctrl-C comes in between, torch
    2.13 raises "ValueError: could not determine the shape of object type ..." instead.
    """
    _interrupted.set()
    signal.default_int_handler(number, frame)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def first_interrupt(call: Callable[[], object], line: str) -> Iterator[None]:
    """Has the first Ctrl-C within the block call a function; the second ends the program as usual.

    Where Ctrl-C is ignored, as in the background of a shell script, it still is.

    Args:
        call: Function that is called in the middle of whatever is being done: it sets a flag.
        line: Line for standard error.
    """

    usual = signal.getsignal(signal.SIGINT)

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, usual)
        os.write(2, f"\n{line}\n".encode())  # print may be what was interrupted
        call()

    if usual not in (signal.default_int_handler, _interrupt) or not _in_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; for a system error its file and reason."""
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        return visible(f"error: {file}{error.strerror}")
    return "error: " + visible(" ".join(str(error).split()))


def say(*lines: object, file: TextIO | None = None) -> None:
    """Prints lines at once, each of them as one line: what steers a terminal is shown escaped.

    Args:
        *lines: Lines, with words in them that others chose: labels, names of files and folders.
        file: Where they go; None: standard output.
    """
    print(*(visible(str(line)) for line in lines), sep="\n", file=file, flush=True)


def at_least_one(text: str) -> int:
    """A whole number from 1 on, as the value of a flag."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on; found {text!r}")
    return int(text)


def pick_device(name: str, threads: int | None = None) -> torch.device:
    """The device that --device names, with --threads threads where that is the CPU.

    Args:
        name: Name of a device: "auto", "cpu", "cuda" or "mps".
        threads: Number of threads; None: what torch takes.

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
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device(name)


def warn_of_slow_bf16(device: torch.device) -> None:
    """One line on standard error where the processor emulates bfloat16, with how slow that is."""
    from minivit.cpu import bf16_slowdown

    if device.type == "cpu" and (slowdown := bf16_slowdown()) > 1:
        print(
            f"warning: this processor has no instructions for bfloat16: a matrix product takes "
            f"{slowdown:.1f} times as long as in fp32; --precision fp32 is faster here",
            file=sys.stderr,
        )
