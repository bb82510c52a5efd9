"""What all commands share: common flags, exit statuses, one line for bad input.

Exit status 0: done; 2: bad input, named in one line on standard error; 130: Ctrl-C. Nothing here
imports torch before it is needed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import minivit
from minivit.commands.streams import lasting_streams
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
    """An argument parser that complains in one line, and takes flags by their whole names only.

    Parsers of commands are of this class too. Each has --version.

    Attributes:
        commands: Parsers of the commands, by their names.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.commands: Mapping[str, argparse.ArgumentParser] = {}
        version = f"minivit {minivit.__version__}"
        self.add_argument(
            "--version", action="version", version=version, help="print minivit's version and exit"
        )

    def add_subparsers(self, **options: Any) -> argparse._SubParsersAction[Any]:
        """Adds commands as usual, and keeps them in `commands`."""
        added = super().add_subparsers(**options)
        self.commands = added.choices
        return added

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parses as usual, once no flag or command is mistyped.

        argparse would first ask for what is missing, such as the flag that was mistyped.
        """
        words = sys.argv[1:] if args is None else list(args)
        self._check_names(words)
        return super().parse_known_args(words, namespace)

    def _check_names(self, words: Sequence[str]) -> None:
        """Ends with status 2 at the first flag that this parser does not know, or command."""
        for word in words:
            if word == "--":
                return
            if _looks_like_flag(word):
                name = word.partition("=")[0]
                if not self._knows_flag(name):
                    self.error(no_such("flag", name, self._option_string_actions))
            elif self.commands:  # the words after it are the command's own
                if word not in self.commands:
                    self.error(no_such("command", word, self.commands))
                return

    def _knows_flag(self, name: str) -> bool:
        """Whether it is one of the flags, or a short one with its value behind it: -oFILE."""
        flags = self._option_string_actions
        return name in flags or (not name.startswith("--") and name[:2] in flags)

    def error(self, message: str) -> NoReturn:
        """Ends with status 2 and the message alone."""
        self.exit(2, visible(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


def _looks_like_flag(word: str) -> bool:
    """Whether argparse takes a word for a flag: not "-", a negative number, or several words."""
    return len(word) > 1 and word[0] == "-" and " " not in word and not re.match(r"-[\d.]", word)


def no_such(what: str, word: str, known: Iterable[str]) -> str:
    """ "--epoch: no such flag; did you mean --epochs?"

    Args:
        what: Kind of thing, such as "flag".
        word: Word that is none.
        known: Words that there are; those that begin so are the nearest, else the most alike.
    """
    from difflib import get_close_matches

    known = list(known)
    nearest = [name for name in known if len(word) > 2 and name.startswith(word)]
    nearest = nearest[:3] or get_close_matches(word, known, n=1)
    hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    return f"{word}: no such {what}{hint}"


def program_name(script: str) -> str:
    """Name by which the program was started: minivit-… where it is installed, else the script's."""
    started = Path(sys.argv[0]).name
    return started if started.startswith("minivit-") else script


def run(command: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """Calls a command and turns its result, or its error, into an exit status.

    When the reader of a pipe, such as `head`, goes away, the command goes on: its files come out
    all the same, and its status says how it ended.

    Args:
        command: Function of the parsed arguments; returns the exit status, None meaning 0.
        arguments: Parsed arguments, with a `debug` field.

    Returns:
        The exit status.
    """
    with lasting_streams():
        return _run(command, arguments)


def _run(command: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> int:
    """The command and its status."""
    _interrupted.clear()
    is_usual = _in_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_usual:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return command(arguments) or 0
    except KeyboardInterrupt as error:
        print("; ".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        if _interrupted.is_set():  # torch made an error of its own of the KeyboardInterrupt
            print("interrupted", file=sys.stderr)
            return 130
        if arguments.debug:
            raise
        print(one_line(error), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if arguments.debug or (error.name or "minivit").partition(".")[0] in _OUR_PACKAGES:
            raise
        print(missing_package(error), file=sys.stderr)
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
    """The message of an error without line breaks, with its notes.

    Of a system error the message is its file and reason.
    """
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        message = f"{file}{error.strerror}"
    return visible("; ".join([f"error: {message}", *getattr(error, "__notes__", ())]))


_OUR_PACKAGES = ("minivit", "weights_convert", "tutorials")


def missing_package(error: ModuleNotFoundError) -> str:
    """One line about a package that is not installed, and what to do."""
    package = {"PIL": "pillow"}.get(error.name or "", error.name)
    return (
        f"error: the package {package} is not installed for {sys.executable}: run `source "
        ".venv/bin/activate` in the clone where make demo or make test has made .venv, or `pip "
        "install .` in an environment of your own"
    )


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
