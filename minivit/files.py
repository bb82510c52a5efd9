"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_FORMATS = ("png", "pdf", "svg")


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
            dir=target.parent, prefix=f".{target.stem[:80]}-", suffix=target.suffix
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


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int | None = None) -> None:
    """Writes a figure: PDF or SVG where the name ends so, otherwise PNG.

    In a PDF words are text in fonts that the file
    holds; in an SVG they are text too, in the fonts of whoever opens it. Files hold no date and no
    random names: the same figure is the same file.

    Args:
        figure: Figure to write.
        path: File to write; folders above it are made.
        dpi: Dots per inch, of a PDF or SVG those of its photos and maps; None: the figure's own.

    Raises:
        OSError: As `replacing`.
    """
    import matplotlib

    kind = os.path.splitext(path)[1].lower().removeprefix(".")
    kind = kind if kind in FIGURE_FORMATS else "png"
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with (
        replacing(path) as temporary,
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "minivit"}
        ),
    ):
        # A name in letters that matplotlib's font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(temporary, format=kind, dpi=dpi or "figure", metadata=undated)
