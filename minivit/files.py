"""Files: written whole or not at all and never onto an input, read only where they have an end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_FORMATS = ("png", "pdf", "svg")

TEMPORARY = ".{stem}.minivit-{chance}{suffix}"
"""Name of a file that is being written, beside the one that it becomes."""


# ---- whole or not at all -------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside `path`; what was written there becomes `path` at the end.

    When the body raises, or the process dies, `path` is what it was before. The temporary name
    keeps the ending of `path`, since libraries choose a format by it. A symbolic link stays, and
    the file that it leads to is replaced. A named pipe or a terminal gets the whole content at the
    end; a pipe waits for its reader.

    Args:
        path: The file to write; folders above it are made.

    Yields:
        The name to write to.

    Raises:
        OSError: The folder cannot be made or written to, the disk is full, or `path` is a folder, a
            block device, a socket, or where the output of this process goes.
    """
    passes_on = is_passed_on(path)
    target = _place(path)
    prefix, suffix = TEMPORARY.split("{chance}")
    try:
        handle, name = tempfile.mkstemp(
            dir=None if passes_on else target.parent,
            prefix=prefix.format(stem=cut_name(target.stem, 80)),
            suffix=suffix.format(suffix=cut_name(target.suffix, 80)),
        )
    except OSError as error:  # speak of the file that was to be written, not of a temporary name
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if passes_on:
            _pass_on(temporary, path)
            return
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files for their owner only
        temporary.replace(target)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def growing(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """A text file that becomes `path` at the end, and that stays where the body raises.

    Until then it is NAME.partial.csv beside NAME.csv, or NAME.partial-2.csv and so on: a file that
    is there is kept. One to which nothing was written goes. A named pipe or a terminal is written
    to as the text comes.

    Args:
        path: The file to write; folders above it are made.

    Yields:
        The file, in UTF-8, whose name is its `name`; bytes that are no UTF-8 in names of files go
        through as they are.

    Raises:
        OSError: As `replacing`.
    """
    if is_passed_on(path):
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            yield stream
        return
    target = _place(path)
    file = _open_partial(target, os.fspath(path))
    partial = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException as error:
        if not partial.stat().st_size:
            partial.unlink()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise


def _open_partial(target: Path, name: str) -> IO[str]:
    """A new file beside `target`."""
    number = 1
    while True:
        ending = ".partial" if number == 1 else f".partial-{number}"
        partial = target.with_name(f"{cut_name(target.stem, 200)}{ending}{target.suffix}")
        try:
            return partial.open("x", newline="", encoding="utf-8", errors="surrogateescape")
        except FileExistsError:
            number += 1
        except OSError as error:
            raise type(error)(error.errno, error.strerror, name) from None


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


def save_figure(
    figure: Figure, path: str | os.PathLike[str], *, mark: str = "", dpi: int | None = None
) -> None:
    """Writes a figure: PDF or SVG where the name ends so, otherwise PNG.

    In a PDF words are text in fonts that the file holds; in an SVG they are text too, in the fonts
    of whoever opens it. Files hold no date and no random names: the same figure is the same file.

    Args:
        figure: Figure to write.
        path: File to write; folders above it are made.
        mark: Word that is kept in the file beside the picture (see `minivit.commands.outputs`).
        dpi: Dots per inch, of a PDF or SVG those of its photos and maps; None: the figure's own.

    Raises:
        OSError: As `replacing`.
    """
    import matplotlib

    kind = os.path.splitext(path)[1].lower().removeprefix(".")
    kind = kind if kind in FIGURE_FORMATS else "png"
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    with (
        replacing(path) as temporary,
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "minivit"}
        ),
        # Hinting widens letters of few dots: at 90 an inch a line is 4 % longer than measured.
        matplotlib.rc_context({"text.hinting": "none"} if dpi else {}),
    ):
        # A name in letters that matplotlib's font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        metadata = {**undated, **({"Keywords": mark} if mark else {})}
        figure.savefig(temporary, format=kind, dpi=dpi or "figure", metadata=metadata)


# ---- where a file may be written -----------------------------------------------------------------


def is_passed_on(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a named pipe, a terminal or /dev/null, which take what is written to them.

    Raises:
        OSError: `path` is a folder, a block device, a socket, or where the output of this process
            goes.
    """
    try:
        found = os.stat(path)
    except OSError:  # not there, or a link that leads nowhere
        return False
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if stat.S_ISREG(mode):
        streams = []
        for stream in (1, 2):
            with contextlib.suppress(OSError):  # closed
                streams.append(os.fstat(stream))
        if any(os.path.samestat(stream, found) for stream in streams):
            reason = "the output of this command goes there; give another name"
            raise FileExistsError(errno.EEXIST, reason, os.fspath(path))
        return False
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return True
    reason = "a block device or a socket, expected a file; give another name"
    raise OSError(errno.EINVAL, reason, os.fspath(path))


def _place(path: str | os.PathLike[str]) -> Path:
    """The file to replace: where a link leads to; folders above a plain name are made."""
    target = Path(path)
    if target.is_symlink():
        real = Path(os.path.realpath(target))
        if real.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        return real
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _pass_on(source: Path, path: str | os.PathLike[str]) -> None:
    """Writes a file to a pipe or a device."""
    try:
        with source.open("rb") as content, open(path, "wb") as out:
            shutil.copyfileobj(content, out)
    except BrokenPipeError:
        reason = "its reader went away before all was written"
        raise BrokenPipeError(errno.EPIPE, reason, os.fspath(path)) from None


# ---- what may not be written over ----------------------------------------------------------------


class OutputIsInputError(ValueError):
    """An output that is one of the inputs."""


def refuse_inputs(
    outputs: Iterable[str | os.PathLike[str]],
    inputs: Iterable[str | os.PathLike[str]],
    *,
    advice: str = "choose another --out",
) -> None:
    """Refuses an output that is one of the inputs, by whatever name: links lead to the same file.

    Args:
        outputs: Files that are going to be written or removed.
        inputs: Files that are read; of a folder, all files within it. One that is not there is
            passed over.
        advice: Words that say what to do.

    Raises:
        OutputIsInputError: Names the output and the input.
    """
    there: dict[tuple[int, int], str] = {}
    for output in outputs:
        with contextlib.suppress(OSError):  # what is not there is no input
            found = os.stat(output)
            if stat.S_ISREG(found.st_mode):
                there[found.st_dev, found.st_ino] = os.fspath(output)
    if not there:
        return
    for place in inputs:
        for file in _files_at(os.fspath(place)):
            with contextlib.suppress(OSError):
                found = os.stat(file)
                if name := there.get((found.st_dev, found.st_ino)):
                    same = os.path.abspath(name) == os.path.abspath(file)
                    raise OutputIsInputError(
                        f"{name}: is an input{'' if same else f' ({file})'} and would be "
                        f"overwritten; {advice}"
                    )


def _files_at(place: str) -> Iterator[str]:
    """A file, or all files within a folder."""
    if not os.path.isdir(place):
        yield place
        return
    for folder, folders, names in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        # A link to a folder above is not followed: it would lead round in circles.
        folders[:] = [
            name
            for name in folders
            if not os.path.islink(inner := os.path.join(folder, name))
            or not real.startswith(os.path.realpath(inner))
        ]
        for name in names:
            yield os.path.join(folder, name)
