"""The state of an unfinished run as a file of torch.save, with a digest of it at the end.

torch.load does not look at the checksums of the zip file that it reads: a bit that was turned on
the disk would be trained on. Readers of zip files pass over what follows their end, so that
torch.load reads the file as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from minivit.files import replacing

_WORDS = b"\nminivit sha256 "
_LENGTH = len(_WORDS) + 64  # the digest in hexadecimal digits


class StateError(ValueError):
    """A state that cannot be used; the message is a reason without the file's name."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state, whole or not at all.

    Raises:
        OSError: It cannot be written, as on a full disk; the one before it stays.
    """
    try:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            with temporary.open("rb+") as file:
                digest = _digest(file, temporary.stat().st_size)
                file.write(_WORDS + digest)
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch's error about a short file comes after the cause
        if cause is None:
            raise
        kept = "; the one before it is whole" if path.exists() else ""
        raise OSError(
            cause.errno or 0,
            f"{cause.strerror or cause}{kept}: make room, then --resume",
            str(path),
        ) from None


def read_state(path: Path) -> dict[str, Any]:
    """Reads a state.

    Raises:
        StateError: The file is damaged or holds no state.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - _LENGTH))
        end = file.read()
        has_digest = end.startswith(_WORDS)
        if has_digest and end != _WORDS + _digest(file, size - _LENGTH):
            raise StateError("cannot be read (damaged): the digest at its end is that of another")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and unzipping can raise anything
        raise StateError(f"cannot be read ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise StateError(f"holds a {type(state).__name__}, expected the state of a run")
    if "recipe" in state and not has_digest:  # minivit writes both or none
        raise StateError("cannot be read (damaged): the digest at its end is gone")
    return state


def _digest(file: IO[bytes], length: int) -> bytes:
    """SHA-256 of the first bytes of a file; afterwards the file is behind them."""
    digest, left = hashlib.sha256(), length
    file.seek(0)
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()
