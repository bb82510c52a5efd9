"""The mark of a run folder: the files that the run writes, and the process that is at work.

minivit-run.json tells a run folder from any other: only what it lists is ever removed. Whoever
trains in the folder holds a lock on it (https://man7.org/linux/man-pages/man2/flock.2.html; on
Windows a lock on a byte of it), which the system lets go of with the process, however that ends.
The file is rewritten in place, since a lock belongs to a file and not to its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

NAME = "minivit-run.json"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        """Locks a byte far behind the text, which others may read."""
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        """Locks the file."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunFolderError(ValueError):
    """A run folder that cannot be used; the message says in one line what to do instead."""


class RunMark:
    """The file minivit-run.json of a run folder.

    Args:
        folder: Run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME

    def files(self) -> list[str] | None:
        """Names of the files that the run wrote; None where there is no mark."""
        try:
            files = _parsed(self.path.read_bytes())["files"]
            return [name for name in files if isinstance(name, str)]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, files: Iterable[str]) -> None:
        """Makes the mark, with the names of the files that the run writes and of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _rewrite(handle, sorted(files))
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; what it made is taken away if no run began in it.

        Raises:
            RunFolderError: Another process is at work there; says which.
            OSError: The folder cannot be made or written to.
        """
        made = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        handle = self._open_locked()
        self._close_in_children(handle)
        try:
            _rewrite(handle, self.files() or [])
            yield
        finally:
            if not self.files():
                self.path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something else lies in it
                    for folder in made:
                        folder.rmdir()
            os.close(handle)

    def _open_locked(self) -> int:
        """The mark, opened and locked."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(handle)
            except OSError as error:
                process = _process(self.path)
                if error.errno in _NO_LOCKS:
                    warnings.warn(
                        f"{self.folder}: this file system has no locks; see to it that no other "
                        "process trains there",
                        RuntimeWarning,
                        stacklevel=4,
                    )
                    return handle
                os.close(handle)
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLOCK):
                    raise
                raise RunFolderError(
                    f"{self.folder}: {process} is at work there: wait until it has ended, or give "
                    "another --out"
                ) from None
            with contextlib.suppress(OSError):  # taken away by the process that held it before
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    return handle
            os.close(handle)

    def _close_in_children(self, handle: int) -> None:
        """Lets go of the lock in processes that are forked, which may outlive this one a while."""
        if not hasattr(os, "register_at_fork"):
            return
        file = os.fstat(handle)

        def close() -> None:
            with contextlib.suppress(OSError):  # closed by now; or the number is another file's
                if os.path.samestat(os.fstat(handle), file):
                    os.close(handle)

        os.register_at_fork(after_in_child=close)


def _rewrite(handle: int, files: list[str]) -> None:
    """Writes the text over the one before, which ends behind it or is cut there."""
    values = {
        "about": "minivit trains in this folder; these are the files that it writes",
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "files": files,
    }
    text = f"{json.dumps(values, indent=1)}\n".encode()
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, text)
    os.ftruncate(handle, len(text))
    os.fsync(handle)


def _parsed(text: bytes) -> Any:
    """The first value in the text: after a crash the end of a longer one may stand behind it."""
    return json.JSONDecoder().raw_decode(text.decode())[0]


def _process(path: Path) -> str:
    """The process that holds the lock, in words."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = _parsed(path.read_bytes())
        return f"process {values['process']} on {values['host']} (since {values['since']})"
    return "another process"
