"""python -m tutorials.checks: which exercises are solved, and which are not yet."""

from __future__ import annotations

import argparse
import sys

from minivit.commands.terminal import Parser, run
from tutorials.checks.progress import progress_file, solved


def main(arguments: list[str] | None = None) -> int:
    """Prints a line an exercise, and where the record is kept.

    Args:
        arguments: Words of the command line; None: those of the process.

    Returns:
        The exit status.
    """
    parser = Parser(
        prog="python -m tutorials.checks",
        description="Prints which exercises of the lessons are solved, and where that is kept.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return run(_list, parser.parse_args(arguments))


def _list(_: argparse.Namespace) -> None:
    from tutorials.checks import EXERCISES  # here: it imports torch, which may not be installed

    known = solved()
    for number, check in sorted(EXERCISES.items(), key=lambda item: _order(item[0])):
        print(f"{'solved' if number in known else '      '}  {number:5} {check.title}")
    count = sum(number in known for number in EXERCISES)
    print(f"{count} of {len(EXERCISES)} solved ({progress_file()})")


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))


if __name__ == "__main__":
    sys.exit(main())
