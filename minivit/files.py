"""Files: written so that a reader never meets half of one, read only where they have an end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside `path`; what was written there becomes `path` at the end.

    When the body raises, or the process dies, `path` is what it was before. The temporary name
    keeps the ending of `path`, since libraries choose a format by it.

    Args:
        path: The file to write; folders above it are made.

    Yields:
        The name to write to.

    Raises:
        OSError: The folder cannot be made or written to, the disk is full, or `path` is a folder
            itself.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(
            dir=target.parent,
            prefix=f".{cut_name(target.stem, 80)}-",
            suffix=cut_name(target.suffix, 80),
        )
    except OSError as error:  # speak of the file that was to be written, not of a temporary name
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files for their owner only
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise type(error)(error.errno, error.strerror, os.fspath(target)) from None
        raise


def cut_name(name: str, most: int) -> str:
    """A name, or the beginning of it that is no longer than so many bytes in a folder.

    File systems allow 255 bytes, which are 85 Chinese characters.
    """
    data = os.fsencode(name)
    return name if len(data) <= most else data[:most].decode("utf-8", "ignore")


def not_a_file(path: str | os.PathLike[str]) -> str:
    """What stands at a path instead of a plain file, such as "a named pipe"; "" where one does.

    Whoever is about to read a file that a user or a list names asks here first: a pipe makes its
    reader wait until somebody writes, and a device has no end. Links are followed.

    Raises:
        OSError: Nothing is there.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    return "a pipe, not a file" if stat.S_ISFIFO(mode) else "a device or socket, not a file"


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG, in the dots per inch that its words were measured for.

    Args:
        figure: Figure to write.
        path: File to write; folders above it are made.

    Raises:
        OSError: As `replacing`.
    """
    with replacing(path) as temporary, warnings.catch_warnings():
        # A name in letters that matplotlib's font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(temporary, format="png", dpi="figure")
